"""Training what is missing, with commands that only pretend."""

import io
import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from fmnist_pl.compare.display import Display
from fmnist_pl.compare.finished import LogFolder
from fmnist_pl.compare.runner import Runner, fit_command
from tests.fmnist_pl.compare.made_runs import pretend_to_train, trained, wanted, write_summary
from training_health.errors import UserError

PROJECT = Path(__file__).parents[3]


@pytest.fixture(autouse=True)
def nobody_edits_the_code(monkeypatch):
    monkeypatch.setattr("fmnist_pl.compare.runner.code_is_unchanged", lambda: True)


def train(logdir, runs, command=None, jobs=1, stream=None):
    stream = stream or io.StringIO()
    logs = LogFolder(logdir)
    command = command or (lambda run, interrupted: pretend_to_train(run, logdir))
    failures = Runner(logs, logdir / "output", jobs, Display(stream), command).train(runs)
    return failures, stream.getvalue()


def test_what_is_missing_is_trained_and_what_is_finished_is_not(tmp_path):
    write_summary(tmp_path, wanted(seed=0), version=100)

    failures, shown = train(tmp_path, [wanted(seed=0), wanted(seed=1), wanted("sgd", seed=0)])

    assert failures == {}
    assert trained(tmp_path) == ["baseline 1", "sgd 0"]
    assert shown.startswith("3 runs: 1 complete, 2 to train.\n")


def test_progress_names_the_figure_and_the_time_left(tmp_path):
    _, shown = train(tmp_path, [wanted(seed=0), wanted(seed=1)])

    assert "baseline seed 0: done, test accuracy 90.00 %. 1 of 2 runs, about 1 s left\n" in shown
    assert shown.endswith("baseline seed 1: done, test accuracy 90.00 %. 2 of 2 runs\n")


def test_a_second_time_nothing_is_trained(tmp_path):
    train(tmp_path, [wanted()])
    train(tmp_path, [wanted()])

    assert trained(tmp_path) == ["baseline 0"]


def test_two_names_of_one_run_are_trained_once(tmp_path):
    train(tmp_path, [wanted(), wanted()])

    assert trained(tmp_path) == ["baseline 0"]


_MEETING = """
import pathlib, sys, time
folder, name, company = pathlib.Path(sys.argv[1]), sys.argv[2], int(sys.argv[3])
folder.mkdir(exist_ok=True)
(folder / name).touch()
deadline = time.monotonic() + 30
while len(list(folder.iterdir())) < company:
    if time.monotonic() > deadline:
        sys.exit("error: Nobody came.")
    time.sleep(0.01)
"""


def test_jobs_train_at_the_same_time(tmp_path):
    def command(run, interrupted):
        return [sys.executable, "-c", _MEETING, str(tmp_path / "met"), str(run.seed), "3"]

    failures, _ = train(tmp_path, [wanted(seed=seed) for seed in range(3)], command, jobs=3)

    assert set(failures.values()) == {f"ended without leaving a summary under {tmp_path}"}  # not: "Nobody came."


def test_one_failure_does_not_keep_the_others_from_training(tmp_path):
    def command(run, interrupted):
        broken = [sys.executable, "-c", "import sys; sys.exit('error: It broke.')"]
        return broken if run.seed == 0 else pretend_to_train(run, tmp_path)

    failures, shown = train(tmp_path, [wanted(seed=0), wanted(seed=1)], command)

    assert failures == {wanted(seed=0).digest: "It broke."}
    assert "baseline seed 0: FAILED: It broke." in shown
    assert trained(tmp_path) == ["baseline 1"]


def test_a_failed_run_is_tried_again_next_time(tmp_path):
    train(tmp_path, [wanted()], lambda run, interrupted: [sys.executable, "-c", "import sys; sys.exit(1)"])
    failures, _ = train(tmp_path, [wanted()])

    assert failures == {}
    assert trained(tmp_path) == ["baseline 0"]


def test_a_command_that_does_not_exist_is_a_failure(tmp_path):
    failures, _ = train(tmp_path, [wanted()], lambda run, interrupted: [str(tmp_path / "nothing")])

    assert "it cannot be started: [Errno 2] No such file" in failures[wanted().digest]


def test_a_training_that_leaves_no_summary_is_a_failure(tmp_path):
    failures, _ = train(tmp_path, [wanted()], lambda run, interrupted: [sys.executable, "-c", ""])

    assert failures == {wanted().digest: f"ended without leaving a summary under {tmp_path}"}


def test_code_that_was_edited_meanwhile_is_named(tmp_path):
    edited = pretend_to_train(wanted(code="edited"), tmp_path)

    failures, _ = train(tmp_path, [wanted()], lambda run, interrupted: edited)

    reason = "the package's code was edited since this comparison began; repeat the command"
    assert failures == {wanted().digest: reason}


def test_edited_code_ends_the_comparison_before_the_next_run(tmp_path, monkeypatch):
    answers = iter([True, False])
    monkeypatch.setattr("fmnist_pl.compare.runner.code_is_unchanged", lambda: next(answers))

    with pytest.raises(UserError, match="The package's code was edited since this comparison began"):
        train(tmp_path, [wanted(seed=0), wanted(seed=1)])

    assert trained(tmp_path) == ["baseline 0"]


def test_a_log_that_cannot_be_written_is_a_failure(tmp_path):
    (tmp_path / "output").write_text("in the way")

    failures, _ = train(tmp_path, [wanted()])

    assert "its log cannot be written: [Errno 17] File exists" in failures[wanted().digest]


def test_runs_of_other_code_are_announced(tmp_path):
    write_summary(tmp_path, wanted(code="older"), version=100)

    _, shown = train(tmp_path, [wanted(code="newer")])

    assert "1 of those to train were finished by another version of the code" in shown


# The training of seed 1 notes that it has begun, and goes on only when told: no clock decides who is first.
_HELD = """
import os, pathlib, sys, time
logdir, *training = sys.argv[1:]
pathlib.Path(logdir, "begun").touch()
deadline = time.monotonic() + 60
while not pathlib.Path(logdir, "go_on").exists():
    if time.monotonic() > deadline:
        sys.exit("error: Nobody said to go on.")
    time.sleep(0.01)
os.execv(training[0], training)
"""

_COMPARISON = """
import sys
from pathlib import Path
from fmnist_pl.compare.display import Display
from fmnist_pl.compare.finished import LogFolder
from fmnist_pl.compare.runner import Runner
from tests.fmnist_pl.compare.made_runs import pretend_to_train, wanted
logdir, held = Path(sys.argv[1]), sys.argv[2]

def command(run, interrupted):
    training = pretend_to_train(run, logdir)
    return [sys.executable, "-c", held, str(logdir), *training] if run.seed == 1 else training

Runner(LogFolder(logdir), logdir / "output", 1, Display(), command).train([wanted(seed=seed) for seed in range(3)])
"""


class GoOnOnceWaitedFor(io.StringIO):
    """Lets the held training go on when it is said that another process trains it."""

    def __init__(self, logdir):
        super().__init__()
        self.logdir = logdir

    def write(self, text):
        if "another process trains it" in text:
            (self.logdir / "go_on").touch()
        return super().write(text)


def start_comparison(logdir):
    environment = {**os.environ, "PYTHONPATH": str(PROJECT), "OMP_NUM_THREADS": "1"}
    command = [sys.executable, "-c", _COMPARISON, str(logdir), _HELD]
    return subprocess.Popen(command, env=environment, stderr=subprocess.PIPE)


def wait_for(condition):
    deadline = time.monotonic() + 60
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(0.02)


def test_killed_in_mid_run_and_restarted_it_repeats_nothing(tmp_path):
    comparison = start_comparison(tmp_path)
    wait_for((tmp_path / "begun").exists)
    comparison.send_signal(signal.SIGKILL)  # its training of seed 1 goes on alone
    comparison.communicate()

    failures, shown = train(tmp_path, [wanted(seed=seed) for seed in range(3)], stream=GoOnOnceWaitedFor(tmp_path))

    assert failures == {}
    assert sorted(trained(tmp_path)) == ["baseline 0", "baseline 1", "baseline 2"]
    assert "baseline seed 1: another process trains it; waiting for its result." in shown


def test_fit_is_told_the_variant_the_seed_and_the_log_folder(tmp_path):
    words = [*("-m", "fmnist_pl", "fit", "--variant", "baseline"), f"--trainer.logger.init_args.save_dir={tmp_path}"]

    assert fit_command(tmp_path)(wanted(), None)[1:] == words
    assert fit_command(tmp_path)(wanted(), tmp_path / "version_0")[1:] == [*words, f"--resume={tmp_path}/version_0"]


def begin(logdir, run):
    folder = logdir / run.name / "version_50"
    (folder / "checkpoints").mkdir(parents=True)
    (folder / "checkpoints" / "last.ckpt").touch()
    (folder / "identity.json").write_text(json.dumps(run.identity))
    return folder


def test_an_interrupted_run_is_gone_on_with(tmp_path):
    folder = begin(tmp_path, wanted())
    asked = []

    def command(run, interrupted):
        asked.append(interrupted)
        return pretend_to_train(run, tmp_path)

    _, shown = train(tmp_path, [wanted(), wanted(seed=1)], command)

    assert asked == [folder, None]
    assert f"baseline seed 0: goes on with {folder}. Output:" in shown


def test_a_run_that_cannot_be_gone_on_with_is_trained_anew_once(tmp_path):
    begin(tmp_path, wanted())

    def command(run, interrupted):
        broken = [sys.executable, "-c", "import sys; sys.exit('error: The checkpoint is damaged.')"]
        return broken if interrupted else pretend_to_train(run, tmp_path)

    failures, shown = train(tmp_path, [wanted()], command)

    assert failures == {}
    assert trained(tmp_path) == ["baseline 0"]
    assert "baseline seed 0: could not go on (The checkpoint is damaged.); it will be trained anew" in shown


class InterruptedDisplay(Display):
    def line(self, text):
        if "started" in text:
            raise KeyboardInterrupt


def test_when_the_comparison_is_interrupted_its_trainings_end(tmp_path):
    logs = LogFolder(tmp_path)
    forever = [sys.executable, "-c", "import time; time.sleep(60)"]
    runner = Runner(logs, tmp_path / "output", 1, InterruptedDisplay(io.StringIO()), lambda run, interrupted: forever)
    started = time.monotonic()

    with pytest.raises(KeyboardInterrupt):
        runner.train([wanted()])

    assert time.monotonic() - started < 20
    assert train(tmp_path, [wanted()])[0] == {}  # the lock is free
