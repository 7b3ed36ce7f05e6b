"""Connections are closed after each test, since warnings are errors."""

import pytest

from fmnist_pl.search.storage import StudyStorage


@pytest.fixture(autouse=True)
def connections_are_closed(monkeypatch):
    opened = []
    original = StudyStorage.__init__

    def remembered(self, where):
        original(self, where)
        opened.append(self)

    monkeypatch.setattr(StudyStorage, "__init__", remembered)
    yield
    for storage in opened:
        storage.close()
