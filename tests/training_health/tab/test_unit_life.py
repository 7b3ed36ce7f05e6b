import numpy as np

from training_health.health.health_run import HealthRun, Site
from training_health.health.unit_life import (
    dead_since,
    network_counts,
    order_by_death,
    site_counts,
    transitions,
)

# rows are epochs; unit 0 lives, 1 dies at epoch 1, 2 dies and comes back, 3 is born dead, 4 is rare, 5 is unknown
ACTIVITY = np.array(
    [
        [0.5, 0.2, 0.1, 0.0, 0.005, np.nan],
        [0.5, 0.0, 0.0, 0.0, 0.005, np.nan],
        [0.4, 0.0, 0.3, 0.0, 0.009, np.nan],
    ]
)


def site(activity: np.ndarray, name: str = "fc1", epochs: list[int] | None = None) -> Site:
    epoch_array = np.arange(len(activity)) if epochs is None else np.array(epochs)
    n = np.full(len(activity), 100)
    return Site(name, 0, activity.shape[1], 1, "validation", "relu", False, 0.01, epoch_array, n, activity)


def test_dead_rare_deaths_and_revivals_are_counted_per_epoch():
    counts = site_counts(site(ACTIVITY))
    assert counts.dead.tolist() == [1, 3, 2]
    assert counts.rare.tolist() == [1, 1, 1]
    assert counts.deaths.tolist() == [0, 2, 0]
    assert counts.revivals.tolist() == [0, 0, 1]
    assert counts.dead_share.tolist() == [1 / 6, 3 / 6, 2 / 6]


def test_activity_of_exactly_the_limit_is_not_rare():
    assert site_counts(site(np.array([[0.01]]))).rare.tolist() == [0]


def test_transitions_name_the_units():
    deaths, revivals = transitions(ACTIVITY)
    assert np.argwhere(deaths).tolist() == [[1, 1], [1, 2]]
    assert np.argwhere(revivals).tolist() == [[2, 2]]


def test_dead_since_is_the_start_of_the_present_death():
    assert dead_since(ACTIVITY).tolist() == [-1, 1, -1, 0, -1, -1]


def test_order_puts_the_earliest_dead_first_and_the_unknown_last():
    assert order_by_death(ACTIVITY).tolist() == [3, 1, 4, 2, 0, 5]


def test_the_network_is_the_sum_of_its_sites():
    other = site(np.array([[0.0, 1.0], [0.0, 1.0], [0.0, 0.0]]), name="fc2")
    counts = network_counts(HealthRun("a", sites=[site(ACTIVITY), other]))
    assert counts.units == 8
    assert counts.dead.tolist() == [2, 4, 4]
    assert counts.deaths.tolist() == [0, 2, 1]


def test_an_epoch_that_one_site_lacks_is_left_out():
    short = site(np.array([[0.0], [0.0]]), name="fc2")
    counts = network_counts(HealthRun("a", sites=[site(ACTIVITY), short]))
    assert counts.epochs.tolist() == [0, 1]
    assert counts.dead.tolist() == [2, 4]


def test_a_run_without_sites_has_no_counts():
    assert network_counts(HealthRun("a")) is None
