"""One training as a process."""

import sys
import time

import pytest

from fmnist_pl.compare.job import Job, last_words
from fmnist_pl.compare.locked_log import BusyError, LockedLog
from tests.fmnist_pl.compare.made_runs import wanted


def run_to_its_end(code, tmp_path, **options):
    job = Job(wanted(), [sys.executable, "-c", code], LockedLog(tmp_path / "run.log"), {}, **options)
    deadline = time.monotonic() + 20
    while not job.poll() and time.monotonic() < deadline:
        time.sleep(0.01)
    job.close()
    return job


def test_epochs_and_their_seconds_are_read_from_the_output(tmp_path):
    job = run_to_its_end(
        "print('Seed set to 0'); print('epoch 1/9  train/loss 0.5  12.5 s'); print('epoch 2/9  val/loss nan  9.0 s')",
        tmp_path,
    )

    assert (job.epochs_done, job.epoch_seconds) == (2, [12.5, 9.0])
    assert job.failure() is None


def test_the_epoch_that_a_resumed_run_begins_with_says_nothing_about_the_next(tmp_path):
    code = "print('epoch 3/9  train/loss 0.5  8.5 s'); print('epoch 4/9  train/loss 0.4  135.1 s')"
    job = run_to_its_end(code, tmp_path, resumed=True)

    assert (job.epochs_done, job.epoch_seconds) == (4, [135.1])


@pytest.mark.parametrize(
    ("code", "reason"),
    [
        ("import sys; print('error: No data.', file=sys.stderr); print('more'); sys.exit(1)", "No data."),
        ("raise OSError(28, 'No space left on device')", "OSError: [Errno 28] No space left on device"),
        ("import sys; print('usage:'); print('wrong option'); sys.exit(2)", "wrong option"),
        ("import sys; sys.exit(3)", "ended with status 3 and no message"),
        ("import os, signal; os.kill(os.getpid(), signal.SIGKILL)", "ended by SIGKILL (out of memory?)"),
    ],
)
def test_a_failure_has_a_reason(tmp_path, code, reason):
    assert run_to_its_end(code, tmp_path).failure() == reason


def test_a_full_disk_is_named_where_the_message_did_not_fit(tmp_path, monkeypatch):
    monkeypatch.setattr("shutil.disk_usage", lambda path: type("usage", (), {"free": 0}))
    reason = run_to_its_end("import sys; sys.exit(1)", tmp_path).failure()

    assert reason == f"(the disk of {tmp_path} is full)"


def test_a_second_attempt_starts_with_an_empty_log(tmp_path):
    run_to_its_end("print('first')", tmp_path)
    run_to_its_end("print('second')", tmp_path)

    assert (tmp_path / "run.log").read_text() == "second\n"


def test_a_run_can_be_stopped(tmp_path):
    job = Job(wanted(), [sys.executable, "-c", "import time; time.sleep(60)"], LockedLog(tmp_path / "run.log"), {})
    job.stop()
    job.close()

    assert job.failure() == "ended by SIGTERM"


def test_the_process_keeps_the_lock_when_its_starter_is_gone(tmp_path):
    path = tmp_path / "run.log"
    job = Job(wanted(), [sys.executable, "-c", "import time; time.sleep(60)"], LockedLog(path), {})
    job.close()

    with pytest.raises(BusyError):
        LockedLog(path)

    job.process.kill()
    job.process.wait()
    LockedLog(path).close()


def test_the_last_words_of_a_log_that_is_gone(tmp_path):
    assert last_words(tmp_path / "none.log") == ""
