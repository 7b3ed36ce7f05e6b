"""A report's Markdown and HTML say the same, and nothing that was named breaks out."""

import json
import re

import plotly.graph_objects as go
import pytest

from fmnist_pl.search.report.document import Bullets, Document, Plot, Section, Table, Text, code
from fmnist_pl.search.report.document_html import html_page
from fmnist_pl.search.report.document_markdown import markdown

HOSTILE = "<img src=x onerror=alert(1)> & `</script>`"


def document(*blocks, title="Report"):
    return Document(title, [Section("Part", blocks)])


@pytest.mark.parametrize(
    ("value", "text"),
    [
        ("relu", "`relu`"),
        (0.5, "`0.5`"),
        ("a\nb\t\u2028c", "`a b c`"),
        ("`x`", "`'x'`"),
        ("", "` `"),
        ("\u202etxt", "`txt`"),
        ("a" * 300, f"`{'a' * 199}…`"),
    ],
)
def test_code_is_one_line_without_backticks(value, text):
    assert code(value) == text


def test_markdown_has_headings_text_bullets_and_tables():
    text = markdown(document(Text("Said."), Bullets(["one", "two"]), Table(["a", "b"], [["1", "x|y"]])))

    assert text == ("# Report\n\n## Part\n\nSaid.\n\n- one\n- two\n\n| a | b |\n| --- | --- |\n| 1 | x\\|y |\n")


def test_markdown_names_plots_by_their_captions():
    assert "*Plot in report.html: Points.*" in markdown(document(Plot(go.Figure(), "Points.")))


def test_html_has_the_same():
    page = html_page(document(Text("Said `code` **loud**."), Bullets(["one"]), Table(["a", "n"], [["x", "1.5 ± 0.1"]])))

    assert "<p>Said <code>code</code> <strong>loud</strong>.</p>" in page
    assert "<li>one</li>" in page
    assert '<tr><td>x</td><td class="number">1.5 ± 0.1</td></tr>' in page


def test_html_without_plots_is_small():
    page = html_page(document(Text("Said.")))

    assert len(page) < 10_000
    assert "<script" not in page


def test_html_with_plots_brings_plotly_once():
    figure = go.Figure(go.Scatter(x=[1], y=[2]))

    page = html_page(document(Plot(figure, "One."), Plot(figure, "Two.")))

    assert page.count("Plotly.newPlot(place") == 1
    assert page.count('data-plot="plot-0"') == page.count('data-plot="plot-1"') == 1
    assert 4_000_000 < len(page) < 7_000_000


def test_what_was_named_stays_text():
    page = html_page(document(Text(code(HOSTILE)), Table([code(HOSTILE)], [[code(HOSTILE)]]), title=code(HOSTILE)))

    assert "<img" not in page
    assert "<script" not in page
    assert "&lt;img src=x onerror=alert(1)&gt; &amp; &#x27;&lt;/script&gt;&#x27;" in page


def test_a_plot_s_data_cannot_end_its_element():
    page = html_page(document(Plot(go.Figure(go.Scatter(x=[1], y=[1], name=HOSTILE)), "Points.")))

    (data,) = re.findall(r'<script type="application/json" id="plot-0">(.*?)</script>', page)
    assert json.loads(data)["data"][0]["name"] == HOSTILE


@pytest.mark.parametrize(
    "cell", ["1", "1,234", "91.20 %", "-", "+0.42 ± 0.24", "**+0.42 ± 0.24**", "< 0.001", "57 (45)"]
)
def test_columns_of_numbers_are_flush_right(cell):
    assert f'<td class="number">{cell.replace("<", "&lt;").replace("**", "")}' in html_page(
        document(Table(["n"], [[cell]]))
    ).replace("<strong>", "")


@pytest.mark.parametrize("cell", ["`4`", "relu", "1 of 2", ""])
def test_columns_of_words_are_not(cell):
    assert 'class="number"' not in html_page(document(Table(["n"], [["1"], [cell]])))
