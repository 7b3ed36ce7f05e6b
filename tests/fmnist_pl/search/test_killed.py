"""Searches whose processes are killed or stopped."""

import os
import random
import signal
import subprocess
import sys
import time
from collections import Counter
from pathlib import Path

import pytest
from optuna.trial import TrialState

from fmnist_pl.search.study import counts, retry
from tests.fmnist_pl.search import postgresql_server
from tests.fmnist_pl.search.toy_search import search, toy, trained, trials_of

PROJECT = Path(__file__).parents[3]
pytestmark = pytest.mark.slow


@pytest.fixture
def start(tmp_path):
    """Start a search as a process of its own; it does not outlive the test."""
    processes = []

    def begin(storage, trials, jobs=1):
        words = ["-m", "tests.fmnist_pl.search.toy_search", tmp_path, storage, trials, jobs, "slow"]
        environment = {**os.environ, "PYTHONPATH": f"{PROJECT}{os.pathsep}{PROJECT / 'callbacks'}"}
        processes.append(subprocess.Popen([sys.executable, *map(str, words)], env=environment))
        return processes[-1]

    yield begin
    for process in processes:
        process.kill()
        process.wait()


def wait_for(condition, seconds=120):
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(0.01)


def run_with_kills(folder, storage, start, kills):
    """50 trials in three processes, some of which are killed while they train; the trials."""
    process, rng = start(storage, 50, jobs=3), random.Random(0)
    for number in range(kills):
        seen = len(trained(folder))
        wait_for(lambda seen=seen: len(trained(folder)) >= seen + 5)
        alive = [pid for pid, _ in trained(folder)[-3:] if Path(f"/proc/{pid}").exists()]
        os.kill(int(rng.choice(alive)), signal.SIGKILL)
    assert process.wait(120) == 0
    return trials_of(toy(folder, storage, 50, kind="slow", jobs=3))


def check(trials, kills):
    """Fifty trials are complete, every lost one was repeated, and no configuration is complete twice."""
    complete = [trial for trial in trials if trial.state == TrialState.COMPLETE]
    lost = [trial for trial in trials if trial.state == TrialState.FAIL]
    values = Counter(trial.params["x"] for trial in complete)
    assert len(complete) >= 50
    assert max(values.values()) == 1
    assert {trial.params["x"] for trial in lost} <= set(values)
    assert len(lost) <= kills
    assert {trial.state for trial in trials} <= {TrialState.COMPLETE, TrialState.FAIL, TrialState.PRUNED}
    print(f"{len(complete)} complete, {len(lost)} lost, {len(trials)} in all")


def test_workers_that_are_killed_lose_no_trial_and_repeat_none(tmp_path, start):
    check(run_with_kills(tmp_path, f"sqlite:///{tmp_path / 'study.db'}", start, kills=5), kills=5)


@pytest.mark.postgresql
@pytest.mark.skipif(postgresql_server.missing() is not None, reason=str(postgresql_server.missing()))
def test_nor_do_they_over_postgresql(tmp_path, start):
    with postgresql_server.server() as storage:
        check(run_with_kills(tmp_path, storage, start, kills=5), kills=5)
