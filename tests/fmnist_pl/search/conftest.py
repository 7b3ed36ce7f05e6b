"""Ctrl-C reaches the searches that tests start."""

import signal

import pytest


@pytest.fixture(autouse=True, scope="session")
def interrupts_reach_children():
    """Shells start what runs in the background with SIGINT ignored, and children inherit that."""
    if signal.getsignal(signal.SIGINT) == signal.SIG_IGN:
        signal.signal(signal.SIGINT, signal.default_int_handler)
