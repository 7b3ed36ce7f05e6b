"""Searches whose processes are killed or stopped."""

import os
import signal
import subprocess
import sys
import time
from collections import Counter
from pathlib import Path

import pytest
from optuna.trial import TrialState

from tests.fmnist_pl.search import postgresql_server
from tests.fmnist_pl.search.toy_search import toy, trained, trials_of

PROJECT = Path(__file__).parents[3]
pytestmark = pytest.mark.slow


@pytest.fixture
def start(tmp_path):
    """Start a search as a process of its own; it does not outlive the test."""
    processes = []

    def begin(storage, trials, jobs=1, kind="slow"):
        words = ["-m", "tests.fmnist_pl.search.toy_search", tmp_path, storage, trials, jobs, kind]
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
    """50 trials in three processes, some of which are killed while they train."""
    process = start(storage, 50, jobs=3)
    for _ in range(kills):
        seen = len(trained(folder))
        wait_for(lambda seen=seen: len(trained(folder)) >= seen + 4)
        os.kill(int(trained(folder)[-1][0]), signal.SIGKILL)  # it has just begun
    assert process.wait(240) == 0
    check(trials_of(toy(folder, storage, kind="slow")), kills)


def check(trials, kills, complete=50):
    """As many trials are complete, every lost one was repeated, and no configuration is complete twice."""
    done = [trial for trial in trials if trial.state == TrialState.COMPLETE]
    lost = [trial for trial in trials if trial.state == TrialState.FAIL]
    values = Counter(trial.params["x"] for trial in done)
    assert len(done) >= complete
    assert max(values.values()) == 1
    beyond = {trial.params["x"] for trial in trials if trial.state == TrialState.PRUNED}
    # One that was killed before its training may have no x yet, or one beyond the limits.
    assert {trial.params["x"] for trial in lost if trial.params} <= set(values) | beyond
    assert 0 < len(lost) <= kills
    assert {trial.state for trial in trials} <= {TrialState.COMPLETE, TrialState.FAIL, TrialState.PRUNED}


def test_workers_that_are_killed_lose_no_trial_and_repeat_none(tmp_path, start):
    run_with_kills(tmp_path, f"sqlite:///{tmp_path / 'study.db'}", start, kills=5)


@pytest.mark.postgresql
@pytest.mark.skipif(
    postgresql_server.MISSING, reason="needs psycopg and PostgreSQL (Debian: apt-get install postgresql)"
)
def test_nor_do_they_over_postgresql(tmp_path, start):
    with postgresql_server.server() as (storage, _):
        run_with_kills(tmp_path, storage, start, kills=5)


@pytest.mark.postgresql
@pytest.mark.skipif(
    postgresql_server.MISSING, reason="needs psycopg and PostgreSQL (Debian: apt-get install postgresql)"
)
def test_a_server_that_is_restarted_is_waited_for(tmp_path, start):
    with postgresql_server.server() as (storage, restart):
        process = start(storage, 20, jobs=2)
        for _ in range(3):
            seen = len(trained(tmp_path))
            wait_for(lambda seen=seen: len(trained(tmp_path)) >= seen + 3)
            restart()

        assert process.wait(240) == 0
        values = Counter(
            trial.params["x"] for trial in trials_of(toy(tmp_path, storage, kind="slow")) if trial.value is not None
        )
        assert len(values) >= 20
        assert max(values.values()) == 1


def test_a_search_that_is_killed_takes_its_workers_with_it_and_the_next_repeats_what_they_trained(tmp_path, start):
    storage = f"sqlite:///{tmp_path / 'study.db'}"
    assert start(storage, 2).wait(120) == 0
    (tmp_path / "hold").touch()
    process = start(storage, 6)
    wait_for(lambda: len(trained(tmp_path)) == 3)
    process.kill()
    worker = Path("/proc", trained(tmp_path)[-1][0])
    wait_for(lambda: not worker.exists())
    (tmp_path / "hold").unlink()
    assert start(storage, 6).wait(120) == 0

    trials = trials_of(toy(tmp_path, storage, 6, kind="slow"))
    check(trials, kills=1, complete=6)


def test_what_is_trained_when_a_search_is_stopped_waits_for_the_next(tmp_path, start):
    storage = f"sqlite:///{tmp_path / 'study.db'}"
    (tmp_path / "hold").touch()
    process = start(storage, 6, jobs=2)
    wait_for(lambda: len(trained(tmp_path)) == 2)
    process.send_signal(signal.SIGINT)
    process.wait(60)

    trials = trials_of(toy(tmp_path, storage, 6, kind="slow"))
    lost = [trial.params["x"] for trial in trials if trial.state == TrialState.FAIL]
    waiting = [trial.params["x"] for trial in trials if trial.state == TrialState.WAITING]
    assert sorted(lost) == sorted(waiting)
    assert len(lost) == 2
    assert TrialState.RUNNING not in {trial.state for trial in trials}


def test_a_stop_before_a_trial_is_trained_leaves_it_to_the_next_too(tmp_path, start):
    storage = f"sqlite:///{tmp_path / 'study.db'}"
    start(storage, 1, kind="stopped between").wait(60)

    states = [trial.state for trial in trials_of(toy(tmp_path, storage, 1, kind="stopped between"))]
    assert states == [TrialState.FAIL, TrialState.WAITING]
    assert trained(tmp_path) == []
