"""What is said of the choices."""

import pytest

from fmnist_pl.compare.statistics import spread
from fmnist_pl.search.report.anova import Anova, Choice
from fmnist_pl.search.report.effects import Effect
from fmnist_pl.search.report.verdicts import Verdict, what_mattered

STRIDE = Choice("stride", 0.5, 0.01, {}, comparable=True)


def effect(value, seen, adjusted):
    return Effect("stride", value, spread([seen] * 3), seen, adjusted, 0, 0)


def said(best, worst):
    verdict = Verdict(STRIDE, best, worst)
    (sentence,) = what_mattered([verdict], Anova((STRIDE,), 20), None)
    return sentence.removeprefix("What mattered, beyond chance and with the other choices held: ")


def test_a_choice_that_matters_is_told_with_its_size():
    assert said(effect("1", 0.90, 0.89), effect("2", 0.88, 0.86)) == (
        "`stride` (`1` is 3.00 points better than `2`, p = 0.010)."
    )


def test_where_the_other_choices_turn_the_difference_round_it_is_said():
    assert said(effect("1", 0.86, 0.89), effect("2", 0.88, 0.86)) == (
        "`stride` (but not which value is best: `1` is 3.00 points better than `2`, p = 0.010, yet as seen `2` is 2.00 "
        "points better)."
    )


def test_a_difference_is_also_known_as_seen():
    verdict = Verdict(STRIDE, effect("1", 0.86, 0.89), effect("2", 0.88, 0.86))

    assert verdict.as_seen == pytest.approx(-0.02)
    assert Verdict(STRIDE, None, None).as_seen == 0
