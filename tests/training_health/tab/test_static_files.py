"""What holds for the front end's source as a whole; its behaviour is tested in a browser."""

import re

import pytest

from training_health.tab.static_files import PLOTLY, static_files

SOURCES = {name: path.read_text() for name, path in static_files().items() if name != PLOTLY}


@pytest.mark.parametrize("name", SOURCES)
def test_modules_import_only_what_is_served(name):
    assert set(re.findall(r'from "\./(.*?)"', SOURCES[name])) <= set(SOURCES)


@pytest.mark.parametrize("name", SOURCES)
def test_no_markup_is_made_of_text_and_nothing_is_fetched_from_outside(name):
    banned = r"innerHTML|outerHTML|insertAdjacentHTML|document\.write|eval\(|https?://"
    assert not re.search(banned, SOURCES[name])


def test_plotly_is_found():
    assert static_files()[PLOTLY].stat().st_size > 1_000_000
