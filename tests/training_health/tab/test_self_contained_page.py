"""The frame of reports."""

from training_health.tab.self_contained_page import inline_script, page


def test_a_title_cannot_be_markup():
    assert "<title>a &lt;b&gt; &amp; c</title>" in page("a <b> & c", "", "")


def test_nothing_may_be_fetched():
    content = page("", "", "")

    assert "Content-Security-Policy\" content=\"default-src 'none'; script-src 'unsafe-inline' data:;" in content


def test_a_script_cannot_end_its_element():
    assert inline_script("'</SCRIPT>' + '</p>'") == r"'<\/SCRIPT>' + '</p>'"
