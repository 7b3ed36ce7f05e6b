"""Was it trial and error?"""

import pytest
from scipy import stats

from fmnist_pl.search.report.guidance import guidance, sentences
from fmnist_pl.search.report.trial_records import trial_records
from tests.fmnist_pl.search.made_studies import failed, pruned, study, trial

RANDOM = [0.80, 0.82, 0.84, 0.86, 0.88]
GUIDED = [0.89, 0.891, 0.892, 0.893, 0.90]


def judged(*trials, random_trials=5, first=()):
    return guidance(trial_records(study(*trials)), 5000, random_trials, first)


def test_the_best_is_held_against_the_median():
    found = judged(trial(0.8), trial(0.9), trial(0.7))

    assert (found.n, found.best, found.median) == (3, 0.9, 0.8)


def test_trials_within_two_standard_errors_are_counted():
    found = judged(trial(0.9), trial(0.895), trial(0.88))

    assert found.margin == pytest.approx(2 * (0.9 * 0.1 / 5000) ** 0.5)
    assert found.tied == 1


def test_guided_trials_are_compared_with_random_ones():
    found = judged(*(trial(value) for value in [*RANDOM, *GUIDED]))

    assert found.random == tuple(RANDOM)
    assert found.guided == tuple(GUIDED)
    assert found.first_guided == 5
    assert found.p_value == pytest.approx(stats.mannwhitneyu(GUIDED, RANDOM).pvalue)
    assert sentences(found)[-1] == (
        "5 trials were drawn at random: median 84.00 %, best 88.00 %. The 5 guided ones after them: median "
        "89.20 %, best 90.00 %; pruned ones count with their last accuracy. Guided trials were better by 5.20 points "
        "(p = 0.008, Mann-Whitney): not just trial and error."
    )


def test_pruned_trials_count_and_failed_ones_do_not():
    found = judged(pruned([0.5]), failed(), trial(0.9), random_trials=1)

    assert (found.random, found.guided, found.first_guided) == ((0.5,), (0.9,), 2)


def test_what_the_space_names_first_was_not_drawn():
    found = judged(trial(0.9, {"conv_layers": 2}), trial(0.8), random_trials=2, first=[{"conv_layers": 2}])

    assert (found.given, found.random) == ((0.9,), (0.8,))
    assert "Under the same conditions the configuration that the space names reached 90.00 %." in sentences(found)


@pytest.mark.parametrize(
    ("guided", "verdict"),
    [
        (RANDOM, "That is within chance (p = 1.00): that the guidance helped is not shown."),
        (
            [0.5, 0.51, 0.52, 0.53, 0.54],
            "The guided ones were worse (p = 0.008): trial and error would have done better.",
        ),
    ],
)
def test_guidance_may_not_help(guided, verdict):
    assert verdict in sentences(judged(*(trial(value) for value in [*RANDOM, *guided])))[-1]


def test_too_few_guided_trials_are_called_that():
    text = sentences(judged(*(trial(value) for value in RANDOM)))[-1]

    assert text.startswith("Whether the sampler's guidance helped cannot be told")


def test_one_trial_is_compared_with_nothing():
    assert sentences(judged(trial(0.9))) == [
        "Only one trial was completed (90.00 %): there is nothing to compare it with."
    ]


def test_without_a_completed_trial_there_is_nothing_to_judge():
    assert judged(failed(), pruned([0.5])) is None


def test_an_accuracy_of_one_has_no_margin():
    assert judged(trial(1.0), trial(0.5)).margin == 0


@pytest.mark.parametrize(
    ("others", "text"),
    [([], "No other trial comes within"), ([0.9], "1 other trial comes"), ([0.9] * 2, "2 other trials come")],
)
def test_the_number_of_equals_is_spelled_out(others, text):
    assert sentences(judged(trial(0.9), trial(0.5), *map(trial, others)))[1].startswith(text)
