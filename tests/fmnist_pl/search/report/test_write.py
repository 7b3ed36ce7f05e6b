"""The report as a whole."""

import os
import re
from pathlib import Path

import pytest
from markdown_it import MarkdownIt
from optuna.distributions import CategoricalDistribution
from optuna.trial import TrialState

from fmnist_pl.compare.log_folder import RunResult
from fmnist_pl.compare.results import compare
from fmnist_pl.compare.run_metrics import METRICS
from fmnist_pl.search.report import write_report
from tests.fmnist_pl.search.report.studies import every_kind_of_trial, study, trial
from training_health.errors import UserError

SNAPSHOT = Path(__file__).with_name("snapshot.md")
CHARTS = ("effects", "values", "history", "parameters", "seconds", "dead_fraction")
HOSTILE = "<img src=x onerror=alert(1)>`|\n# no [link](http://example.com) " + "o" * 300


def written(folder, made, confirmation=None):
    write_report(made, folder, confirmation)
    return (folder / "report.md").read_text(), (folder / "report.html").read_text()


def confirmation():
    """The winner is two points better with two seeds; with the third it failed."""
    values = {("baseline", 1): 0.90, ("baseline", 2): 0.901, ("winner", 1): 0.92, ("winner", 2): 0.92}
    unknown = dict.fromkeys(metric.key for metric in METRICS)
    runs = [RunResult(*key, metrics={**unknown, "test_accuracy": value}) for key, value in values.items()]
    data = {"dataset": "synthetic", "training_images": None}
    return compare([*runs, RunResult("winner", 3, "It broke.")], "baseline", data)


def test_a_report_is_as_it_was(tmp_path):
    """After a wanted change: ``RENEW_SNAPSHOT=1 pytest`` with this file, then look at the difference that git shows."""
    text, _ = written(tmp_path, every_kind_of_trial(), confirmation())
    text = text.replace(str(tmp_path), "FOLDER")

    if os.environ.get("RENEW_SNAPSHOT"):
        SNAPSHOT.write_text(text)
    assert text == SNAPSHOT.read_text()


def test_the_page_has_every_chart_and_no_address(tmp_path):
    _, page = written(tmp_path, every_kind_of_trial())

    assert [name for name in CHARTS if f'<figure id="{name}">' in page] == list(CHARTS)
    own = re.sub('<script type="text/plain".*?</script>', "", page)  # plotly.js, packed
    assert "http" not in own.replace("Content-Security-Policy", "").replace("http-equiv", "")


@pytest.mark.parametrize("trials", [[], [trial(state=TrialState.FAIL)] * 3, [trial(reported=[0.5])] * 12])
def test_without_a_completed_trial_nothing_is_claimed(tmp_path, trials):
    text, page = written(tmp_path, study(*trials))

    assert "No trial was completed" in text
    assert "matter" not in text
    assert len(page) < 20_000


CATEGORIES = {"a": CategoricalDistribution(["x", "y", None]), "b": CategoricalDistribution([True, 3, 0.5, "z"])}


@pytest.mark.parametrize(
    "trials",
    [
        [trial(0.9)],
        [trial(0.5, {"conv_layers": 1 + i % 4}, dead_fraction=0.1, parameters=5, seconds=1.0) for i in range(30)],
        [trial(0.0, {}) for i in range(30)],
        [trial(i / 20, {"conv_layers": 1 + i % 4}, parameters=0, seconds=0.0) for i in range(21)],
        [
            trial(0.8 + i / 200, {"a": ["x", "y", None][i % 3], "b": [True, 3, 0.5, "z"][i % 4]}, space=CATEGORIES)
            for i in range(30)
        ],
    ],
    ids=["one", "all the same", "no choice", "free", "categories"],
)
def test_any_study_has_a_report(tmp_path, trials):
    assert "## Which choices mattered?" in written(tmp_path, study(*trials))[0]


def test_what_was_named_breaks_nothing(tmp_path):
    space = {HOSTILE: CategoricalDistribution([HOSTILE, HOSTILE + "x"])}
    trials = [trial(0.8 + i / 100, {HOSTILE: HOSTILE + "x" * (i % 2)}, space=space, run=HOSTILE) for i in range(14)]
    settings = {"space": {"space": {HOSTILE: [HOSTILE, "```"]}}, "options": [HOSTILE]}

    text, page = written(
        tmp_path, study(*trials, trial(state=TrialState.FAIL, failure=HOSTILE), name=HOSTILE, **settings)
    )

    headings = [token.tag for token in MarkdownIt().enable("table").parse(text) if token.type == "heading_open"]
    assert headings == ["h1", *["h2"] * 8]
    assert not [tag for tag in ("<img", "<a ", "<b>") if tag in page.split("<main>")[1]]


def test_a_folder_that_cannot_be_made_is_named(tmp_path):
    (tmp_path / "file").touch()

    with pytest.raises(UserError, match="cannot be written"):
        write_report(study(trial(0.9)), tmp_path / "file", None)
