"""Searches that share a study through a real PostgreSQL."""

import time

import pytest

from fmnist_pl.search.tally import is_lost
from tests.fmnist_pl.search import postgresql_server
from tests.fmnist_pl.search.test_killed import TRIALS, finished, kill_in_mid_trial, start
from tests.fmnist_pl.search.toy_search import ToySpace, ledger, search, trained

pytestmark = [
    pytest.mark.postgresql,
    pytest.mark.skipif(postgresql_server.missing() is not None, reason=str(postgresql_server.missing())),
]


@pytest.fixture(scope="module")
def storage():
    with postgresql_server.server() as url:
        yield url


@pytest.fixture
def machines(tmp_path):
    """Folders that two machines do not share."""
    folders = [tmp_path / "one", tmp_path / "two"]
    for folder in folders:
        folder.mkdir()
    return folders


def test_searches_share_a_study_and_one_is_killed_and_started_again(storage, machines):
    one, two = machines
    other = start(two, storage, jobs=2)
    kill_in_mid_trial(one, storage, jobs=2)
    again = start(one, storage, jobs=2)
    assert (other.wait(120), again.wait(120)) == (0, 0)

    ended = finished(one, storage)
    assert len(ended) == TRIALS
    assert len({x for x, *_ in ended}) == TRIALS
    assert len(trained(one)) > 0
    assert len(trained(two)) > 0


def test_what_a_dead_machine_was_training_is_tried_again_after_the_grace(storage, machines):
    one, two = machines
    dead = ledger(one, storage, ToySpace(), study="grace", grace=0.3)
    lost = dead.begin(1)
    living = ledger(two, storage, ToySpace(), study="grace", grace=0.3)

    assert lost is not None
    assert living.retire_dead() == []  # its beat is new to the observer
    assert living.begin(1) is None
    time.sleep(0.5)
    assert living.retire_dead() == [lost.number]
    begun = living.begin(1)

    assert begun is not None
    assert begun.retries == lost.number
    assert begun.overlay == lost.overlay
    assert dead.report(lost.number, 0, 0.5)  # told to stop, had it not died
    assert not dead.finish(lost.number, {}, 0.5)
    assert living.finish(begun.number, {"seconds": 1.0}, 0.6)
    assert [(trial.value, is_lost(trial)) for trial in living.trials()] == [(None, True), (0.6, False)]
    for book in (dead, living):
        book.close()


def test_a_finished_study_is_read_by_another_machine(storage, machines):
    one, two = machines
    search(one, storage, TRIALS)
    book, _ = search(two, storage, TRIALS)

    assert book.tally().finished == TRIALS
    assert trained(two) == []
