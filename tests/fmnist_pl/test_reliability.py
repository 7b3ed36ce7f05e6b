"""The soak's checks with fewer repetitions: exact resume, kills, several processes."""

import json
import os
import shlex
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from fmnist_pl.checkpoints.checkpoint_file import load_checked
from tests.soak import every_epoch, two_ranks
from tests.soak.command import TINY, TWO_RANKS, differences, fit_elsewhere, start

pytestmark = pytest.mark.slow


@pytest.fixture(autouse=True)
def data_dir(tmp_path_factory, monkeypatch):
    monkeypatch.setenv("DATA_DIR", str(tmp_path_factory.getbasetemp() / "data"))


@pytest.mark.parametrize("case", every_epoch.CASES)
def test_a_run_resumed_after_an_epoch_ends_like_one_that_was_not_interrupted(case, tmp_path):
    variant, *options = every_epoch.CASES[case]

    assert every_epoch.check(tmp_path, variant, *options, epochs=range(2, 4)) == []


def test_two_processes_resume_exactly(tmp_path):
    variant, *options = every_epoch.TWO_RANKS_CASES["batch_norm, three batches per step, two ranks"]

    assert every_epoch.check(tmp_path, variant, *options, epochs=range(2, 3), run=fit_elsewhere) == []


def test_two_processes_train_like_one_on_an_odd_number_of_images(tmp_path):
    weights, metrics = two_ranks.check(tmp_path)

    assert weights < 1e-5
    assert metrics < 1e-5


@pytest.mark.skipif(not hasattr(os, "fork"), reason="needs fork")
def test_a_run_that_is_killed_again_and_again_ends_like_one_that_was_not():
    # In a process of its own: it forks, and a test runner full of threads is not the right process for that.
    code = "import json; from tests.soak import sigkill; print(json.dumps(sigkill.check(kills=4, seed=2)))"
    ended = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=300)

    assert ended.returncode == 0, ended.stderr
    _, wrong = json.loads(ended.stdout.splitlines()[-1])
    assert wrong == []


@pytest.mark.skipif(sys.platform != "linux", reason="asks /proc what is synced")
@pytest.mark.parametrize(("module", "call"), [("power_cuts", "check(3, 0)"), ("hostile_checkpoints", "check(5, 0)")])
def test_a_power_cut_or_a_hostile_checkpoint_spoils_no_run(module, call):
    code = f"import json; from tests.soak import {module}; print(json.dumps({module}.{call}))"
    ended = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=600)

    assert ended.returncode == 0, ended.stderr
    assert json.loads(ended.stdout.splitlines()[-1]) == []


def test_the_command_ends_at_once_with_a_status_of_its_own_when_it_is_told_to_stop(tmp_path):
    process = start(tmp_path, "--monitors=off", "--trainer.max_epochs=1000", *TWO_RANKS)
    run = tmp_path / "baseline-synthetic" / "version_0"
    until = time.monotonic() + 120
    while not (run / "checkpoints" / "last.ckpt").exists():
        assert process.poll() is None, process.communicate()[0]
        assert time.monotonic() < until
        time.sleep(0.05)
    process.send_signal(signal.SIGTERM)
    said = process.communicate(timeout=120)[0]

    assert process.returncode == 143
    assert f"Resume: fmnist fit --resume {run}" in said
    assert "Traceback" not in said
    assert load_checked(run / "checkpoints" / "last.ckpt")["global_step"] > 0


def test_a_rank_ends_with_the_command_that_started_it(tmp_path):
    process = start(tmp_path, "--monitors=off", "--trainer.max_epochs=1000", *TWO_RANKS)
    children = Path(f"/proc/{process.pid}/task/{process.pid}/children")
    until = time.monotonic() + 120
    while not (ranks := children.read_text().split()):  # git, or the second rank while it starts
        assert time.monotonic() < until
        time.sleep(0.02)
    time.sleep(0.5)
    process.kill()
    process.communicate(timeout=120)  # until the last of them has closed the output
    until = time.monotonic() + 60
    while any(Path("/proc", rank).exists() for rank in ranks):  # it closes its files just before it is gone
        assert time.monotonic() < until
        time.sleep(0.02)


@pytest.mark.parametrize("blocks", [8, 60])  # full in an event file, in a checkpoint
def test_a_disk_that_is_full_is_one_message(tmp_path, blocks):
    command = shlex.join([sys.executable, "-m", "fmnist_pl", "fit", *TINY, f"--data.root={tmp_path / 'data'}"])
    words = ["bash", "-c", f"ulimit -f {blocks}; exec {command}"]
    environment = {**os.environ, "PYTHONPATH": f"{Path.cwd()}:{Path.cwd() / 'callbacks'}", "OMP_NUM_THREADS": "1"}
    ended = subprocess.run(words, cwd=tmp_path, env=environment, capture_output=True, text=True)

    assert ended.returncode == 1, ended.stderr
    assert "File too large" in ended.stderr
    assert "Traceback" not in ended.stderr


def test_one_ranks_failure_ends_all_with_its_message(tmp_path):
    failing = "--trainer.callbacks+={class_path: tests.soak.command.FailsOnOneRank, init_args: {rank: 1}}"
    process = start(tmp_path, "--monitors=off", *TWO_RANKS, failing)
    said = process.communicate(timeout=120)[0]

    assert process.returncode not in (0, None)
    assert "error: rank 1 has failed." in said


def test_the_comparison_of_two_runs_finds_what_differs():
    assert differences({"a": [1.0, float("nan")]}, {"a": [1.0, float("nan")]}) == []
    assert differences({"a": [1.0, 2.0]}, {"a": [1.0, 2.0000000001]}) == ["/a/1: 2.0 and 2.0000000001"]
    assert differences({"a": 1}, {"b": 1, "a": 1}) == ["/b is in one only"]
