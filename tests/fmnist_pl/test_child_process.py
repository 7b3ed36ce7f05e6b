"""Ending processes, and saying how they ended."""

import signal
import subprocess
import sys

import pytest

from fmnist_pl.child_process import end, ended_by


def start(code):
    process = subprocess.Popen([sys.executable, "-c", code + "; print(1, flush=True); time.sleep(60)"], stdout=-1)
    process.stdout.readline()
    process.stdout.close()
    return process


def test_a_process_is_asked_to_end():
    process = start("import time")
    end(process, 30)

    assert process.returncode == -signal.SIGTERM


def test_a_process_that_does_not_listen_is_killed():
    process = start("import signal, time; signal.signal(signal.SIGTERM, signal.SIG_IGN)")
    end(process, 0.1)

    assert process.returncode == -signal.SIGKILL


@pytest.mark.parametrize(
    ("status", "words"),
    [(-9, "ended by SIGKILL (out of memory?)"), (-15, "ended by SIGTERM"), (1, None), (0, None), (None, None)],
)
def test_signals_have_names(status, words):
    assert ended_by(status) == words
