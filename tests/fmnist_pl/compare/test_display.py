"""Progress lines."""

import io

from fmnist_pl.compare.display import Display


class Terminal(io.StringIO):
    def isatty(self):
        return True


def test_a_terminal_shows_the_status_in_place():
    stream = Terminal()
    display = Display(stream)
    display.status("epoch 1")
    display.status("epoch 2")
    display.line("done")

    assert stream.getvalue() == "epoch 1\r\x1b[Kepoch 2\r\x1b[Kdone\n"


def test_elsewhere_the_status_appears_once_a_minute(monkeypatch):
    now = [0.0]
    monkeypatch.setattr("time.monotonic", lambda: now[0])
    stream = io.StringIO()
    display = Display(stream)
    for now[0] in (1.0, 59.0, 61.0, 90.0, 125.0):
        display.status(f"at {now[0]:.0f} s")

    assert stream.getvalue() == "at 61 s\nat 125 s\n"
