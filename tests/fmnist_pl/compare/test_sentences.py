"""Differences in words."""

from fmnist_pl.compare.sentences import verdict_sentence
from fmnist_pl.compare.statistics import Difference, Spread

POSITIVE = {"gap": Spread(5, 0.02, 0.001)}


def sentence(spreads=POSITIVE, **differences):
    return verdict_sentence("no_dropout", "baseline", differences, spreads, POSITIVE)


def test_differences_beyond_noise_are_stated_with_their_intervals():
    assert sentence(gap=Difference(5, 0.033, 0.004, 0.0), test_accuracy=Difference(5, -0.006, 0.003, 0.01)) == (
        "`no_dropout` against `baseline` (5 seeds): it widens the gap by 3.30 ± 0.40 points; "
        "it changes test accuracy by -0.60 ± 0.30 points."
    )


def test_a_smaller_gap_is_narrower():
    assert "it narrows the gap by 1.00 ± 0.20 points" in sentence(gap=Difference(3, -0.01, 0.002, 0.0))


def test_a_gap_that_changes_its_sign_is_neither_narrower_nor_wider():
    text = sentence({"gap": Spread(5, -0.003, 0.001)}, gap=Difference(5, -0.023, 0.002, 0.0))

    assert "it changes the gap by -2.30 ± 0.20 points" in text


def test_a_difference_within_noise_is_called_that():
    text = sentence(test_accuracy=Difference(5, 0.001, 0.003, 0.4))

    assert text.endswith("test accuracy does not differ beyond noise (+0.10 ± 0.30 points).")


def test_one_seed_judges_nothing():
    text = sentence(dead_share=Difference(1, 0.2, None, None))

    assert text == (
        "`no_dropout` against `baseline` (1 seed): the dead share differs by +20.00 points, "
        "with no second seed to judge it."
    )


def test_without_a_common_seed_there_is_nothing_to_say():
    assert sentence(gap=None) == "`no_dropout` and `baseline` have no seed in common with a figure to compare."
