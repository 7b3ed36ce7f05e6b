"""Training what is missing, with commands that only pretend."""

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from fmnist_pl.compare.log_folder import LogFolder
from fmnist_pl.compare.training import TrainingPool, fit_command
from tests.fmnist_pl.compare.made_runs import begin, pretend_to_train, trained, wanted, write_summary

PROJECT = Path(__file__).parents[3]


@pytest.fixture
def train(tmp_path, capsys):
    """Trains runs, with `pretend_to_train` by default; returns the failures and what was shown."""

    def run(runs, command=lambda run, interrupted: pretend_to_train(run, tmp_path), jobs=1):
        failures = TrainingPool(LogFolder(tmp_path), tmp_path / "output", jobs, command).train(runs)
        return failures, capsys.readouterr().err

    return run


def python(code, *arguments):
    return [sys.executable, "-c", code, *map(str, arguments)]


def test_what_is_missing_is_trained_and_what_is_finished_is_not(tmp_path, train):
    write_summary(tmp_path, wanted(seed=0), version=100)
    runs = [wanted(seed=0), wanted(seed=1), wanted("sgd", seed=0), wanted("sgd", seed=0)]

    failures, shown = train(runs)
    train(runs)

    assert failures == {}
    assert trained(tmp_path) == ["baseline 1", "sgd 0"]
    first, _, ended, _, last = shown.splitlines()
    assert first == "3 runs: 1 complete, 2 to train."
    assert ended.startswith("baseline seed 1: done, test accuracy 90.00 %. 1 of 2 runs, about 0:00:0")
    assert last == "sgd seed 0: done, test accuracy 90.00 %. 2 of 2 runs"


def test_jobs_train_at_the_same_time_with_their_part_of_the_threads(tmp_path, train, monkeypatch):
    monkeypatch.setenv("OMP_NUM_THREADS", "3")
    meeting = """
import os, pathlib, sys, time
folder, seed = pathlib.Path(sys.argv[1]), sys.argv[2]
(folder / seed).touch()
for _ in range(3000):
    if len(list(folder.iterdir())) == 3:
        sys.exit("threads " + os.environ["OMP_NUM_THREADS"])
    time.sleep(0.01)
sys.exit("Nobody came.")
"""
    (tmp_path / "met").mkdir()
    runs = [wanted(seed=seed) for seed in range(3)]

    failures, _ = train(runs, lambda run, interrupted: python(meeting, tmp_path / "met", run.seed), jobs=3)

    assert list(failures.values()) == ["threads 1"] * 3


def test_one_failure_does_not_keep_the_others_from_training(tmp_path, train):
    def command(run, interrupted):
        broken = python("import sys; print('more'); sys.exit('error: It broke.')")
        return broken if run.seed == 0 else pretend_to_train(run, tmp_path)

    failures, shown = train([wanted(seed=0), wanted(seed=1)], command)

    assert failures == {wanted(seed=0).digest: "It broke."}
    assert "baseline seed 0: FAILED: It broke." in shown
    assert trained(tmp_path) == ["baseline 1"]
    (log,) = (tmp_path / "output").glob("baseline-seed0-*.log")
    assert "more" in log.read_text()


@pytest.mark.parametrize(
    ("command", "reason"),
    [
        (["/nowhere/python"], "[Errno 2] No such file"),
        (python("print('error: No data.'); print('more'); raise SystemExit(1)"), "No data."),
        (python("raise OSError(28, 'No space left')"), "OSError: [Errno 28] No space left"),
        (python("print('usage:'); print('wrong option'); raise SystemExit(2)"), "wrong option"),
        (python("raise SystemExit(3)"), "status 3"),
        (python("import os; os.kill(os.getpid(), 9)"), "ended by SIGKILL (out of memory?)"),
        (python(""), "it left no summary under"),
    ],
)
def test_a_failure_has_a_reason_and_is_tried_again_next_time(tmp_path, train, command, reason):
    failures, _ = train([wanted()], lambda run, interrupted: command)

    assert failures[wanted().digest].startswith(reason)
    assert train([wanted()])[0] == {}
    assert trained(tmp_path) == ["baseline 0"]


def test_other_code_is_named_before_and_after_a_training(tmp_path, train):
    write_summary(tmp_path, wanted(code="older"), version=100)
    edited = pretend_to_train(wanted(code="edited"), tmp_path)

    failures, shown = train([wanted()], lambda run, interrupted: edited)

    assert "--any_code" in shown
    assert "the code was edited" in failures[wanted().digest]


def test_fit_is_told_the_variant_the_seed_and_the_log_folder(tmp_path):
    words = [*("-m", "fmnist_pl", "fit", "--variant", "baseline"), f"--trainer.logger.init_args.save_dir={tmp_path}"]

    assert fit_command(tmp_path, wanted(), None)[1:] == words
    assert fit_command(tmp_path, wanted(), tmp_path / "version_0")[1:] == [*words, f"--resume={tmp_path}/version_0"]


def test_an_interrupted_run_is_resumed_and_if_that_fails_trained_again_from_the_start(tmp_path, train):
    folder = begin(tmp_path, wanted())
    asked = []

    def command(run, interrupted):
        asked.append(interrupted)
        broken = python("import sys; sys.exit('error: The checkpoint is damaged.')")
        return broken if interrupted else pretend_to_train(run, tmp_path)

    failures, shown = train([wanted(), wanted(seed=1)], command)

    assert failures == {}
    assert asked == [folder, None, None]
    assert f"baseline seed 0: resumes from {folder}. Output:" in shown
    assert "cannot be resumed (The checkpoint is damaged.)" in shown
    assert trained(tmp_path) == ["baseline 0", "baseline 1"]


_COMPARISON = """
import pathlib, signal, sys
from fmnist_pl.compare.log_folder import LogFolder
from fmnist_pl.compare.training import TrainingPool
from tests.fmnist_pl.compare.made_runs import pretend_to_train, wanted

signal.signal(signal.SIGINT, signal.default_int_handler)  # which a shell's background jobs ignore
logdir = pathlib.Path(sys.argv[1])
pool = TrainingPool(LogFolder(logdir), logdir / "output", 1, lambda run, interrupted: pretend_to_train(run, logdir))
pool.train([wanted(seed=seed) for seed in range(3)])
"""
SEEDS = [wanted(seed=seed) for seed in range(3)]


@pytest.fixture
def comparison(tmp_path):
    """A comparison in a process of its own, in the middle of its second run; and the process of that."""
    (tmp_path / "wait").touch()
    environment = {**os.environ, "PYTHONPATH": f"{PROJECT}:{PROJECT / 'callbacks'}"}
    process = subprocess.Popen(python(_COMPARISON, tmp_path), env=environment, stderr=subprocess.DEVNULL)
    deadline = time.monotonic() + 60
    while not (pid := (tmp_path / "wait").read_text()).endswith("."):
        assert time.monotonic() < deadline
        time.sleep(0.02)
    yield process, int(pid.removesuffix("."))
    (tmp_path / "wait").unlink(missing_ok=True)
    process.kill()
    process.wait()


@pytest.mark.slow
def test_interrupted_it_ends_its_trainings_and_repeats_nothing(tmp_path, train, comparison):
    process, training = comparison
    process.send_signal(signal.SIGINT)
    process.wait(30)
    (tmp_path / "wait").unlink()

    with pytest.raises(ProcessLookupError):
        os.kill(training, 0)
    assert train(SEEDS)[0] == {}  # the lock is free
    assert trained(tmp_path) == ["baseline 0", "baseline 1", "baseline 2"]


@pytest.mark.slow
@pytest.mark.parametrize("killed", [True, False])
def test_a_run_that_another_process_trains_is_waited_for(tmp_path, train, comparison, killed):
    process, _ = comparison
    if killed:  # its training continues alone
        process.kill()

    def command(run, interrupted):
        (tmp_path / "wait").unlink()  # seed 2 is trained first, in spite of the order
        return pretend_to_train(run, tmp_path)

    failures, shown = train(SEEDS, command)
    process.wait(30)

    assert failures == {}
    assert sorted(trained(tmp_path)) == ["baseline 0", "baseline 1", "baseline 2"]
    assert shown.count("baseline seed 1: another process trains it") == 1
