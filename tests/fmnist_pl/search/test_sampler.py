"""Suggestions that keep to the constraints."""

import optuna
import pytest
from optuna.distributions import CategoricalDistribution, FloatDistribution, IntDistribution

from fmnist_pl.search.sampler import RANDOM_TRIALS, ConstrainedTPE, suggest
from training_health.errors import UserError

SPACE = {"x": FloatDistribution(0.0, 1.0), "n": IntDistribution(1, 8), "kind": CategoricalDistribution(("a", "b"))}


def suggested(count, *, space=SPACE, refusal=lambda params: None, first=(), seed=0, start=0):
    """Parameters of ``count`` trials one after the other, each as good as its x is high."""
    optuna.logging.set_verbosity(optuna.logging.WARNING)
    study = optuna.create_study(direction="maximize")
    for ordinal in range(start, start + count):
        study.sampler = ConstrainedTPE(space, refusal, first, seed, ordinal)
        trial = study.ask()
        for name, distribution in space.items():
            suggest(trial, name, distribution)
        study.tell(trial, trial.params.get("x", 0.0))
    return [trial.params for trial in study.trials]


def test_the_forbidden_part_is_never_suggested_though_it_looks_the_best():
    params = suggested(4 * RANDOM_TRIALS, refusal=lambda one: "no" if one["x"] > 0.2 else None)

    assert max(one["x"] for one in params) <= 0.2


def test_the_estimators_find_the_better_part():
    params = suggested(4 * RANDOM_TRIALS)

    drawn, estimated = params[:RANDOM_TRIALS], params[-RANDOM_TRIALS:]
    assert sum(one["x"] for one in estimated) > sum(one["x"] for one in drawn)


def test_a_suggestion_depends_on_the_seed_and_on_how_many_came_before():
    assert suggested(12) == suggested(12)
    assert suggested(1)[0] != suggested(1, seed=1)[0]
    assert suggested(1)[0] != suggested(1, start=1)[0]


def test_the_first_configurations_come_first():
    first = [{"x": 0.5, "n": 3, "kind": "b"}, {"x": 0.25, "n": 4, "kind": "a"}]

    assert suggested(3, first=first)[:2] == first


def test_no_configuration_is_suggested_twice_while_there_are_others():
    space = {"n": IntDistribution(1, 4), "kind": CategoricalDistribution(("a", "b"))}
    params = suggested(8, space=space)

    assert sorted((one["n"], one["kind"]) for one in params) == [(n, kind) for n in range(1, 5) for kind in "ab"]


def test_when_all_were_tried_one_is_repeated():
    assert len(suggested(3, space={"n": IntDistribution(1, 2)})) == 3


def test_a_name_with_one_value_is_always_suggested_and_seen_by_the_constraints():
    space = {**SPACE, "fixed": CategoricalDistribution(("only",)), "five": IntDistribution(5, 5)}
    params = suggested(3, space=space, refusal=lambda one: None if (one["fixed"], one["five"]) == ("only", 5) else "no")

    assert {(one["fixed"], one["five"]) for one in params} == {("only", 5)}


def test_a_space_in_which_nothing_may_be_trained_is_refused():
    with pytest.raises(UserError, match=r"none may be trained. The last: too large\. Widen") as raised:
        suggested(1, refusal=lambda params: "too large")

    assert raised.value.exit_code == 2
