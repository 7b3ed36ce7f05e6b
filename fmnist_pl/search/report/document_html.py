"""A report as one HTML file that fetches nothing."""

import html
import json
import re
from collections.abc import Sequence
from importlib import resources

from plotly.offline import get_plotlyjs

from fmnist_pl.search.report.document import Block, Bullets, Document, Plot, Section, Table, Text
from training_health.tab.self_contained_page import inline_script, page

_BODY = """<main>
<h1>{title}</h1>
<nav>{contents}</nav>
{sections}
</main>
{scripts}"""
_DRAW = """
for (const place of document.querySelectorAll("[data-plot]")) {
  const figure = JSON.parse(document.getElementById(place.dataset.plot).textContent);
  Plotly.newPlot(place, figure.data, figure.layout, { responsive: true, displaylogo: false, displayModeBar: false });
}
"""
_NUMBER = re.compile(r"^[*]*[+-]?[\d,.]+( ± [\d.]+)?( %| s)?( \([^)]*\))?[*]*$|^-$|^p? ?[<=] ?[\d.]+$")


def html_page(document: Document) -> str:
    """The document with its plots; plotly.js, some 5 MB, is inside if there are any."""
    plots = [block for section in document.sections for block in section.blocks if isinstance(block, Plot)]
    names = {id(plot): f"plot-{number}" for number, plot in enumerate(plots)}
    data = [f'<script type="application/json" id="{names[id(plot)]}">{_script_json(plot)}</script>' for plot in plots]
    if plots:
        data += [f"<script>{inline_script(get_plotlyjs())}</script>", f"<script>{_DRAW}</script>"]
    contents = [f'<a href="#s{i}">{_inline(section.title)}</a>' for i, section in enumerate(document.sections)]
    body = _BODY.format(
        title=_inline(document.title),
        contents="\n".join(contents),
        sections="\n".join(_section(section, f"s{i}", names) for i, section in enumerate(document.sections)),
        scripts="\n".join(data),
    )
    style = resources.files("fmnist_pl.search.report").joinpath("report.css").read_text(encoding="utf-8")
    return page(document.title.replace("`", ""), style, body)


def _section(section: Section, anchor: str, names: dict[int, str]) -> str:
    blocks = "\n".join(_block(block, names) for block in section.blocks)
    return f'<section id="{anchor}">\n<h2>{_inline(section.title)}</h2>\n{blocks}\n</section>'


def _block(block: Block, names: dict[int, str]) -> str:
    match block:
        case Text(text):
            return f"<p>{_inline(text)}</p>"
        case Bullets(items):
            return "<ul>\n" + "\n".join(f"<li>{_inline(item)}</li>" for item in items) + "\n</ul>"
        case Table(head, rows):
            return _table(head, rows)
        case Plot(figure, caption):
            height = int(figure.layout.height or 420)
            place = f'<div data-plot="{names[id(block)]}" style="height:{height}px"></div>'
            return f"<figure>\n{place}\n<figcaption>{_inline(caption)}</figcaption>\n</figure>"


def _table(head: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    """Columns of numbers are set flush right."""
    right = [all(_NUMBER.match(row[i]) for row in rows) and bool(rows) for i in range(len(head))]
    align = [' class="number"' if is_right else "" for is_right in right]
    first = "".join(f"<th{align[i]}>{_inline(cell)}</th>" for i, cell in enumerate(head))
    body = "\n".join(
        "<tr>" + "".join(f"<td{align[i]}>{_inline(cell)}</td>" for i, cell in enumerate(row)) + "</tr>" for row in rows
    )
    return f'<div class="table"><table>\n<thead><tr>{first}</tr></thead>\n<tbody>\n{body}\n</tbody>\n</table></div>'


def _inline(text: str) -> str:
    """Escaped; between backticks as code, between double asterisks bold."""
    parts = html.escape(text).split("`")
    pieces = [
        f"<code>{part}</code>" if number % 2 else re.sub(r"\*\*(.+?)\*\*", r"<strong>\1</strong>", part)
        for number, part in enumerate(parts)
    ]
    return "".join(pieces)


def _script_json(plot: Plot) -> str:
    """JSON that may stand in a script element: without a ``<`` that could end it."""
    return json.dumps(json.loads(plot.figure.to_json()), allow_nan=False, separators=(",", ":")).replace("<", "\\u003c")
