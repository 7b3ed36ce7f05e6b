"""Results put together: spreads, pairs, verdicts, and what a reader is told about them."""

import pytest

from fmnist_pl.compare.comparison import compare, run_result
from fmnist_pl.compare.finished import FinishedRun
from fmnist_pl.compare.notes import notes
from tests.fmnist_pl.compare.made_runs import DATA, REAL, summary, wanted
from training_health.errors import UserError

TEST = {"baseline": [0.90, 0.91, 0.92], "no_dropout": [0.91, 0.92, 0.94]}


def result(variant, seed, tmp_path, data=DATA, changes=None, **figures):
    run = wanted(variant, seed, data=data)
    return run_result(run, FinishedRun(tmp_path, {**summary(run, **figures), **(changes or {})}), None)


def failed(variant, seed, reason="It broke."):
    return run_result(wanted(variant, seed), None, reason)


def compared(tmp_path, extra=(), data=DATA):
    results = [
        result(variant, seed, tmp_path, data, test=value)
        for variant, values in TEST.items()
        for seed, value in enumerate(values)
    ]
    return compare([*results, *extra], "baseline", data)


def test_each_variant_has_its_mean_and_deviation(tmp_path):
    baseline, no_dropout = compared(tmp_path).variants

    assert (baseline.name, no_dropout.name) == ("baseline", "no_dropout")
    assert baseline.spreads["test_accuracy"].mean == pytest.approx(0.91)
    assert baseline.spreads["test_accuracy"].sd == pytest.approx(0.01)


def test_differences_are_paired_by_seed(tmp_path):
    difference = compared(tmp_path).differences["no_dropout"]["test_accuracy"]  # 0.01, 0.01, 0.02

    assert difference.n == 3
    assert difference.mean == pytest.approx(0.04 / 3)
    assert difference.half_width == pytest.approx(4.302653 * (1 / 3) * 0.01, rel=1e-5)  # t of 2, sd/sqrt(3) = 0.01/3
    assert "it changes test accuracy by" not in compared(tmp_path).sentences[0]


def test_only_seeds_that_both_have_make_pairs(tmp_path):
    comparison = compared(tmp_path, [failed("baseline", 3), result("no_dropout", 3, tmp_path, test=0.5)])

    assert comparison.differences["no_dropout"]["test_accuracy"].n == 3
    assert comparison.variants[1].spreads["test_accuracy"].n == 4


def test_a_figure_that_a_run_lacks_has_no_spread(tmp_path):
    comparison = compare([result("gelu", 0, tmp_path), result("gelu", 1, tmp_path, dead=None)], "gelu", DATA)

    assert comparison.variants[0].spreads["dead_share"] is None
    assert comparison.variants[0].spreads["gap"].n == 2


def test_a_failed_run_keeps_its_reason_and_does_not_count(tmp_path):
    (variant,) = compare([failed("sgd", 0), result("sgd", 1, tmp_path)], "sgd", DATA).variants

    assert [run.failure for run in variant.runs] == ["It broke.", None]
    assert variant.spreads["test_accuracy"].n == 1


def test_a_run_with_nan_losses_is_a_failed_one(tmp_path):
    run = result("sgd", 0, tmp_path, changes={"history": [{"train/loss": None}]})

    assert run.failure == "train/loss was not a finite number in epoch 1"


def test_a_run_on_other_data_is_refused(tmp_path):
    with pytest.raises(UserError, match="was trained on other data than sgd seed 0"):
        run_result(wanted("sgd"), FinishedRun(tmp_path, summary(wanted("sgd", data=REAL))), None)


def test_the_notebooks_figures_stand_beside_runs_that_did_what_they_did(tmp_path):
    as_then = result("baseline", 0, tmp_path, REAL, {"epochs": 10})
    shorter = result("baseline", 0, tmp_path, REAL, {"epochs": 9})
    drawn = result("baseline", 0, tmp_path, DATA, {"epochs": 10})

    assert compare([as_then], "baseline", REAL).variants[0].printed["test_accuracy"] == 0.9115
    assert compare([shorter], "baseline", REAL).variants[0].printed == {}
    assert compare([drawn], "baseline", DATA).variants[0].printed == {}


def test_the_notes_name_data_method_and_machine(tmp_path):
    text = "\n".join(notes(compared(tmp_path)))

    assert "Data: SYNTHETIC garments, not Fashion-MNIST. Seeds: 0, 1, 2." in text
    assert "paired t interval (scipy.stats.ttest_rel), 95 %" in text
    assert "Measured on cpu with 1 threads; torch 2." in text
    assert "Epochs of every run: 2." in text


def test_one_seed_is_said_to_judge_nothing(tmp_path):
    text = "\n".join(notes(compare([result("sgd", 0, tmp_path)], "sgd", DATA)))

    assert "Only one seed: no spread and no intervals." in text


@pytest.mark.parametrize(
    ("changes", "note"),
    [
        ({"threads": 2}, "Measured on cpu with 1 threads and cpu with 2 threads"),
        ({"epochs": 20}, "different numbers of epochs: baseline 2, no_dropout 2, other 20"),
        ({"test_checkpoint": "last"}, "no_dropout the lowest validation loss, other the last epoch"),
        ({"identity": {"data": DATA, "code": "older"}}, "Some runs are of other versions of this package's code"),
    ],
    ids=str,
)
def test_what_differs_between_runs_is_told(tmp_path, changes, note):
    comparison = compared(tmp_path, [result("other", 0, tmp_path, changes=changes)])

    assert note in "\n".join(notes(comparison))
    assert note not in "\n".join(notes(compared(tmp_path)))
