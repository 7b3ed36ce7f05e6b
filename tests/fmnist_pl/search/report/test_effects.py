"""Accuracy by value."""

import pytest
from optuna.distributions import CategoricalDistribution

from fmnist_pl.search.report.effects import effects, largest_difference, shown
from fmnist_pl.search.report.trial_records import trial_records
from tests.fmnist_pl.search.made_studies import failed, pruned, study, trial


def rows(choice, *trials, contributions=None, mean=0.0):
    return effects(trial_records(study(*trials)), choice, contributions or {}, mean)


def test_a_category_has_its_mean_its_best_and_its_count():
    adam, sgd = rows(
        "optimizer",
        *(trial(value, {"optimizer": "adam"}) for value in (0.8, 0.9)),
        trial(0.7, {"optimizer": "sgd"}),
        pruned([0.1], {"optimizer": "sgd"}),
        failed("NaN", {"optimizer": "sgd"}),
    )

    assert (adam.value, adam.accuracy.n, adam.best, adam.pruned, adam.failed) == ("adam", 2, 0.9, 0, 0)
    assert adam.accuracy.mean == pytest.approx(0.85)
    assert (sgd.value, sgd.accuracy.n, sgd.accuracy.sd, sgd.pruned, sgd.failed) == ("sgd", 1, None, 1, 1)


def test_a_value_that_was_never_completed_has_no_mean():
    (row,) = rows("optimizer", pruned([0.1], {"optimizer": "sgd"}))

    assert (row.accuracy, row.best, row.pruned) == (None, None, 1)


def test_few_numbers_are_listed_in_their_order():
    assert [row.value for row in rows("conv_layers", *(trial(0.9, {"conv_layers": n}) for n in (3, 1, 2)))] == [
        "1",
        "2",
        "3",
    ]


def test_many_numbers_are_put_into_thirds():
    trials = [trial(0.9, {"learning_rate": 0.001 * n}) for n in range(1, 10)]

    assert [(row.value, row.accuracy.n) for row in rows("learning_rate", *trials)] == [
        ("0.001 to 0.003", 3),
        ("0.004 to 0.006", 3),
        ("0.007 to 0.009", 3),
    ]


def test_trials_without_a_conditional_choice_come_last():
    trials = [trial(0.9, {"optimizer": "sgd", "momentum": 0.5}), trial(0.8, {"optimizer": "adam"})]

    assert [(row.value, row.accuracy.n) for row in rows("momentum", *trials)] == [("0.5", 1), ("not used", 1)]


def test_true_and_none_are_categories():
    space = {"x": CategoricalDistribution([True, False, None, 3])}
    trials = [trial(0.9, {"x": value}, space=space) for value in (True, False, None, 3)]

    assert [row.value for row in rows("x", *trials)] == ["3", "False", "None", "True"]


def test_contributions_move_the_mean_of_all():
    trials = [trial(0.8, {"optimizer": "adam"})] * 3 + [trial(0.9, {"optimizer": "sgd"})] * 3
    contributions = {0: 0.01, 1: 0.01, 2: 0.01, 3: -0.01, 4: -0.01, 5: -0.01}

    adam, sgd = rows("optimizer", *trials, contributions=contributions, mean=0.85)

    assert adam.adjusted == pytest.approx(0.86)
    assert sgd.adjusted == pytest.approx(0.84)


def test_two_trials_are_too_few_for_an_adjusted_mean():
    trials = [trial(0.8, {"optimizer": "adam"})] * 2

    (adam,) = rows("optimizer", *trials, contributions={0: 0.5, 1: 0.5}, mean=0.85)

    assert adam.adjusted is None


def test_the_largest_difference_is_between_values_that_enough_trials_have():
    trials = [trial(0.9, {"conv_layers": n}) for n in (1, 1, 1, 2, 2, 2, 3)]
    contributions = {0: 0.0, 1: 0.0, 2: 0.0, 3: 0.01, 4: 0.01, 5: 0.01, 6: 9.0}

    best, worst = largest_difference(rows("conv_layers", *trials, contributions=contributions))

    assert (best.value, worst.value) == ("2", "1")


def test_one_value_differs_from_nothing():
    assert largest_difference(rows("conv_layers", *[trial(0.9)] * 3, contributions={0: 0.0, 1: 0.0, 2: 0.0})) is None


@pytest.mark.parametrize(("value", "text"), [(0.0012345, "0.00123"), (3, "3"), ("relu", "relu"), (None, "None")])
def test_values_are_short(value, text):
    assert shown(value) == text
