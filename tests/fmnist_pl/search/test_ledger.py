"""Trials that begin, end, and are lost."""

import pytest
from optuna.trial import TrialState

from fmnist_pl.search import losses
from fmnist_pl.search.ledger import MOST_CRASHES
from fmnist_pl.search.tally import Tally, is_lost, is_one_too_many, ordinal, tally, without_retry
from tests.fmnist_pl.search.toy_search import ToySpace, ledger


@pytest.fixture
def books(tmp_path):
    """Ledgers of several searches of this machine."""
    opened = []

    def open_one(folder="same", **options):
        book = ledger(tmp_path / folder, f"sqlite:///{tmp_path / 'study.db'}", ToySpace(), **options)
        opened.append(book)
        return book

    yield open_one
    for book in opened:
        book.close()


def test_no_more_begin_than_were_asked_for(books):
    book = books()

    assert book.begin(2).number == 0
    assert book.begin(2).number == 1
    assert book.begin(2) is None


def test_what_another_search_runs_counts(books):
    one, two = books(), books()
    one.begin(1)

    assert two.begin(1) is None


def test_a_living_searchs_trial_is_left_alone(books):
    one, two = books(), books()
    one.begin(1)

    assert two.retire_dead() == []


def test_a_dead_searchs_trial_is_tried_again_at_once(books):
    one, two = books(), books()
    lost = one.begin(1)
    one.presence._lock.close()  # what the system does when a process ends

    assert two.retire_dead() == [lost.number]
    again = two.begin(1)
    assert (again.number, again.retries) == (1, 0)
    assert again.overlay == lost.overlay
    assert two.trials()[0].user_attrs["failure"] == "the search was killed"


def test_a_search_in_another_folder_is_judged_by_its_beat(books):
    one, two = books("one", grace=3600.0), books("two", grace=0.0)
    one.begin(1)

    assert two.retire_dead() == []
    assert two.retire_dead() == [0]


def test_a_trial_that_was_killed_before_anybody_owned_it_is_retired(books):
    book = books()
    book.study.ask()

    assert book.retire_dead() == [0]
    assert book.begin(1).number == 1
    assert tally(book.trials()) == Tally(0, 0, 0, 1, 0)


def test_a_retry_that_was_forgotten_is_added(books, monkeypatch):
    book = books()
    lost = book.begin(1)
    with monkeypatch.context() as killed:  # between the end of the trial and its retry
        killed.setattr(losses, "add_missing_retries", lambda study: None)
        book.lose(lost.number, "the search was killed")

    assert [trial.number for trial in without_retry(book.trials())] == [0]
    assert book.begin(1).retries == 0


def test_a_retry_is_no_suggestion_and_takes_no_turn(books):
    book = books()
    book.lose(book.begin(3).number, "killed")
    retry, second = book.begin(3), book.begin(3)

    assert (retry.retries, second.retries) == (0, None)
    assert ordinal(second.number, book.trials()) == 1


def test_of_two_retries_of_one_trial_the_later_is_one_too_many(books):
    book = books()
    book.lose(book.begin(3).number, "killed")
    (waiting,) = (trial for trial in book.trials() if trial.state == TrialState.WAITING)
    book.study.add_trial(waiting)
    trials = book.trials()

    assert not is_one_too_many(1, 3, trials)
    assert is_one_too_many(2, 3, trials)


def test_of_retries_queued_at_the_same_moment_one_waits(books, monkeypatch):
    book = books()
    book.lose(book.begin(3).number, "killed")
    forgotten = book.trials()[:1]  # what another process saw that looked before the retry was queued
    monkeypatch.setattr(losses, "without_retry", lambda trials: forgotten)
    losses.add_missing_retries(book.study)

    assert [trial.state.name for trial in book.trials()] == ["FAIL", "WAITING", "FAIL"]
    assert tally(book.trials()) == Tally(0, 0, 0, 0, 1)
    assert book.trials()[2].user_attrs["failure"] == "another process queued it too"


def test_a_retry_queued_twice_that_is_begun_meanwhile_is_left_to_who_began_it(books):
    book = books()
    book.lose(book.begin(3).number, "killed")
    (waiting,) = (trial for trial in book.trials() if trial.state == TrialState.WAITING)
    book.study.add_trial(waiting)
    seen = book.trials()[:]
    book.study.ask()
    book.study.ask()  # both are running now
    losses.void_repeated_retries(book.study, seen)

    assert [trial.state.name for trial in book.trials()] == ["FAIL", "RUNNING", "RUNNING"]


def test_of_trials_begun_at_the_same_moment_those_beyond_the_target_are_too_many(books):
    book = books()
    for _ in range(3):
        book.study.ask()

    assert [is_one_too_many(number, 2, book.trials()) for number in range(3)] == [False, False, True]


def test_a_result_of_a_trial_that_was_taken_for_dead_is_not_counted(books):
    one, two = books("one"), books("two", grace=0.0)
    number = one.begin(1).number
    two.retire_dead()
    two.retire_dead()

    assert not one.finish(number, {"seconds": 1.0}, 0.9)
    assert tally(two.trials()) == Tally(0, 0, 0, 0, 1)


def test_crashes_are_counted_over_retries(books):
    book = books()
    again = [book.crashed(book.begin(1).number, "ended by SIGKILL") for _ in range(MOST_CRASHES)]

    assert again == [True] * (MOST_CRASHES - 1) + [False]
    assert [is_lost(trial) for trial in book.trials()] == again
    assert book.begin(1) is None


def test_searches_that_were_stopped_are_no_crashes(books):
    for _ in range(MOST_CRASHES + 1):
        book = books()
        book.lose(book.begin(1).number, "the search was stopped")

    assert book.begin(1) is not None


def test_the_beat_is_raised(books, monkeypatch):
    monkeypatch.setattr("fmnist_pl.search.ledger.BEAT_SECONDS", 0.0)
    book = books()
    book.begin(1)
    book.beat()
    book.beat()

    assert book.trials()[0].user_attrs["beat"] == 2


def test_pruned_and_failed_trials_count(books):
    book = books()
    book.finish(book.begin(3).number, {}, 0.5)
    book.finish(book.begin(3).number, {}, None)
    book.fail(book.begin(3).number, "val/loss was nan after epoch 1")

    assert book.tally() == Tally(done=1, pruned=1, failed=1, running=0, waiting=0)
    assert book.begin(3) is None


def test_what_could_not_be_ended_is_found_by_the_next_search(books):
    one = books()
    one.begin(1)
    one.close()

    assert books().retire_dead() == [0]


def test_the_files_of_dead_searches_are_taken_away(books, tmp_path):
    for _ in range(2):
        book = books()
        book.presence._lock.close()
    living = books()
    books().close()

    assert [path.stem for path in (tmp_path / "same" / "searches").iterdir()] == [living.presence.token]


def test_a_trial_that_was_stopped_before_it_began_is_suggested_again(books):
    book = books()
    stopped = book.begin(2)
    book.lose(stopped.number, "it was stopped before it began", "void")

    assert book.begin(2).overlay == stopped.overlay
