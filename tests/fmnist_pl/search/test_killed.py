"""A search that is killed, and goes on."""

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
from optuna.trial import TrialState

from fmnist_pl.search.tally import RETRY_HISTORY, Tally, is_lost
from tests.fmnist_pl.search.toy_search import ToySpace, ledger, search, trained

PROJECT = Path(__file__).parents[3]
TRIALS = 12


def start(folder, storage, jobs=1, trials=TRIALS):
    """A search as a process of its own, with trials that take a moment."""
    words = ["-m", "tests.fmnist_pl.search.toy_search", str(folder), storage, str(trials), str(jobs), "0.2"]
    environment = {**os.environ, "PYTHONPATH": str(PROJECT)}
    return subprocess.Popen([sys.executable, *words], env=environment, cwd=PROJECT)


def kill_in_mid_trial(folder, storage, jobs):
    """Start it, and kill it when it has begun another trial or two."""
    before = len(trained(folder))
    process = start(folder, storage, jobs)
    deadline = time.monotonic() + 60
    while len(trained(folder)) < before + 2:
        assert time.monotonic() < deadline
        assert process.poll() is None
        time.sleep(0.01)
    process.send_signal(signal.SIGKILL)
    process.wait()


def finished(folder, storage):
    """Parameters and value of every trial that counts, in the order of their numbers."""
    book = ledger(folder, storage, ToySpace())
    trials = [trial for trial in book.trials() if not is_lost(trial)]
    book.close()
    assert all(trial.state in (TrialState.COMPLETE, TrialState.PRUNED) for trial in trials)
    return [(trial.params["x"], trial.value, trial.state) for trial in trials]


@pytest.mark.parametrize("kind", ["sqlite", "journal"])
def test_killed_five_times_it_ends_as_if_it_had_never_been(tmp_path, kind):
    (tmp_path / "killed").mkdir()
    (tmp_path / "never").mkdir()
    storages = {name: storage_in(tmp_path / name, kind) for name in ("killed", "never")}

    for _ in range(5):
        kill_in_mid_trial(tmp_path / "killed", storages["killed"], jobs=1)
    search(tmp_path / "killed", storages["killed"], TRIALS)
    search(tmp_path / "never", storages["never"], TRIALS)

    with_kills = finished(tmp_path / "killed", storages["killed"])
    assert with_kills == finished(tmp_path / "never", storages["never"])
    assert len({x for x, *_ in with_kills}) == TRIALS


def storage_in(folder, kind):
    return f"sqlite:///{folder / 'study.db'}" if kind == "sqlite" else str(folder / "study.journal")


def test_two_searches_of_two_jobs_each_share_a_study_and_one_of_them_is_killed(tmp_path):
    storage = storage_in(tmp_path, "sqlite")
    other = start(tmp_path, storage, jobs=2)

    kill_in_mid_trial(tmp_path, storage, jobs=2)
    other.wait(120)
    book = ledger(tmp_path, storage, ToySpace())

    assert other.returncode == 0
    assert book.tally().finished == TRIALS
    assert book.tally() == Tally(book.tally().done, book.tally().pruned, 0, 0, 0)
    lost = [trial for trial in book.trials() if is_lost(trial)]
    retried = [trial.system_attrs[RETRY_HISTORY][-1] for trial in book.trials() if RETRY_HISTORY in trial.system_attrs]
    assert sorted(retried) == [trial.number for trial in lost if trial.user_attrs["lost"] == "killed"]
    book.close()


def test_when_the_search_is_stopped_what_was_running_waits(tmp_path):
    storage = storage_in(tmp_path, "sqlite")
    process = start(tmp_path, storage)
    while not trained(tmp_path):
        time.sleep(0.01)
        assert process.poll() is None
    process.send_signal(signal.SIGINT)
    process.wait(60)

    book = ledger(tmp_path, storage, ToySpace())
    counts = book.tally()
    book.close()
    assert (counts.running, counts.waiting) == (0, 1)
    assert search(tmp_path, storage, 3)[0].tally().finished == 3
