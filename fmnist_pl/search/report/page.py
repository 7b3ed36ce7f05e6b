"""A report as one HTML file that fetches nothing."""

import re
from collections.abc import Mapping

import plotly.graph_objects as go
from markdown_it import MarkdownIt

from training_health.tab.self_contained_page import inline_script, packed_plotly, page
from training_health.tab.static_files import PLOTLY, static_files

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
:root[data-paper] main { width: 180mm; padding: 0; }
@page { margin: 12mm; }
@media print {
  figure, tr { break-inside: avoid; }
  h2 { break-after: avoid; }
  .wide, pre { overflow: visible; }
  pre { white-space: pre-wrap; }
  code { print-color-adjust: exact; }
}
"""
_FIGURE = """<figure id="{name}">
<div class="wide" role="group" aria-label="{caption}" style="min-height: {height}px"><div class="chart"></div></div>
<script type="application/json">{json}</script>
<figcaption>{caption}</figcaption>
</figure>"""
_NO_SCRIPT = "<p>The charts are drawn by JavaScript, which is switched off here; the tables hold what they show.</p>"
# The text stands before plotly.js is started, and each chart has a turn of its own. Paper has another width.
_DRAW = """
const config = { displayModeBar: false, displaylogo: false, plotlyServerURL: "", responsive: true };
const charts = document.querySelectorAll(".chart");
const added = charts.length > 0 && (await addPlotly());
for (const chart of added ? charts : []) {
  const { data, layout } = JSON.parse(chart.closest("figure").querySelector("script").textContent);
  await new Promise((done) => setTimeout(done));
  await Plotly.newPlot(chart, data, layout, config);
}
const resize = (width) => charts.forEach((chart) => chart.data && Plotly.relayout(chart, { width, autosize: !width }));
addEventListener("beforeprint", () => {
  document.documentElement.dataset.paper = "";
  resize(document.querySelector("main").clientWidth);
});
addEventListener("afterprint", () => {
  delete document.documentElement.dataset.paper;
  resize(null);
});
"""


def html_page(title: str, markdown: str, charts: Mapping[str, go.Figure]) -> str:
    """The report's Markdown as HTML, with a chart instead of each paragraph that only links to one.

    Args:
        title: The browser window's title, as plain text.
        markdown: Markup in it is shown, not obeyed.
        charts: By name; the link to one is ``report.html#NAME``. plotly.js, 0.5 MB, is inside if there are any.
    """

    def figure(match: re.Match[str]) -> str:
        name, caption = match.groups()
        content = charts[name].to_json().replace("<", "\\u003c")
        return _FIGURE.format(name=name, caption=caption, json=content, height=charts[name].layout.height)

    body = MarkdownIt("commonmark", {"html": False}).enable("table").render(markdown)
    body = re.sub(r'<p><a href="report\.html#(\w+)">(.*?)</a></p>', figure, body)
    scrolling = '<div class="wide" role="group" aria-label="Table" tabindex="0">'
    body = body.replace("<table>", f"{scrolling}<table>").replace("</table>", "</table></div>")
    body = f"<main>\n<noscript>{_NO_SCRIPT}</noscript>\n{body}</main>"
    if not charts:
        return page(title, _STYLE, body)
    files = {name: path.read_text(encoding="utf-8") for name, path in static_files().items()}
    script = f'<script type="module">{inline_script(files["packed.js"] + _DRAW)}</script>'
    return page(title, _STYLE, f"{body}\n{packed_plotly(files[PLOTLY])}\n{script}")
