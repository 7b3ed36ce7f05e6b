"""Searches in processes of their own, with trainings that only pretend."""

import pytest
from optuna.trial import TrialState, create_trial

from fmnist_pl.search.study import counts, origin
from fmnist_pl.search.worker import run_workers
from tests.fmnist_pl.search.toy_search import OBJECTIVE, X, search, toy, trained, trials_of
from training_health.errors import UserError


def test_as_many_trials_are_finished_as_were_asked_for_without_those_beyond_the_limits(tmp_path, capfd):
    first = search(tmp_path, trials=3)
    second = search(tmp_path, trials=8)
    third = search(tmp_path, trials=8)

    assert (sum(map(counts, first)), sum(map(counts, second))) == (3, 8)
    assert [trial.number for trial in third] == [trial.number for trial in second]
    assert len(trained(tmp_path)) == len({x for _, x in trained(tmp_path)}) == 8
    beyond = [trial for trial in second if trial.params["x"] > 2 / 3]
    assert {(trial.state, counts(trial)) for trial in beyond} == {(TrialState.PRUNED, False)}
    assert "3 of 3 trials; best " in capfd.readouterr().err


@pytest.mark.slow
def test_jobs_share_the_trials(tmp_path):
    trials = search(tmp_path, trials=12, jobs=3, kind="together")

    assert 12 <= sum(map(counts, trials)) <= 14
    assert len({process for process, _ in trained(tmp_path)}) > 1


@pytest.mark.slow
def test_trials_that_fall_behind_are_pruned(tmp_path, capfd):
    trials = search(tmp_path, trials=25, epochs=3)

    assert any(trial.state == TrialState.PRUNED and counts(trial) for trial in trials)
    assert "pruned after epoch 2 at " in capfd.readouterr().err


def test_a_diverged_trial_counts_as_failed_and_its_worker_resumes(tmp_path, capfd):
    trials = search(tmp_path, trials=3, kind="nan")

    assert [trial.state for trial in trials if counts(trial)] == [TrialState.FAIL] * 3
    assert len({process for process, _ in trained(tmp_path)}) == 1
    assert "failed: val/loss was nan. 1 of 3 trials" in capfd.readouterr().err


@pytest.mark.slow
@pytest.mark.parametrize(("kind", "reason"), [("raises", "ValueError: no number"), ("dies", "ended by SIGKILL")])
def test_workers_that_end_are_replaced_but_not_for_ever(tmp_path, kind, reason):
    with pytest.raises(UserError, match=f"3 workers ended one after the other, the last one: {reason}"):
        search(tmp_path, trials=9, kind=kind)

    assert len({process for process, _ in trained(tmp_path)}) == 3


def test_what_would_end_every_trial_ends_the_search_and_the_trial_waits(tmp_path):
    with pytest.raises(UserError, match="Trial 0 cannot be trained: There are no data"):
        search(tmp_path, trials=9, kind="no data")

    lost, waiting = trials_of(toy(tmp_path, kind="no data"))
    assert (lost.state, waiting.state) == (TrialState.FAIL, TrialState.WAITING)
    assert lost.params == waiting.params
    assert (counts(lost), origin(waiting)) == (False, lost.number)


@pytest.mark.slow
def test_a_trial_that_was_killed_before_its_first_sign_of_life_is_tried_again(tmp_path):
    wanted = toy(tmp_path, trials=1)
    with wanted.open() as (study, _):
        study.add_trial(create_trial(state=TrialState.RUNNING, params={"x": 0.25}, distributions={"x": X}))

    run_workers(wanted, OBJECTIVE)

    assert [(trial.state, trial.params["x"]) for trial in trials_of(wanted)] == [
        (TrialState.FAIL, 0.25),
        (TrialState.COMPLETE, 0.25),
    ]


@pytest.mark.parametrize("epochs", [0, 1])
def test_a_trial_that_another_process_took_for_lost_while_it_was_trained_does_not_end_its_worker(
    tmp_path, capfd, epochs
):
    trials = search(tmp_path, trials=2, kind="taken for lost", epochs=epochs)

    assert [trial.state for trial in trials if trial.params["x"] <= 2 / 3] == [
        TrialState.FAIL,
        TrialState.COMPLETE,
        TrialState.COMPLETE,
    ]
    assert len({process for process, _ in trained(tmp_path)}) == 1
    said = capfd.readouterr().err
    assert "trial 0: taken for lost" in said
    assert "takes over" not in said
