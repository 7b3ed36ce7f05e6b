"""What a person at a terminal sees of a training."""

import os
import pty
import re
import subprocess
import sys
import termios
import threading

import pytest

COLOUR = re.compile(r"\x1b\[[0-9;]*m")


def on_a_terminal(*words, cwd, **environment):
    """What `fmnist` prints where standard output and errors are a terminal of 100 columns."""
    ours, theirs = pty.openpty()
    termios.tcsetwinsize(theirs, (40, 100))
    environment = {"TERM": "xterm-256color", "COLUMNS": "100", "OMP_NUM_THREADS": "1", **environment}
    inherited = {name: value for name, value in os.environ.items() if name not in {"NO_COLOR", "FORCE_COLOR"}}
    process = subprocess.Popen(
        [sys.executable, "-m", "fmnist_pl", *words], cwd=cwd, stdin=theirs, stdout=theirs, stderr=theirs,
        env={**inherited, "PYTHONPATH": os.pathsep.join(sys.path), **environment},
    )  # fmt: skip
    os.close(theirs)
    printed = bytearray()

    def read():
        try:
            while piece := os.read(ours, 4096):
                printed.extend(piece)
        except OSError:  # the other end is closed
            pass

    reader = threading.Thread(target=read)
    reader.start()
    try:
        status = process.wait(300)
    finally:
        process.kill()  # does nothing to one that has ended
        process.wait()
        reader.join()
        os.close(ours)
    assert status == 0, printed.decode(errors="replace")
    return printed.decode()


FIT = ("fit", "--data.dataset=synthetic", "--data.training_images=2000", "--trainer.max_epochs=2")


@pytest.mark.slow
def test_a_bar_tells_the_time_left_and_no_color_is_honoured(tmp_path):
    printed = on_a_terminal(*FIT, cwd=tmp_path, NO_COLOR="1")

    assert re.search(r"epoch 2/2 +\d+ % .*/32 batches, \d\d:\d\d left", printed)
    assert re.search(r"epoch 1/2  train/loss .* s  \d:\d\d:\d\d left", printed)
    assert "test accuracy" in printed
    assert not COLOUR.search(printed)


@pytest.mark.slow
def test_quiet_prints_one_line_and_belongs_to_no_run(tmp_path):
    printed = on_a_terminal(*FIT, "--quiet", cwd=tmp_path)

    run = "lightning_logs/baseline-synthetic/version_0"
    *notes, last = printed.splitlines()
    assert re.fullmatch(rf"baseline on SYNTHETIC images, not Fashion-MNIST: test accuracy \d+\.\d\d %, {run}", last)
    assert [note for note in notes if "Compiling" not in note] == []
    assert "quiet: false" in (tmp_path / run / "config.yaml").read_text(encoding="utf-8")
