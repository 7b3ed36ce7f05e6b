"""Results put together: spreads, pairs, the notebooks' metrics, and what a reader is told about the runs."""

from dataclasses import replace

import pytest

from fmnist_pl.compare.log_folder import LogFolder, RunResult
from fmnist_pl.compare.markdown import notes
from fmnist_pl.compare.results import compare
from fmnist_pl.compare.run_metrics import METRICS
from tests.fmnist_pl.compare.made_runs import DATA, REAL, summary, wanted, write_summary

TEST = {"baseline": [0.90, 0.91, 0.92], "no_dropout": [0.91, 0.92, 0.94]}


@pytest.fixture
def result(tmp_path):
    """Makes the result of a finished run."""

    def make(variant, seed, data=DATA, changes=None, **metrics):
        run = wanted(variant, seed, data=data)
        write_summary(tmp_path, run, {**summary(run, **metrics), **(changes or {})}, seed)
        return LogFolder(tmp_path).finished(run)

    return make


@pytest.fixture
def made(result):
    return [result(variant, seed, test=value) for variant, values in TEST.items() for seed, value in enumerate(values)]


def test_differences_are_paired_by_seed(made):
    difference = compare(made, "baseline", DATA).differences["no_dropout"]["test_accuracy"]  # 0.01, 0.01, 0.02

    assert difference.n == 3
    assert difference.mean == pytest.approx(0.04 / 3)
    assert difference.half_width == pytest.approx(4.302653 * (1 / 3) * 0.01, rel=1e-5)  # t of 2, sd/sqrt(3) = 0.01/3


def test_only_seeds_that_both_have_make_pairs(made, result):
    failed = RunResult("baseline", 3, "It broke.")
    comparison = compare([*made, failed, result("no_dropout", 3, test=0.5)], "baseline", DATA)

    assert comparison.differences["no_dropout"]["test_accuracy"].n == 3
    assert [variant.spreads["test_accuracy"].n for variant in comparison.variants] == [3, 4]
    assert [run.failure for run in comparison.runs if run.failure] == ["It broke."]


def test_variants_without_a_common_seed_have_no_difference(result):
    comparison = compare([result("baseline", 0), result("sgd", 1)], "baseline", DATA)

    assert comparison.differences["sgd"]["test_accuracy"] is None


def test_a_metric_that_a_run_lacks_has_no_spread(result):
    comparison = compare([result("gelu", 0), result("gelu", 1, dead=None)], "gelu", DATA)

    assert comparison.variants[0].spreads["dead_fraction"] is None
    assert comparison.variants[0].spreads["gap"].n == 2


@pytest.mark.parametrize(("data", "epochs", "printed"), [(REAL, 10, 0.9115), (REAL, 9, None), (DATA, 10, None)])
def test_the_notebooks_metrics_belong_to_runs_that_did_what_they_did(result, data, epochs, printed):
    run = result("baseline", 0, data, {"epochs": epochs})

    assert compare([run], "baseline", data).variants[0].printed.get("test_accuracy") == printed


@pytest.mark.parametrize(
    ("changes", "told"),
    [
        ({"threads": 2}, "device: baseline: cpu, threads: 1; no_dropout: cpu, threads: 1; other: cpu, threads: 2"),
        ({"epochs": 20}, "number of epochs: baseline: 2; no_dropout: 2; other: 20"),
        ({"test_checkpoint": "last"}, "other: those of the last epoch"),
        ({"identity": {"data": DATA, "code": "older"}}, "code of this package: baseline: c; no_dropout: c; other: old"),
    ],
    ids=str,
)
def test_what_differs_between_runs_is_told(made, changes, told):
    other = replace(made[0], variant="other", summary={**made[0].summary, **changes})

    text = "\n".join(notes(compare([*made, other], "baseline", DATA)))

    assert text.count("NOT the same") == 1
    assert told in text
    assert "NOT the same" not in "\n".join(notes(compare(made, "baseline", DATA)))


def test_every_metric_is_read():
    made = summary(wanted(), test=0.9, val=0.91, running=0.92, train_eval=0.93, gap=0.02, dead=0.1)

    assert {metric.key: metric.read(made) for metric in METRICS} == {
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


def test_what_was_not_measured_is_absent():
    assert {metric.read({}) for metric in METRICS} == {None}
