"""The report as a whole."""

import re

import pytest
from optuna.distributions import CategoricalDistribution
from optuna.trial import TrialState

from fmnist_pl.search.report.document_markdown import markdown
from fmnist_pl.search.report.write import report, write_report
from tests.fmnist_pl.search.made_studies import failed, layers_matter, pruned, study, trial
from tests.fmnist_pl.search.test_confirmation import confirmed
from training_health.errors import UserError

EVERYTHING = [
    "In short",
    "The winner with further seeds",
    "The best trial",
    "Which choices mattered?",
    "What each value did",
    "Was it trial and error?",
    "Accuracy against parameters",
    "Accuracy against training time",
    "Do dead units cost anything?",
    "What was searched",
]


def written(tmp_path, made, confirmation=None):
    return markdown(report(made, tmp_path, confirmation))


def titles(text):
    return re.findall(r"^## (.*)$", text, re.MULTILINE)


def test_a_search_has_every_section(tmp_path):
    write_report(layers_matter(), tmp_path, None)

    assert titles((tmp_path / "report.md").read_text()) == EVERYTHING
    assert sorted(path.name for path in tmp_path.iterdir()) == ["report.html", "report.md", "trials.csv"]


def test_the_answers_come_first(tmp_path):
    short = written(tmp_path, layers_matter()).split("## ")[1]

    assert "- 40 trials: 40 completed; Fashion-MNIST. Best: trial 11 with 88.80 % on the validation images." in short
    assert "- The winner has not been trained with further seeds yet." in short
    assert "- What mattered, beyond chance and with the other choices held: `conv_layers` (`4` is 6." in short
    assert "Not told from chance with 40 completed trials: `optimizer` and `momentum`." in short
    assert "- Do dead units cost anything? " in short


def test_pruned_trials_have_their_say_on_the_first_epochs(tmp_path):
    trials = [
        trial(0.9 + i / 1000, {"conv_layers": 2, "learning_rate": 0.001 * (1 + i * 5 % 9)}, reported=[0.8, 0.9])
        for i in range(15)
    ]
    given_up = [pruned([0.5], {"conv_layers": 1, "learning_rate": 0.001 * (1 + i * 4 % 9)}) for i in range(15)]

    text = written(tmp_path, study(*trials, *given_up))

    assert (
        "- After epoch 1, where the pruned trials count too (30 trials), beyond chance: `conv_layers` (p < 0.001)."
        in text
    )


def test_choices_that_the_sampler_settled_are_named(tmp_path):
    trials = [trial(0.9 + (i % 5) / 1000, {"optimizer": "adam", "conv_layers": 1 + i % 4}) for i in range(20)]

    assert "Not judged, since nearly all completed trials share one value: `optimizer`." in written(
        tmp_path, study(*trials)
    )


def test_one_trial_with_another_value_is_no_evidence(tmp_path):
    trials = [trial(0.9 + (i % 5) / 1000, {"optimizer": "adam", "conv_layers": 1 + i % 4}) for i in range(20)]

    text = written(tmp_path, study(*trials, trial(0.1, {"optimizer": "sgd", "conv_layers": 1})))

    assert "Not judged, since nearly all completed trials share one value: `optimizer`." in text
    assert "| `optimizer` | - | - | - | - | - |" in text


def test_what_the_space_names_first_is_told_from_what_was_drawn_also_when_it_was_lost_and_repeated(tmp_path):
    first = {"conv_layers": 2, "learning_rate": 0.001}
    lost = failed("killed", first, lost="killed")
    drawn = [trial(0.5 + i / 100, {"conv_layers": 1, "learning_rate": 0.01}) for i in range(5)]
    made = study(lost, trial(0.75, first, retries=[0]), *drawn, space={"first": [{**first, "learning_rate": "1e-3"}]})

    assert "Under the same conditions the configuration that the space names reached 75.00 %." in written(
        tmp_path, made
    )


def test_the_winner_s_further_seeds_are_in_it(tmp_path):
    text = written(tmp_path, layers_matter(), confirmed((0.90, 0.921), (0.90, 0.920), (0.90, 0.919)))

    assert "| difference | 3 | +0.00 ± 0.00 | **+2.00 ± 0.25** |" in text
    assert text.count("The winner is better than the baseline (+2.00 ± 0.25 points of test accuracy") == 2
    assert "These 6 runs are the only ones of the search that were tested on the test images, each once." in text


def test_a_seed_that_failed_is_named(tmp_path):
    assert "- Failed: `winner` seed 2: `It broke.`" in written(
        tmp_path, layers_matter(), confirmed((0.9, 0.92), (0.9, None))
    )


def test_trials_are_counted_by_how_they_ended(tmp_path):
    made = study(
        *(trial(0.8), pruned([0.5]), failed("NaN"), failed("killed", lost="killed"), trial(0.9, retries=[3])),
        trial(state=TrialState.RUNNING),
    )

    assert (
        "5 trials: 2 completed, 1 pruned, 1 failed, 1 still running (1 more was lost with the process and not counted)"
        in written(tmp_path, made)
    )


def test_failures_have_their_reasons(tmp_path):
    text = written(tmp_path, study(trial(0.8), failed("NaN"), failed(), failed(lost="killed"), trial(0.9, retries=[3])))

    assert "| 1 | failed | `NaN` | - |" in text
    assert "| 2 | failed | none recorded; its worker may have been killed | - |" in text
    assert "| 3 | lost | none recorded; its worker may have been killed | trial 4 |" in text


def test_the_fronts_are_named(tmp_path):
    trials = [trial(0.8, parameters=1000, seconds=12.4, run="a"), trial(0.85, parameters=3000, seconds=3.14, run="b")]

    text = written(tmp_path, study(*trials, trial(0.7, parameters=2000, seconds=20.0)))

    assert "| 0 | 80.00 % | 1,000 | 12 | `a` |\n| 1 | 85.00 % | 3,000 | 3.1 | `b` |\n" in text
    assert "The front, from the cheapest to the most accurate: 5.00 points for 3.0 times the parameters." in text
    assert "trial 1 alone, which is both" in text


def test_synthetic_results_are_called_that(tmp_path):
    assert "SYNTHETIC garments, not Fashion-MNIST" in written(tmp_path, study(trial(0.9), data="synthetic"))


@pytest.mark.parametrize("trials", [[], [failed("NaN")], [failed("NaN")] * 30, [pruned([0.5])] * 12])
def test_without_a_completed_trial_the_report_says_so(tmp_path, trials):
    text = written(tmp_path, study(*trials))

    assert "No trial was completed, so there is no winner, and nothing can be said about the choices." in text


CATEGORIES = {"a": CategoricalDistribution(["x", "y", None]), "b": CategoricalDistribution([True, 3, 0.5, "z"])}


@pytest.mark.parametrize(
    "trials",
    [
        [trial(0.9)],
        [trial(0.9), failed("NaN")],
        [trial(0.5, {"conv_layers": 1 + i % 4}, dead_share=0.1, parameters=5, seconds=1.0) for i in range(30)],
        [trial(0.0, {"conv_layers": 1 + i % 4}) for i in range(30)],
        [trial(0.8 + i / 200, {"conv_layers": 1 + i % 4}) for i in range(20)],
        [trial(0.8 + i / 200, {}) for i in range(20)],
        [
            trial(0.8 + i / 200, {"a": ["x", "y", None][i % 3], "b": [True, 3, 0.5, "z"][i % 4]}, space=CATEGORIES)
            for i in range(30)
        ],
        [trial(0.8 + i / 200, {"conv_layers": 1 + i % 4}, parameters=0, seconds=0.0) for i in range(20)],
    ],
    ids=["one", "one and a failure", "all the same", "all zero", "one choice", "no choice", "categories", "free"],
)
def test_any_study_has_a_report(tmp_path, trials):
    write_report(study(*trials), tmp_path, None)

    assert "<h2>The best trial</h2>" in (tmp_path / "report.html").read_text()


HOSTILE = "<img src=x onerror=alert(1)>`|\n# no" + "o" * 300


def test_what_was_named_breaks_nothing(tmp_path):
    space = {HOSTILE: CategoricalDistribution([HOSTILE, "</script>"])}
    trials = [
        trial(0.8 + i / 100, {HOSTILE: [HOSTILE, "</script>"][i % 2]}, space=space, run=HOSTILE) for i in range(14)
    ]

    write_report(study(*trials, failed(HOSTILE, {}), name=HOSTILE), tmp_path, None)

    text = (tmp_path / "report.md").read_text()
    page = (tmp_path / "report.html").read_text()
    assert "<img" not in page
    assert titles(text)[-1] == "Trials that failed or were lost"
    assert not re.search(r"^# no", text, re.MULTILINE)


def test_the_same_study_has_the_same_report(tmp_path):
    assert report(layers_matter(20), tmp_path, None).title == "Search `made`"
    assert written(tmp_path / "a", layers_matter(20)).replace("/a/", "/b/") == written(
        tmp_path / "b", layers_matter(20)
    )


def test_a_folder_that_cannot_be_made_is_named(tmp_path):
    (tmp_path / "file").touch()

    with pytest.raises(UserError, match=r"The report cannot be written into .*file"):
        write_report(study(trial(0.9)), tmp_path / "file", None)
