"""Which choices mattered."""

import math

import numpy as np
import pytest
from optuna.distributions import CategoricalDistribution, FloatDistribution
from scipy import stats

from fmnist_pl.search.report.anova import analyse, analyse_early
from tests.fmnist_pl.search.made_studies import failed, layers_matter, pruned, study, trial

PAIR = CategoricalDistribution(["a", "b"])


def by_name(anova):
    return {choice.name: choice for choice in anova.choices}


def test_a_choice_that_matters_is_told_from_those_that_do_not():
    found = by_name(analyse(layers_matter()))

    assert [choice.matters for choice in found.values()] == [True, False, False]
    assert next(iter(found)) == "conv_layers"
    assert found["conv_layers"].p_value < 1e-6


def test_contributions_are_what_was_put_in():
    contributions = by_name(analyse(layers_matter()))["conv_layers"].contributions

    assert contributions[3] - contributions[0] == pytest.approx(0.06, abs=0.002)
    assert sum(contributions.values()) == pytest.approx(0)


def test_alone_a_choice_of_two_is_tested_as_by_student():
    draw = np.random.default_rng(0)
    accuracies = draw.uniform(0.88, 0.92, 20)
    made = study(*(trial(x, {"x": "ab"[i % 2]}, space={"x": PAIR}) for i, x in enumerate(accuracies)))

    (choice,) = analyse(made).choices

    assert choice.p_value == pytest.approx(stats.ttest_ind(accuracies[::2], accuracies[1::2]).pvalue)


def test_a_choice_that_the_sampler_drifted_to_gets_no_credit():
    """The late trials have more layers and another letter; the letter does nothing."""
    draw = np.random.default_rng(1)
    space = {"conv_layers": FloatDistribution(1, 4), "letter": PAIR}
    trials = []
    for i in range(60):
        layers = draw.uniform(1, 2.5) if i < 30 else draw.uniform(2, 4)
        letter = "b" if draw.random() < (0.2 if i < 30 else 0.8) else "a"
        value = 0.8 + 0.02 * layers + draw.normal(0, 0.004)
        trials.append(trial(value, {"conv_layers": layers, "letter": letter}, space=space))
    values = {name: [t.value for t in trials if t.params["letter"] == name] for name in "ab"}

    assert stats.ttest_ind(values["a"], values["b"]).pvalue < 0.001  # taken by itself it looks good
    assert {name: choice.matters for name, choice in by_name(analyse(study(*trials))).items()} == {
        "conv_layers": True,
        "letter": False,
    }


def test_choices_that_do_nothing_are_seldom_said_to_matter():
    draw = np.random.default_rng(2)
    wrong = 0
    for _ in range(40):
        trials = [
            trial(draw.normal(0.9, 0.01), {"a": draw.uniform(), "b": "ab"[draw.integers(2)]}, space=_NOTHING)
            for _ in range(20)
        ]
        wrong += any(choice.matters for choice in analyse(study(*trials)).choices)

    assert wrong <= 6  # 5 % of 40 are 2


_NOTHING = {"a": FloatDistribution(0, 1), "b": PAIR}


def test_an_optimum_inside_a_range_is_found():
    space = {"rate": FloatDistribution(1e-4, 1e-1, log=True)}
    rates = np.logspace(-4, -1, 20)
    noise = np.random.default_rng(3).normal(0, 0.002, 20)
    values = 0.9 - 0.02 * (np.log10(rates) + 2.5) ** 2 + noise
    made = study(*(trial(x, {"rate": float(r)}, space=space) for x, r in zip(values, rates, strict=True)))

    assert analyse(made).curved == "all"
    assert by_name(analyse(made))["rate"].matters


@pytest.mark.parametrize(("n", "curved"), [(17, "all"), (16, "logarithmic"), (13, "none"), (12, None)])
def test_fewer_trials_allow_less(n, curved):
    names = ("a", "b", "c")
    space = {name: FloatDistribution(0, 1) for name in names} | {"d": FloatDistribution(0.1, 1, log=True)}
    draw = np.random.default_rng(4)
    trials = [
        trial(draw.normal(0.9, 0.01), {name: draw.uniform(0.1, 1) for name in space}, space=space) for _ in range(n)
    ]
    found = analyse(study(*trials))

    if curved is None:
        assert found.unknown == "12 completed trials are too few to tell 4 choices apart: 13 are needed."
    else:
        assert (found.unknown, found.curved) == (None, curved)


@pytest.mark.parametrize(
    ("trials", "reason"),
    [
        ([], "No trial was completed"),
        ([failed("NaN")] * 3, "No trial was completed"),
        ([trial(0.9)], "Only one trial was completed"),
        ([trial(0.9, {"conv_layers": 1 + i % 4}) for i in range(20)], "All completed trials reached the same accuracy"),
        ([trial(0.8 + i / 100) for i in range(15)], "No choice had more than one value"),
        ([trial(0.8 + i / 100, {"conv_layers": 1 + i}) for i in range(4)], "4 completed trials are too few"),
    ],
)
def test_what_cannot_be_said_is_called_that(trials, reason):
    found = analyse(study(*trials))

    assert found.choices == ()
    assert found.unknown.startswith(reason)


def test_two_names_of_one_choice_share_no_credit():
    """Both always change together: leaving one out loses nothing."""
    space = {"x": PAIR, "y": PAIR}
    trials = [
        trial(0.8 + 0.1 * (i % 2) + i / 1000, {"x": "ab"[i % 2], "y": "ab"[i % 2]}, space=space) for i in range(20)
    ]

    assert [choice.p_value for choice in analyse(study(*trials)).choices] == [1.0, 1.0]


def test_pruned_trials_count_at_the_last_epoch_that_all_have():
    """Every trial with one layer is pruned after its second epoch: later epochs cannot show that layers matter."""
    trials = []
    for i in range(40):
        accuracies = [0.5, 0.6 + 0.1 * (i % 2) + 0.001 * (i * 7 % 5), 0.8 + 0.001 * (i * 3 % 7)]
        params = {"conv_layers": 1 + i % 2, "learning_rate": 0.001 * (1 + i * 5 % 9)}
        trials.append(trial(accuracies[-1], params, reported=accuracies) if i % 2 else pruned(accuracies[:2], params))
    made = study(*trials)

    early = analyse_early(made)

    assert [choice.name for choice in analyse(made).choices] == ["learning_rate"]
    assert (early.n, early.epoch) == (40, 2)
    assert {name: choice.matters for name, choice in by_name(early).items()} == {
        "conv_layers": True,
        "learning_rate": False,
    }


@pytest.mark.parametrize(
    "trials",
    [[], [trial(0.9)], [pruned([]), trial(0.9)], [pruned([0.5], {}), trial(0.9)]],
    ids=["none", "none pruned", "pruned before an epoch", "pruned before a choice"],
)
def test_there_may_be_no_epoch_in_common(trials):
    assert analyse_early(study(*trials)) is None


def test_an_accuracy_that_is_not_a_number_is_left_out():
    trials = [trial(0.8 + i / 100, {"conv_layers": 1 + i % 2}) for i in range(12)]

    assert analyse_early(study(*trials, pruned([math.nan]))).n == 12


def test_one_trial_with_another_value_is_no_evidence():
    space = {"optimizer": PAIR_OF_OPTIMISERS, "layers": FloatDistribution(1, 4)}
    trials = [trial(0.9 + (i % 5) / 1000, {"optimizer": "adam", "layers": 1 + i % 3}, space=space) for i in range(20)]

    found = analyse(study(*trials, trial(0.1, {"optimizer": "sgd", "layers": 3}, space=space)))

    assert list(by_name(found)) == ["layers"]
    assert found.settled == ("optimizer",)


PAIR_OF_OPTIMISERS = CategoricalDistribution(["adam", "sgd"])


def test_one_trial_that_learned_nothing_does_not_decide():
    """Quartiles 0.85 and 0.95, so the fence lies at 0.70; the last trial's depth did nothing to the others."""
    space = {"layers": FloatDistribution(1, 4)}
    trials = [trial(0.8 + (i % 5) / 20, {"layers": 1 + i % 3}, space=space) for i in range(20)]

    found = analyse(study(*trials, trial(0.1, {"layers": 4}, space=space)))

    assert (found.fence, found.below) == (pytest.approx(0.70), 1)
    assert found.mean == pytest.approx((20 * 0.9 + 0.70) / 21)


def test_without_a_trial_beyond_the_fence_nothing_is_changed():
    assert analyse(layers_matter()).fence is None
