"""Means, variances and standard errors, against NumPy, closed forms and simulation."""

import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from training_health.gap.statistics import NAN, Evaluation, Gap, Sums, mean_of_batches, sentence, student_t, total

losses = st.lists(st.floats(0, 10, width=32), max_size=30)


@settings(deadline=None, max_examples=40)
@given(ranks=st.lists(losses, min_size=1, max_size=4))
def test_sums_over_ranks_give_the_mean_and_variance_over_all_examples(ranks):
    parts = [Sums(len(r), sum(x > 1 for x in r), sum(r), sum(x * x for x in r)) if r else Sums() for r in ranks]
    everything = np.array([x for r in ranks for x in r])

    found = total(parts).evaluation()

    assert found.examples == len(everything)
    if len(everything) > 1:
        assert found.accuracy == pytest.approx((everything > 1).mean())
        assert found.loss == pytest.approx(everything.mean(), abs=1e-9)
        assert found.loss_se == pytest.approx(everything.std(ddof=1) / len(everything) ** 0.5, abs=1e-6)


@pytest.mark.parametrize(("training", "validation", "n"), [(0.95, 0.90, 5000), (0.5, 0.5, 40), (1.0, 0.7, 200)])
def test_the_accuracy_gaps_standard_error_is_the_spread_of_simulated_gaps(training, validation, n):
    rng = np.random.default_rng(0)
    simulated = rng.binomial(n, training, 20_000) / n - rng.binomial(n, validation, 20_000) / n

    gap = Gap(Evaluation(n, training), Evaluation(n, validation))

    assert gap.accuracy == pytest.approx(training - validation)
    assert gap.accuracy_se == pytest.approx(simulated.std(), rel=0.03)


@pytest.mark.parametrize(("training", "verdict"), [(0.93, True), (0.911, False), (0.88, True)])  # 2 SE are 0.012
def test_a_gap_is_beyond_noise_above_two_standard_errors(training, verdict):
    assert Gap(Evaluation(5000, training), Evaluation(5000, 0.90)).beyond_noise is verdict


def test_without_an_accuracy_the_loss_decides_with_both_sides_errors():
    gap = Gap(Evaluation(100, loss=0.2, loss_se=0.05, loss_df=99), Evaluation(400, loss=0.5, loss_se=0.05, loss_df=399))

    assert (gap.loss, gap.loss_se) == pytest.approx((0.3, math.sqrt(0.0025 + 0.0025)))
    assert gap.beyond_noise is True
    assert Gap(Evaluation(10), Evaluation(10)).beyond_noise is None


def test_batch_means_give_the_means_standard_error():
    examples = np.random.default_rng(0).normal(3, 2, size=(4000, 25))  # batches of 25
    batches = [(mean, 25) for mean in examples.mean(axis=1).tolist()]

    assert mean_of_batches(batches) == pytest.approx((examples.mean(), 2 / math.sqrt(100_000), 3999), rel=0.05)
    assert math.isnan(mean_of_batches([(1.0, 25)])[1])  # one batch does not show any spread


@pytest.mark.parametrize("df", [1, 2, 3.5, 10, 200, 5000])
def test_the_quantiles_are_students(df):
    stats = pytest.importorskip("scipy.stats")

    assert student_t(df) == pytest.approx(stats.t.ppf(0.975, df), rel=1e-3)


@pytest.mark.parametrize(("train", "val"), [(2, 2), (3, 3), (4, 4), (8, 8), (20, 20), (2, 20), (5, 3)])
def test_few_batches_give_false_alarms_in_about_five_percent_of_trials(train, val):
    rng, fewest = np.random.default_rng(0), min(train, val)

    def side(batches):  # means of 64 skewed losses
        means = [(mean, 64) for mean in rng.lognormal(size=(batches, 64)).mean(1).tolist()]
        return Evaluation(math.nan, NAN, *mean_of_batches(means, fewest))

    alarms = [Gap(side(train), side(val)).beyond_noise for _ in range(3000)]

    assert 0.03 <= np.mean(alarms) <= 0.07


def binomial(n, p):
    return [math.comb(n, k) * p**k * (1 - p) ** (n - k) for k in range(n + 1)]


@pytest.mark.parametrize("n", [2, 3, 5, 12, 40])
@pytest.mark.parametrize("accuracy", [0.1, 0.5, 0.8])
def test_equal_accuracies_are_beyond_noise_at_most_as_often_as_said(n, accuracy):
    chances = list(enumerate(binomial(n, accuracy)))

    gaps = [(Gap(Evaluation(n, a / n), Evaluation(n, b / n)), p * q) for a, p in chances for b, q in chances]

    assert sum(chance for gap, chance in gaps if gap.beyond_noise) <= 0.06  # 0.125 for two examples and plain errors


@pytest.mark.parametrize(
    ("gap", "words"),
    [
        (
            Gap(Evaluation(5000, 0.966), Evaluation(5000, 0.920), running_accuracy=0.9),
            ["4.6 ± 0.5 points", "96.6 %", "92.0 %", "n = 5,000 each", "beyond noise", "6.6 points below"],
        ),
        (Gap(Evaluation(50, 0.90), Evaluation(40, 0.90)), ["0.0 ± 7.0 points", "n = 50 and 40", "noise"]),
        (Gap(Evaluation(61, 0.77), Evaluation(61, 0.77 + 1e-9)), ["The gap is 0.0 ±"]),
        (Gap(Evaluation(50, loss=0.5), Evaluation(50, loss=0.5 - 1e-9)), ["The gap in loss is 0.0000 ±"]),
        (Gap(Evaluation(50, loss=0.5), Evaluation(50, loss=0.75)), ["gap in loss is 0.2500 ± unknown"]),
        (Gap(Evaluation(50, loss=0.5), Evaluation(50)), ["The gap is unknown"]),
        (None, ["not measured"]),
    ],
)
def test_the_gap_in_words(gap, words):
    assert [word for word in words if word not in sentence(gap)] == []


def test_unknown_values_stay_unknown():
    gap = Gap(Evaluation(5, loss=0.1), Evaluation(5, loss=NAN))

    assert [key for key, value in gap.scalars().items() if not math.isnan(value)] == ["gap/train_eval_loss"]
    assert gap.as_dict()["loss_gap"] is None
