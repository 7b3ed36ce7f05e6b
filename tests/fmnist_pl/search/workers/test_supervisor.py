"""Searching, with workers that only pretend to train."""

import sqlite3
import time

import pytest
from optuna.trial import TrialState

from fmnist_pl.search.tally import Tally
from tests.fmnist_pl.search.toy_search import search, trained
from training_health.errors import UserError


@pytest.fixture
def storage(tmp_path):
    return f"sqlite:///{tmp_path / 'study.db'}"


def test_as_many_trials_are_finished_as_were_asked_for(tmp_path, storage):
    book, shown = search(tmp_path, storage, 6)

    counts = book.tally()
    assert (counts.finished, counts.running, counts.waiting) == (6, 0, 0)
    assert len(trained(tmp_path)) == 6
    assert "6 of 6 trials: " in shown


def test_what_may_not_be_trained_costs_no_trial(tmp_path, storage):
    book, _ = search(tmp_path, storage, 6)

    assert [trial.number for trial in book.trials()] == [0, 1, 2, 3, 4, 5]
    assert all(trial.params["x"] <= 0.5 for trial in book.trials())


def test_a_trial_holds_its_value_its_figures_and_its_configuration(tmp_path, storage):
    book, _ = search(tmp_path, storage, 1)

    (trial,) = book.trials()
    x = trial.params["x"]
    assert trial.state == TrialState.COMPLETE
    assert trial.value == pytest.approx(1 - (x - 0.3) ** 2)
    assert trial.intermediate_values == {0: trial.value, 1: trial.value}
    attributes = {key: value for key, value in trial.user_attrs.items() if key not in {"owner", "beat"}}
    assert attributes == {
        "overlay": {"x": x, "kind": "good"},
        "parameters": int(1000 * x),
        "run": "none",
        "seconds": 1.0,
        "dead_share": 0.25,
        "validation_loss": 1 - x,
    }


def test_a_second_search_goes_on_to_the_new_target(tmp_path, storage):
    search(tmp_path, storage, 3)
    book, _ = search(tmp_path, storage, 5)

    assert book.tally().finished == 5
    assert len(set(trained(tmp_path))) == 5


def test_a_finished_search_trains_nothing(tmp_path, storage):
    search(tmp_path, storage, 3)
    search(tmp_path, storage, 3)

    assert len(trained(tmp_path)) == 3


def test_jobs_share_the_trials(tmp_path, storage):
    book, _ = search(tmp_path, storage, 7, jobs=3)

    assert book.tally().finished == len(trained(tmp_path)) == 7


def test_hopeless_trials_are_pruned(tmp_path, storage):
    book, shown = search(tmp_path, storage, 25, epochs=3)

    assert book.tally().pruned > 0
    assert "pruned after epoch 2 of 3 at " in shown


def test_a_diverged_trial_is_a_failure_with_its_reason_and_the_search_goes_on(tmp_path, storage):
    book, shown = search(tmp_path, storage, 4, "nan")

    assert book.tally() == Tally(done=0, pruned=0, failed=4, running=0, waiting=0)
    assert book.trials()[0].user_attrs["failure"] == "val/loss was nan after epoch 1"
    assert "trial 0: FAILED: val/loss was nan after epoch 1. 1 of 4 trials: " in shown


def test_a_worker_that_raises_is_replaced_and_three_in_a_row_end_the_search(tmp_path, storage):
    with pytest.raises(UserError, match="The last 3 trials failed, so the search stops"):
        search(tmp_path, storage, 9, "raises")

    assert len(trained(tmp_path)) == 3


def test_what_the_user_can_mend_ends_the_search_at_once_and_the_trial_waits(tmp_path, storage):
    with pytest.raises(UserError, match="nor could any other be: There is no data"):
        search(tmp_path, storage, 9, "mendable")

    connection = sqlite3.connect(tmp_path / "study.db")
    assert connection.execute("SELECT state FROM trials ORDER BY number").fetchall() == [("FAIL",), ("WAITING",)]
    connection.close()


def test_a_worker_that_is_killed_loses_its_trial_which_is_tried_again_three_times_at_most(tmp_path, storage):
    book, shown = search(tmp_path, storage, 1, "dies")

    first, second, third = book.trials()
    assert first.params == second.params == third.params
    assert third.system_attrs["retry_history"] == [0, 1]
    assert book.tally() == Tally(done=0, pruned=0, failed=1, running=0, waiting=0)
    assert "its process ended 3 times" in third.user_attrs["failure"]
    assert "trial 0: its process ended by SIGKILL (out of memory?); it is tried again" in shown


def test_a_configuration_that_cannot_be_written_ends_the_search_and_the_trial_waits(tmp_path, storage):
    (tmp_path / "configurations").touch()

    with pytest.raises(UserError, match=r"trial_0000\.yaml cannot be written: .*\. Make room and repeat the command"):
        search(tmp_path, storage, 2)

    (tmp_path / "configurations").unlink()
    book, _ = search(tmp_path, storage, 2)
    assert (book.tally().finished, len(book.trials())) == (2, 3)


def test_the_same_seed_suggests_the_same(tmp_path):
    for name in ("a", "b"):
        (tmp_path / name).mkdir()
        search(tmp_path / name, f"sqlite:///{tmp_path / name / 'study.db'}", 14)

    assert trained(tmp_path / "a") == trained(tmp_path / "b")


def test_progress_names_the_best_and_the_time_left(tmp_path, storage):
    started = time.monotonic()
    _, shown = search(tmp_path, storage, 2, seconds=1.0)

    assert time.monotonic() - started < 30
    assert "parameters. 1 of 2 trials: 1 done, 0 pruned, 0 failed; best " in shown
    assert "; about 1 s left\n" in shown or "; about 2 s left\n" in shown
