"""Metrics read from a run's summary."""

import pytest

from fmnist_pl.compare.run_metrics import BY_KEY, METRICS
from tests.fmnist_pl.compare.made_runs import summary, wanted


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


def test_values_are_shown_in_per_cent_thousandths_and_seconds():
    assert BY_KEY["test_accuracy"].shown(0.91154) == "91.15"
    assert BY_KEY["gap"].shown(0.0329, sign=True) == "+3.29"
    assert BY_KEY["update_ratio"].shown(0.00123) == "1.23"
    assert BY_KEY["seconds_per_epoch"].shown(11.26) == "11.3"
