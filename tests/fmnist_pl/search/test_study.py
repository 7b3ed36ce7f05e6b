"""Studies that exist already; which trials count; what is tried next."""

import dataclasses

import optuna
import pytest
from optuna.trial import TrialState, create_trial

from fmnist_pl.search.study import RANDOM_TRIALS, SeededSampler, best_of, counts, origin, retry
from tests.fmnist_pl.search.toy_search import X, toy
from training_health.errors import UserError


def test_another_version_of_the_code_may_resume(tmp_path):
    search = toy(tmp_path)
    with search.open():
        pass
    newer = dataclasses.replace(search, settings=dataclasses.replace(search.settings, code={"torch": "3"}))

    with newer.open() as (study, _):
        assert study.user_attrs["code"] == {}


@pytest.mark.parametrize(
    ("change", "lines"),
    [
        ({"epochs": 5}, ["- epochs: 1", "+ epochs: 5"]),
        ({"options": ["--monitors=off"]}, ["+ - --monitors=off"]),
        ({"space": {"space": {"kind": "nan"}}}, ["-     kind: good", "+     kind: nan"]),
    ],
)
def test_trials_that_could_not_be_compared_are_refused(tmp_path, change, lines):
    search = toy(tmp_path)
    with search.open():
        pass
    other = dataclasses.replace(search, settings=dataclasses.replace(search.settings, **change))

    with pytest.raises(UserError, match="Choose another --study") as raised, other.open():
        pass

    assert set(lines) <= set(str(raised.value).splitlines())
    assert raised.value.exit_code == 2


@pytest.mark.parametrize(
    ("trial", "counted"),
    [
        (create_trial(value=0.5), True),
        (create_trial(state=TrialState.PRUNED), True),
        (create_trial(state=TrialState.PRUNED, system_attrs={"constraints:parameters": 0.5}), False),
        (create_trial(state=TrialState.PRUNED, system_attrs={"constraints:parameters": -0.5}), True),
        (create_trial(state=TrialState.FAIL, user_attrs={"failure": "val/loss was nan"}), True),
        (create_trial(state=TrialState.FAIL), False),
        (create_trial(state=TrialState.RUNNING), False),
    ],
)
def test_a_trial_counts_that_has_a_result(trial, counted):
    assert counts(trial) == counted


def test_of_equals_the_earliest_is_the_best_and_a_pruned_one_never_is():
    study = made_study()
    study.add_trial(create_trial(state=TrialState.PRUNED, intermediate_values={0: 0.99}))
    for value in (0.8, 0.9, 0.9):
        study.add_trial(create_trial(value=value))

    assert best_of(study.trials).number == 2
    assert best_of(study.trials[:1]) is None


def made_study(seed=0):
    return optuna.create_study(direction="maximize", sampler=SeededSampler(seed))


def test_a_lost_trial_is_queued_once_and_not_for_ever():
    study = made_study()
    study.add_trial(create_trial(state=TrialState.FAIL, params={"x": 0.5}, distributions={"x": X}))
    for _ in range(10):
        lost = study.trials[-1]
        retry(study, lost)
        retry(study, lost)

    assert [origin(trial) for trial in study.trials] == [0] * 6
    assert {trial.params["x"] for trial in study.trials} == {0.5}


def drawn(count, seed=0, study=None):
    study = study or made_study(seed)
    for _ in range(count):
        trial = study.ask()
        x = trial.suggest_float("x", 0.0, 1.0)
        study.tell(trial, x)
    return [trial.params["x"] for trial in study.trials]


def test_what_is_tried_depends_on_the_seed_and_the_trials_before():
    n = RANDOM_TRIALS + 5
    study = made_study()
    drawn(n - 2, study=study)
    study.sampler = SeededSampler(0)  # as a search that is resumed has it

    assert drawn(n) == drawn(2, study=study)
    assert drawn(3) != drawn(3, seed=1)
    assert len(set(drawn(n))) == n


def test_trials_beyond_the_limits_are_none_of_the_random_ones():
    study = made_study()
    for _ in range(RANDOM_TRIALS):
        trial = study.ask()
        trial.suggest_float("x", 0.0, 1.0)
        trial.set_constraint("x", 1.0)
        study.tell(trial, state=TrialState.PRUNED)
    values = drawn(10, study=study)[-10:]

    assert max(values) - min(values) > 0.5
