"""What holds for the front end's source as a whole; its behaviour is tested in a browser."""

import re

import pytest

from training_health.tab.static_files import MODULES, PLOTLY, STYLE, static_files

STATIC = {name: file.path for name, file in static_files().items() if name != PLOTLY}


def test_the_table_and_the_folder_agree():
    folder = STATIC[STYLE].parent
    assert sorted(path.name for path in folder.iterdir()) == sorted(STATIC)


@pytest.mark.parametrize("name", MODULES)
def test_modules_import_only_what_is_served(name):
    imported = re.findall(r'from "(.*?)"', STATIC[name].read_text())
    assert set(imported) <= {f"./{module}" for module in MODULES}


@pytest.mark.parametrize("name", sorted(STATIC))
def test_no_markup_is_made_of_text_and_nothing_is_fetched_from_outside(name):
    source = STATIC[name].read_text()
    assert not re.search(r"innerHTML|outerHTML|insertAdjacentHTML|document\.write|eval\(|https?://", source)


def test_plotly_is_found_without_importing_it():
    assert static_files()[PLOTLY].path.stat().st_size > 1_000_000
