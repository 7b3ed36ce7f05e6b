"""Studies that exist already."""

import dataclasses

import optuna
import pytest

from fmnist_pl.search.storage import StudyStorage
from fmnist_pl.search.study import open_study
from tests.fmnist_pl.search.toy_search import ToySpace, settings
from training_health.errors import UserError


@pytest.fixture
def storage(tmp_path):
    return StudyStorage(f"sqlite:///{tmp_path / 'study.db'}")


def test_a_study_says_what_its_trials_have_in_common(storage):
    study = open_study(storage, "toy", settings(ToySpace("good")))

    assert study.user_attrs == {
        "space": {"space": {"x": [0, 1], "kind": ["good"]}},
        "space_hash": "d",
        "data": "synthetic",
        "epochs": 2,
        "seed": 0,
        "subset": None,
        "options": [],
        "code": "c",
    }


def test_the_same_settings_open_the_same_study(storage):
    first = open_study(storage, "toy", settings(ToySpace()))

    assert open_study(storage, "toy", settings(ToySpace()))._study_id == first._study_id


@pytest.mark.parametrize(("completed", "accuracy", "pruned"), [(10, 0.3, True), (10, 0.4, False), (9, 0.1, False)])
def test_what_is_below_three_quarters_of_ten_completed_trials_is_hopeless(storage, completed, accuracy, pruned):
    study = open_study(storage, "toy", settings(ToySpace()))
    for place in range(completed):  # 0.1 to 1.0; a quarter of ten lies below 0.325
        values = {0: 0.0, 1: (place + 1) / 10}
        study.add_trial(optuna.trial.create_trial(value=values[1], intermediate_values=values))
    trial = study.ask()

    trial.report(0.0, 0)
    after_first = trial.should_prune()
    trial.report(accuracy, 1)

    assert not after_first
    assert bool(trial.should_prune()) == pruned


def test_another_version_of_the_code_may_go_on(storage):
    open_study(storage, "toy", settings(ToySpace()))

    open_study(storage, "toy", dataclasses.replace(settings(ToySpace()), code="newer"))


def test_another_space_is_refused_with_what_differs(storage):
    open_study(storage, "toy", settings(ToySpace()))
    other = ToySpace()
    other.digest, other.content = "e", {"space": {"x": [0, 2], "kind": [], "y": [1]}}

    with pytest.raises(UserError, match=r"The study 'toy' exists with another space: x, y differ\. Choose") as raised:
        open_study(storage, "toy", settings(other))

    assert raised.value.exit_code == 2


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"epochs": 5}, "another number of epochs: 2, not 5"),
        ({"data": "fashion_mnist"}, "another data set: synthetic, not fashion_mnist"),
        ({"seed": 1}, "another seed: 0, not 1"),
        ({"subset": 1000}, "another number of training images: all, not 1000"),
        ({"options": ("--monitors=off",)}, "another choice of fit's options: none, not --monitors=off"),
    ],
)
def test_trials_that_could_not_be_compared_are_refused(storage, change, message):
    open_study(storage, "toy", settings(ToySpace()))

    with pytest.raises(UserError, match=message):
        open_study(storage, "toy", dataclasses.replace(settings(ToySpace()), **change))


def test_a_study_of_another_program_is_refused(storage):
    other = optuna.create_study(storage=storage.backend, study_name="toy")
    other.add_trial(optuna.create_trial(value=1.0))

    with pytest.raises(UserError, match="was not made by `fmnist search`"):
        open_study(storage, "toy", settings(ToySpace()))
