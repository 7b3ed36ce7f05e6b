"""Markdown, CSV, JSON and TensorBoard records of a made comparison."""

import csv
import json
from pathlib import Path

import pytest
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

from fmnist_pl.compare.log_folder import LogFolder, RunResult
from fmnist_pl.compare.markdown import markdown, sentences
from fmnist_pl.compare.output import write_all
from fmnist_pl.compare.results import compare
from tests.fmnist_pl.compare.made_runs import REAL, summary, wanted, write_summary
from training_health.errors import UserError

TEST = {"baseline": [0.9100, 0.9120, 0.9110], "no_dropout": [0.9170, 0.9190, 0.9183]}
SNAPSHOT = Path(__file__).parent / "compare.md"


@pytest.fixture
def comparison(tmp_path):
    results = []
    for variant, values in TEST.items():
        for seed, value in enumerate(values):
            run = wanted(variant, seed, data=REAL)
            gap = 0.01 + 0.001 * seed if variant == "baseline" else 0.045
            content = {**summary(run, test=value, gap=gap, dead=0.1 + 0.01 * seed), "epochs": 10}
            write_summary(tmp_path, run, content, seed)
            results.append(LogFolder(tmp_path).finished(run))
    return compare([*results, RunResult("no_dropout", 3, "It broke | badly.")], "baseline", REAL)


def test_the_markdown_is_that_of_the_snapshot(comparison):
    """Renew it, after a look at the difference, with the text that `markdown(comparison)` returns here."""
    assert markdown(comparison) == SNAPSHOT.read_text()


def test_a_single_seed_is_no_verdict(comparison):
    one = compare([comparison.runs[0], comparison.runs[3]], "baseline", REAL)

    assert "no second seed to judge it" in sentences(one)[0]
    assert "Only one seed" in markdown(one)
    assert "±" not in markdown(one)


@pytest.fixture
def folder(comparison, tmp_path, capsys):
    for _ in range(2):  # the second replaces the first
        write_all(comparison, tmp_path / "out")
    return tmp_path / "out"


def test_the_markdown_is_printed_and_written(comparison, folder, capsys):
    write_all(comparison, folder)

    assert (folder / "compare.md").read_text() == markdown(comparison)
    assert markdown(comparison) in capsys.readouterr().out


def test_the_csv_has_every_runs_unrounded_metrics(folder):
    with (folder / "compare.csv").open() as file:
        rows = list(csv.DictReader(file))

    assert [row["variant"] for row in rows] == ["baseline"] * 3 + ["no_dropout"] * 4
    assert [row["test_accuracy"] for row in rows] == ["0.91", "0.912", "0.911", "0.917", "0.919", "0.9183", ""]
    assert (rows[6]["seed"], rows[6]["failure"]) == ("3", "It broke | badly.")


def test_the_json_has_every_run(folder):
    value = json.loads((folder / "compare.json").read_text())

    assert (value["reference"], value["data"]["dataset"]) == ("baseline", "fashion_mnist")
    assert value["differences"]["no_dropout"]["gap"]["verdict"] == "different"
    runs = value["variants"][1]["runs"]
    assert [run["metrics"].get("test_accuracy") for run in runs] == [0.917, 0.919, 0.9183, None]
    assert (runs[0]["summary"]["threads"], runs[0]["summary"]["identity"]["code"]) == (1, "c")
    assert runs[3]["failure"] == "It broke | badly."


def test_tensorboard_gets_the_text_and_each_variants_means(folder):
    text = EventAccumulator(str(folder)).Reload()
    (record,) = text.Tensors("comparison/text_summary")
    assert "`baseline`, `no_dropout` compared" in record.tensor_proto.string_val[0].decode()

    variant = EventAccumulator(str(folder / "variants" / "baseline")).Reload()
    (mean,) = variant.Scalars("mean/test_accuracy")
    assert mean.value == pytest.approx(0.911)
    assert len(list((folder / "variants" / "baseline").iterdir())) == 1
    assert variant.PluginTagToContent("hparams").keys() >= {"_hparams_/session_start_info"}


def test_results_that_cannot_be_written_are_printed_first(comparison, tmp_path, capsys):
    (tmp_path / "out").write_text("in the way")

    with pytest.raises(UserError, match=r"cannot be written.*out"):
        write_all(comparison, tmp_path / "out")

    assert "`baseline`, `no_dropout` compared" in capsys.readouterr().out
