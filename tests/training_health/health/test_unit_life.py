import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import array_shapes, arrays

from training_health.health.health_run import HealthRun, Site
from training_health.health.unit_life import dead_since, died_in, order_by_death, transitions

# rows are epochs; unit 0 lives, 1 dies at epoch 1, 2 dies and comes back, 3 is born dead, 4 is rare, 5 is unknown
ACTIVITY = np.array(
    [
        [0.5, 0.2, 0.1, 0.0, 0.005, np.nan],
        [0.5, 0.0, 0.0, 0.0, 0.005, np.nan],
        [0.4, 0.0, 0.3, 0.0, 0.009, np.nan],
    ]
)


def site(activity: np.ndarray) -> Site:
    return Site("fc1", activity, np.arange(len(activity)), np.full(len(activity), 100))


def test_dead_rare_deaths_and_revivals_are_counted_per_epoch():
    counts = site(ACTIVITY).counts
    assert counts.dead.tolist() == [1, 3, 2]
    assert counts.rare.tolist() == [1, 1, 1]
    assert counts.nan.tolist() == [1, 1, 1]
    assert (counts.units, counts.known) == (6, 5)
    assert counts.deaths.tolist() == [0, 2, 0]
    assert counts.revivals.tolist() == [0, 0, 1]


def test_activity_of_exactly_the_limit_is_not_rare():
    assert site(np.array([[0.01]])).counts.rare.tolist() == [0]


def test_dead_since_is_the_start_of_the_present_death():
    assert dead_since(ACTIVITY).tolist() == [3, 1, 3, 0, 3, 3]


def test_order_puts_the_earliest_dead_first_and_the_unknown_last():
    assert order_by_death(ACTIVITY).tolist() == [3, 1, 4, 2, 0, 5]


@settings(deadline=None, max_examples=50)
@given(arrays(float, array_shapes(min_dims=2, max_dims=2, max_side=6), elements=st.sampled_from([0.0, 0.005, 0.5])))
def test_deaths_less_revivals_are_the_change_of_the_dead(activity):
    deaths, revivals = transitions(activity)
    counts = site(activity).counts
    assert (np.diff(counts.dead) == (counts.deaths - counts.revivals)[1:]).all()
    assert not (deaths & revivals).any()
    assert (dead_since(activity) < len(activity)).sum() == counts.dead[-1]
    assert sorted(order_by_death(activity)) == list(range(activity.shape[1]))


def test_the_network_is_the_sum_of_its_sites_at_the_epochs_that_all_have():
    other = site(np.array([[0.0, 1.0], [0.0, 1.0]]))
    counts = HealthRun("a", sites=[site(ACTIVITY), other]).counts
    assert counts.units == 8
    assert counts.epochs.tolist() == [0, 1]
    assert counts.dead.tolist() == [2, 4]
    assert counts.deaths.tolist() == [0, 2]


def test_the_network_is_measured_on_the_fewest_examples_and_on_an_unknown_number_if_one_site_is():
    few = Site("a", ACTIVITY, np.arange(3), np.array([20, 20, 20]))
    unknown = Site("b", ACTIVITY, np.arange(3), np.array([100, 0, 100]))
    assert HealthRun("a", sites=[site(ACTIVITY), few, unknown]).counts.n.tolist() == [20, 0, 20]


def test_a_run_without_sites_counts_nothing():
    counts = HealthRun("a").counts
    assert (counts.units, counts.epochs.tolist()) == (0, [])


def test_a_death_began_before_the_first_step_or_in_an_epoch_or_it_is_unknown_when():
    activity = np.array([[0, 0, 0.5, 0, 0.5], [0, 0, 0.0, 0, 0.5]])
    start = np.array([0, 0.5, 0.5, np.nan, 0.0])

    assert died_in(np.array([3, 4]), activity, start).tolist()[:3] == [-1, 3, 4]
    assert np.isnan(died_in(np.array([3, 4]), activity, start)[3:]).all()
    assert np.isnan(died_in(np.array([3, 4]), activity)[[0, 1, 3, 4]]).all()
