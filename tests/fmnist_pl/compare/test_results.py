"""Results put together, and written as Markdown, CSV, JSON and TensorBoard records."""

import csv
import json
import sys
from dataclasses import replace
from pathlib import Path

import pytest
from rich.console import Console
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

from fmnist_pl.compare.log_folder import RunResult
from fmnist_pl.compare.output import markdown, notes, print_tables, sentences, write_all
from fmnist_pl.compare.results import compare
from fmnist_pl.compare.run_metrics import METRICS
from tests.fmnist_pl.compare.made_runs import DATA, REAL, summary, wanted
from training_health.errors import UserError

SNAPSHOT = Path(__file__).parent / "compare.md"
FAILED = RunResult("no_dropout", 3, "It broke | badly.")


def result(variant: str, seed: int, *, epochs: int = 10, **metrics: float | None) -> RunResult:
    content = {**summary(wanted(variant, seed, data=REAL), **metrics), "epochs": epochs}
    return RunResult(variant, seed, None, {metric.key: metric.read(content) for metric in METRICS}, content)


@pytest.fixture
def comparison():
    baseline = [(0.9100, 0.010), (0.9120, 0.011), (0.9110, 0.012)]  # test accuracy, gap
    runs = [result("baseline", i, test=test, gap=gap, dead=0.1 + i / 100) for i, (test, gap) in enumerate(baseline)]
    no_dropout = enumerate([0.9170, 0.9190, 0.9183])
    runs += [result("no_dropout", i, test=test, gap=0.045, dead=0.1 + i / 100) for i, test in no_dropout]
    return compare([*runs, FAILED], "baseline", REAL)


def test_the_markdown_is_that_of_the_snapshot(comparison):
    """Renew it, after a look at the difference, with the text that `markdown(comparison)` returns here."""
    assert markdown(comparison) == SNAPSHOT.read_text()


@pytest.mark.parametrize("width", [60, 80, 200])
def test_a_terminal_gets_tables_of_its_width(comparison, capsys, width):
    print_tables(comparison, Console(width=width, highlight=False, markup=False, emoji=False))

    lines = capsys.readouterr().out.splitlines()
    assert max(map(len, lines)) <= width
    text = " ".join(" ".join(lines).split())
    for words in ("test acc. %", "91.10 ± 0.10", "(+0.71 ± 0.04) *", "n = 3 (1 failed)", "It broke | badly."):
        assert words in text
    assert "`" not in text


def test_a_terminal_gets_markdown_only_where_it_is_asked_for(comparison, tmp_path, capsys, monkeypatch):
    monkeypatch.setattr(sys.stdout, "isatty", lambda: True, raising=False)
    write_all(comparison, tmp_path)
    assert "| --- |" not in capsys.readouterr().out
    write_all(comparison, tmp_path, as_markdown=True)
    assert markdown(comparison) in capsys.readouterr().out


def test_a_single_seed_is_no_verdict():
    one = compare([result("baseline", 0), result("no_dropout", 0)], "baseline", REAL)

    assert "no second seed to judge it" in sentences(one)[0]
    assert "Only one seed" in markdown(one)
    assert "±" not in markdown(one)


def test_where_nothing_has_finished_that_is_said():
    none = markdown(compare([FAILED], "no_dropout", REAL))

    assert "No run has finished." in none
    assert "Only one seed" not in none
    assert "Beside the notebooks" not in none


def test_only_seeds_that_both_have_make_pairs():
    runs = [result(variant, seed) for variant, seed in (("baseline", 0), ("baseline", 1), ("sgd", 1), ("gelu", 2))]
    comparison = compare([*runs, FAILED], "baseline", REAL)

    assert comparison.differences["sgd"]["test_accuracy"].n == 1
    assert comparison.differences["gelu"]["test_accuracy"] is None
    assert comparison.differences["no_dropout"]["test_accuracy"] is None


def test_a_metric_that_a_run_lacks_has_no_spread():
    (variant,) = compare([result("gelu", 0), result("gelu", 1, dead=None)], "gelu", REAL).variants

    assert variant.spreads["dead_fraction"] is None
    assert variant.spreads["gap"].n == 2


@pytest.mark.parametrize(("data", "epochs", "printed"), [(REAL, 10, 0.9115), (REAL, 9, None), (DATA, 10, None)])
def test_the_notebooks_metrics_belong_to_runs_that_did_what_they_did(data, epochs, printed):
    (variant,) = compare([result("baseline", 0, epochs=epochs)], "baseline", data).variants

    assert variant.printed.get("test_accuracy") == printed


@pytest.mark.parametrize(
    ("changes", "told"),
    [
        ({"threads": 2}, "device: baseline: cpu, threads: 1; other: cpu, threads: 2"),
        ({"epochs": 20}, "number of epochs: baseline: 10; other: 20"),
        ({"test_checkpoint": "last"}, "other: those of the last epoch"),
        ({"identity": {"data": DATA, "code": "older"}}, "code of this package: baseline: c; other: older"),
    ],
    ids=str,
)
def test_what_differs_between_runs_is_told(changes, told):
    made = result("baseline", 0)
    other = replace(made, variant="other", summary={**made.summary, **changes})

    text = "\n".join(notes(compare([made, other], "baseline", REAL)))

    assert text.count("NOT the same") == 1
    assert told in text


def test_the_options_of_all_runs_are_told():
    options = ["--trainer.max_epochs=2", "--data.batch_size=128", "--trainer.limit_test_batches=1"]

    text = "\n".join(notes(compare([result("baseline", 0)], "baseline", REAL, options)))

    assert "variants: `--data.batch_size=128 --trainer.limit_test_batches=1`." in text


def test_where_the_last_epoch_had_no_validation_the_apparent_gap_is_of_one_epoch_and_it_is_told():
    made = result("baseline", 0)
    history = [{"train/accuracy": 0.8, "val/accuracy": 0.7, "val/loss": 1.0}, {"train/accuracy": 0.9}]
    late = replace(made, summary={**made.summary, "history": history})

    assert next(metric for metric in METRICS if metric.key == "apparent_gap").read(late.summary) == pytest.approx(0.1)
    assert "are NOT of the last epoch, but of the last that was validated" in "\n".join(
        notes(compare([late], "baseline", REAL))
    )


def test_every_metric_is_read():
    assert result("gelu", 0, test=0.9, val=0.91, running=0.92, train_eval=0.93, gap=0.02, dead=0.1).metrics == {
        "running_accuracy": 0.92,
        "train_eval_accuracy": 0.93,
        "val_accuracy": 0.91,
        "test_accuracy": 0.9,
        "gap": 0.02,
        "apparent_gap": pytest.approx(0.01),
        "mode_effect": 0.01,
        "dead_fraction": 0.1,
        "update_ratio": 0.002,  # the median over the weights; the bias's 9.0 is left out
        "seconds_per_epoch": 1.5,
    }
    assert {metric.read({}) for metric in METRICS} == {None}


@pytest.fixture
def folder(comparison, tmp_path):
    for _ in range(2):  # the second replaces the first
        write_all(comparison, tmp_path)
    return tmp_path


def test_the_curves_of_runs_in_the_same_folder_stay(comparison, tmp_path):
    curves = tmp_path / "baseline" / "version_0" / "events.out.tfevents.1.run"
    curves.parent.mkdir(parents=True)
    curves.write_bytes(b"curves")
    write_all(comparison, tmp_path)

    assert curves.read_bytes() == b"curves"


def test_the_csv_has_every_runs_unrounded_metrics(folder):
    with (folder / "compare.csv").open() as file:
        rows = list(csv.DictReader(file))

    assert [row["variant"] for row in rows] == ["baseline"] * 3 + ["no_dropout"] * 4
    assert [row["test_accuracy"] for row in rows] == ["0.91", "0.912", "0.911", "0.917", "0.919", "0.9183", ""]
    assert (rows[6]["seed"], rows[6]["failure"]) == ("3", "It broke | badly.")


def test_the_json_has_everything(folder):
    value = json.loads((folder / "compare.json").read_text())

    assert (value["reference"], value["data"]["dataset"]) == ("baseline", "fashion_mnist")
    assert value["differences"]["no_dropout"]["gap"]["verdict"] == "different"
    runs = value["variants"][1]["runs"]
    assert (runs[0]["summary"]["threads"], runs[0]["summary"]["identity"]["code"]) == (1, "c")
    assert runs[3]["failure"] == "It broke | badly."


def test_tensorboard_gets_the_text_and_each_variants_means(folder):
    (record,) = EventAccumulator(str(folder / "tensorboard")).Reload().Tensors("comparison/text_summary")
    assert record.tensor_proto.string_val[0].decode() == (folder / "compare.md").read_text()

    variant = EventAccumulator(str(folder / "tensorboard" / "variants" / "baseline")).Reload()
    (mean,) = variant.Scalars("mean/test_accuracy")
    assert mean.value == pytest.approx(0.911)
    assert variant.PluginTagToContent("hparams").keys() >= {"_hparams_/session_start_info"}


def test_results_that_cannot_be_written_are_printed_first(comparison, tmp_path, capsys):
    (tmp_path / "out").write_text("in the way")

    with pytest.raises(UserError, match=r"cannot be written.*out"):
        write_all(comparison, tmp_path / "out")

    assert markdown(comparison) in capsys.readouterr().out
