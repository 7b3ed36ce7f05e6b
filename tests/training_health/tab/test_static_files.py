"""What holds for the front end's source as a whole; its behaviour is tested in a browser."""

import hashlib
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


def test_plotly_is_the_file_that_its_bundle_script_writes():
    content = static_files()[PLOTLY].read_bytes()
    assert hashlib.sha256(content).hexdigest() == "dad01381aeae5b3f99ab4139eefb823190cdb51d521e4d889595d97d27eb1d79"
    assert len(content) < 1_200_000  # its start is what a reader waits for


def test_the_page_asks_for_the_plotly_that_is_served():
    assert re.findall(r"plotly-.*?\.js", SOURCES["chart.js"]) == [PLOTLY]
