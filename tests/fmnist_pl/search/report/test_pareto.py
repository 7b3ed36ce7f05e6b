"""Accuracy against cost."""

import pytest

from fmnist_pl.search.report.pareto import pareto_front
from fmnist_pl.search.report.trial_records import trial_records
from tests.fmnist_pl.search.made_studies import pruned, study, trial


@pytest.mark.parametrize(
    ("points", "front"),
    [
        ([(0.9, 10)], [0]),
        ([(0.9, 10), (0.8, 5)], [1, 0]),
        ([(0.9, 10), (0.8, 20)], [0]),
        ([(0.8, 10), (0.9, 10)], [1]),
        ([(0.9, 20), (0.9, 10)], [1]),
        ([(0.9, 10), (0.9, 10)], [0]),
        ([(0.9, None), (0.8, 5)], [1]),
        ([], []),
    ],
)
def test_on_the_front_no_other_trial_is_better_and_as_cheap(points, front):
    records = trial_records(study(*(trial(accuracy, parameters=cost) for accuracy, cost in points)))

    assert [record.number for record in pareto_front(records, lambda record: record.parameters)] == front


def test_pruned_trials_are_not_on_it():
    records = trial_records(study(pruned([0.99], parameters=1), trial(0.5, parameters=2)))

    assert [record.number for record in pareto_front(records, lambda record: record.parameters)] == [1]
