"""Markdown, CSV, JSON and TensorBoard records of a made comparison."""

import csv
import io
import json

import pytest
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

from fmnist_pl.compare.comparison import compare, run_result
from fmnist_pl.compare.finished import FinishedRun
from fmnist_pl.compare.machine_readable import csv_text, json_text
from fmnist_pl.compare.markdown import markdown, table
from fmnist_pl.compare.output import write_all
from tests.fmnist_pl.compare.made_runs import REAL, summary, wanted
from training_health.errors import UserError

TEST = {"baseline": [0.9100, 0.9120, 0.9110], "no_dropout": [0.9170, 0.9190, 0.9183]}


@pytest.fixture
def comparison(tmp_path):
    results = []
    for variant, values in TEST.items():
        for seed, value in enumerate(values):
            run = wanted(variant, seed, data=REAL)
            gap = 0.01 + 0.001 * seed if variant == "baseline" else 0.045
            content = {**summary(run, test=value, gap=gap, dead=0.1 + 0.01 * seed), "epochs": 10}
            results.append(run_result(run, FinishedRun(tmp_path, content), None))
    results.append(run_result(wanted("no_dropout", 3, data=REAL), None, "It broke | badly."))
    return compare(results, "baseline", REAL)


def test_the_results_have_a_row_per_variant(comparison):
    lines = markdown(comparison).splitlines()

    assert lines[0] == "# `baseline`, `no_dropout` compared"
    assert lines[2].startswith("| variant | n | running acc. % | eval-mode training acc. % | validation acc. % | test")
    assert "| 91.10 ± 0.10 (91.15) |" in lines[4]  # the notebook's figure in brackets
    assert lines[5].startswith("| `no_dropout` | 3 (1 failed) |")


def test_differences_beyond_noise_are_told_and_bold(comparison):
    text = markdown(comparison)

    assert "- `no_dropout` against `baseline` (3 seeds): it widens the gap by 3.40 ± 0.25 points; it changes" in text
    assert "| **+0.71 ± 0.04** |" in text
    assert "| +0.00 ± 0.00 |" in text  # the dead share is the same, seed by seed


def test_the_notebooks_figures_are_placed_in_our_spread(comparison):
    assert "| `baseline` | test acc. % | 91.10 ± 0.10 (91.15) | 91.15 | +0.5 sd |" in markdown(comparison)


def test_failures_are_listed_with_their_reasons(comparison):
    assert "## Failed runs, left out above\n\n- `no_dropout` seed 3: It broke | badly.\n" in markdown(comparison)


def test_a_bar_in_a_cell_does_not_end_it():
    assert table([["a|b"], ["c"]]) == "| a\\|b |\n| --- |\n| c |"


def test_the_csv_has_unrounded_figures(comparison):
    rows = list(csv.DictReader(io.StringIO(csv_text(comparison))))

    assert [row["variant"] for row in rows] == ["baseline", "no_dropout"]
    assert [(row["n"], row["failed"]) for row in rows] == [("3", "0"), ("3", "1")]
    assert float(rows[0]["test_accuracy_mean"]) == pytest.approx(0.911)
    assert float(rows[0]["test_accuracy_notebook"]) == 0.9115
    assert rows[0]["gap_difference"] == ""
    assert float(rows[1]["gap_difference"]) == pytest.approx(0.034)
    assert rows[1]["gap_verdict"] == "different"


def test_the_json_has_every_run(comparison):
    value = json.loads(json_text(comparison))

    assert value["reference"] == "baseline"
    assert value["data"]["dataset"] == "fashion_mnist"
    runs = value["variants"][1]["runs"]
    assert [run["figures"].get("test_accuracy") for run in runs] == [0.917, 0.919, 0.9183, None]
    assert runs[3]["failure"] == "It broke | badly."
    assert runs[0]["threads"] == 1
    assert runs[0]["identity"]["code"] == "c"
    assert value["variants"][1]["differences"]["gap"]["verdict"] == "different"


def test_everything_is_written_and_printed(comparison, tmp_path, capsys):
    write_all(comparison, tmp_path / "out")

    printed = capsys.readouterr().out
    assert (tmp_path / "out" / "compare.md").read_text() in printed
    assert (tmp_path / "out" / "compare.csv").read_text() == csv_text(comparison)
    assert (tmp_path / "out" / "compare.json").read_text() == json_text(comparison)


def test_tensorboard_gets_the_text_and_each_variants_means(comparison, tmp_path):
    for _ in range(2):  # the second replaces the first
        write_all(comparison, tmp_path / "out")

    text = EventAccumulator(str(tmp_path / "out")).Reload()
    (record,) = text.Tensors("comparison/text_summary")
    assert "`baseline`, `no_dropout` compared" in record.tensor_proto.string_val[0].decode()

    variant = EventAccumulator(str(tmp_path / "out" / "variants" / "baseline")).Reload()
    (mean,) = variant.Scalars("mean/test_accuracy")
    assert mean.value == pytest.approx(0.911)
    assert len(list((tmp_path / "out" / "variants" / "baseline").iterdir())) == 1
    assert "_hparams_/session_start_info" in variant.SummaryMetadata.__self__.summary_metadata


def test_results_that_cannot_be_written_are_printed_first(comparison, tmp_path, capsys):
    (tmp_path / "out").write_text("in the way")

    with pytest.raises(UserError, match=r"cannot be written into .*out: File exists. They are printed above"):
        write_all(comparison, tmp_path / "out")

    assert "`baseline`, `no_dropout` compared" in capsys.readouterr().out
