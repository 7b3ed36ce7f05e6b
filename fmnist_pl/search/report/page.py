"""A report as one HTML file that fetches nothing."""

import re
from collections.abc import Mapping

import plotly.graph_objects as go
from markdown_it import MarkdownIt
from plotly.offline import get_plotlyjs

from training_health.tab.self_contained_page import inline_script, page

_STYLE = """
body { font: 16px/1.55 Roboto, "Segoe UI", Arial, sans-serif; color: #1b2430; margin: 0; }
main { max-width: 1000px; margin: 0 auto; padding: 24px 20px 64px; overflow-wrap: anywhere; }
h2 { margin: 44px 0 12px; padding-top: 14px; border-top: 1px solid #dfe4ea; }
p, ul { max-width: 78ch; }
code { font-size: 0.9em; background: #f1f4f7; border-radius: 4px; padding: 1px 5px; }
pre code { background: none; padding: 0; }
.wide, pre { overflow-x: auto; overflow-wrap: normal; }
table { border-collapse: collapse; font-size: 15px; font-variant-numeric: tabular-nums; }
th, td { padding: 6px 16px 6px 0; text-align: left; vertical-align: top; border-bottom: 1px solid #dfe4ea; }
td { max-width: 34em; }
figure { margin: 18px 0; }
figcaption { font-size: 15px; color: #4a5561; max-width: 78ch; }
"""
_CONFIG = {"displayModeBar": False, "displaylogo": False, "showSendToCloud": False, "responsive": True}


def html_page(title: str, markdown: str, charts: Mapping[str, go.Figure]) -> str:
    """The report's Markdown as HTML, with a chart instead of each paragraph that only links to one.

    Args:
        title: The browser window's title, as plain text.
        markdown: Markup in it is shown, not obeyed.
        charts: By name; the link to one is ``report.html#NAME``. plotly.js, some 5 MB, is inside if there are any.
    """

    def figure(match: re.Match[str]) -> str:
        name, caption = match.groups()
        drawn = charts[name].to_html(config=_CONFIG, include_plotlyjs=False, full_html=False, div_id=f"chart-{name}")
        return f'<figure id="{name}"><div class="wide">{drawn}</div><figcaption>{caption}</figcaption></figure>'

    body = MarkdownIt("commonmark", {"html": False}).enable("table").render(markdown)
    body = re.sub(r'<p><a href="report\.html#(\w+)">(.*?)</a></p>', figure, body)
    body = body.replace("<table>", '<div class="wide"><table>').replace("</table>", "</table></div>")
    script = f"<script>{inline_script(get_plotlyjs())}</script>\n" if charts else ""
    return page(title, _STYLE, f"{script}<main>\n{body}</main>")
