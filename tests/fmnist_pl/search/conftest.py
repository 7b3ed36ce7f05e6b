"""Connections are closed after each test, since warnings are errors; Ctrl-C reaches the searches that tests start."""

import signal

import pytest

from fmnist_pl.search.storage import StudyStorage


@pytest.fixture(autouse=True, scope="session")
def interrupts_reach_children():
    """Shells start what runs in the background with SIGINT ignored, and children inherit that."""
    if signal.getsignal(signal.SIGINT) == signal.SIG_IGN:
        signal.signal(signal.SIGINT, signal.default_int_handler)


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
