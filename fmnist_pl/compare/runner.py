"""Trains the runs that are missing, several at a time if asked, whatever becomes of each."""

import contextlib
import os
import sys
import time
from collections import deque
from collections.abc import Callable, Sequence
from pathlib import Path

from fmnist_pl.compare.display import Display
from fmnist_pl.compare.environment import available_cpus, available_gpus, job_environment
from fmnist_pl.compare.figures import figures_of
from fmnist_pl.compare.finished import LogFolder
from fmnist_pl.compare.forecast import Forecast, duration
from fmnist_pl.compare.job import Job
from fmnist_pl.compare.locked_log import BusyError, LockedLog
from fmnist_pl.compare.wanted_run import WantedRun

_POLL_SECONDS = 0.2
Command = Callable[[WantedRun, Path | None], Sequence[str]]


def fit_command(logdir: Path) -> Command:
    """What makes the command line that trains a run into ``logdir``, or goes on with the one in a given folder."""

    def command(run: WantedRun, interrupted: Path | None) -> list[str]:
        resume = [] if interrupted is None else [f"--resume={interrupted}"]
        save = f"--trainer.logger.init_args.save_dir={logdir}"
        return [sys.executable, "-m", "fmnist_pl", "fit", *run.options, save, *resume]

    return command


class Runner:
    """Trains runs in ``jobs`` slots.

    Args:
        logs: Where runs leave their folders.
        run_logs: Folder of the processes' output.
        jobs: How many train at a time; threads and CUDA devices are divided among them.
        display: Takes the progress.
        command: Makes the command line of a run; see `fit_command`.
    """

    def __init__(self, logs: LogFolder, run_logs: Path, jobs: int, display: Display, command: Command) -> None:
        self.logs, self.run_logs, self.jobs, self.display, self.command = logs, run_logs, jobs, display, command
        self.forecast = Forecast()
        self.failures: dict[str, str] = {}
        self._slots: dict[int, Job] = {}
        self._waiting: deque[WantedRun] = deque()
        self._busy_elsewhere: set[str] = set()
        self._resumed: set[str] = set()
        self._total = 0

    def train(self, runs: Sequence[WantedRun]) -> dict[str, str]:
        """Train every run that is not finished.

        Returns:
            The reason of each run that failed, by digest. Runs of the same digest are trained once.

        Raises:
            UserError: If the package's code is edited meanwhile: runs of two versions make no table.
        """
        distinct = {run.digest: run for run in runs}
        for run in distinct.values():
            if (done := self.logs.finished(run)) is None:
                self._waiting.append(run)
            elif done.summary.get("seconds_per_epoch"):
                self.forecast.learn(run.name, done.summary["seconds_per_epoch"])
        self._total = len(distinct)
        missing = len(self._waiting)
        self.display.line(f"{self._total} runs: {self._total - missing} complete, {missing} to train.")
        if stale := sum(self.logs.of_other_code(run) for run in self._waiting):
            self.display.line(
                f"{stale} of those to train were finished by another version of the code or its libraries; "
                "`fmnist compare --any_code` accepts them as they are."
            )
        try:
            while self._waiting or self._slots:
                self._fill_slots()
                time.sleep(_POLL_SECONDS)
                self._look_at_jobs()
        finally:
            for job in self._slots.values():
                job.stop()
                job.close()
            self.display.close()
        return self.failures

    def _fill_slots(self) -> None:
        for slot in range(self.jobs):
            if slot not in self._slots:
                for _ in range(len(self._waiting)):
                    run = self._waiting.popleft()
                    if self._start(slot, run):
                        break

    def _start(self, slot: int, run: WantedRun) -> bool:
        """Whether the slot is taken now; a run that another process trains goes to the end of the queue."""
        path = self.run_logs / f"{run.name}-seed{run.seed}-{run.digest[:8]}.log"
        try:
            log = LockedLog(path)
        except BusyError:
            if run.digest not in self._busy_elsewhere:
                self._busy_elsewhere.add(run.digest)
                self.display.line(f"{run}: another process trains it; waiting for its result. Output: {path}")
            self._waiting.append(run)
            return False
        except OSError as error:
            self._failed(run, f"its log cannot be written: {error}")
            return False
        if self.logs.finished(run) is not None:  # by another process, since the plan was made
            log.close()
            self.display.line(f"{run}: done by another process. {self._left()}")
            return False
        gpus = available_gpus() if self.jobs > 1 else []
        environment = job_environment(slot, self.jobs, available_cpus(), gpus, os.environ)
        interrupted = None if run.digest in self._resumed else self.logs.interrupted(run)
        try:
            job = Job(run, self.command(run, interrupted), log, environment, resumed=interrupted is not None)
        except OSError as error:
            log.close()
            self._failed(run, f"it cannot be started: {error}")
            return False
        self._slots[slot] = job
        if interrupted is not None:
            self._resumed.add(run.digest)
        begun = "started" if interrupted is None else f"goes on with {interrupted}"
        self.display.line(f"{run}: {begun}. Output: {path}")
        return True

    def _look_at_jobs(self) -> None:
        for slot, job in list(self._slots.items()):
            seen = len(job.epoch_seconds)
            ended = job.poll()
            for seconds in job.epoch_seconds[seen:]:
                self.forecast.learn(job.run.name, seconds)
            if ended:
                del self._slots[slot]
                self._ended(job)
        self.display.status(self._status())

    def _ended(self, job: Job) -> None:
        run, failure = job.run, job.failure()
        finished = self.logs.finished(run) if failure is None else None
        with contextlib.suppress(OSError):
            job.close()
        if failure is not None and job.resumed:
            self.display.line(f"{run}: could not go on ({failure}); it will be trained anew")
            self._waiting.appendleft(run)
        elif failure is not None:
            self._failed(run, failure)
        elif finished is None:
            edited = self.logs.of_other_code(run)
            reason = "the package's code was edited since this comparison began; repeat the command"
            self._failed(run, reason if edited else f"ended without leaving a summary under {self.logs.path}")
        elif finished.failure is not None:
            self.display.line(f"{run}: FAILED: {finished.failure}")
        else:
            test = figures_of(finished.summary)["test_accuracy"]
            figure = "" if test is None else f", test accuracy {100 * test:.2f} %"
            self.display.line(f"{run}: done{figure}. {self._left()}")

    def _failed(self, run: WantedRun, reason: str) -> None:
        self.failures[run.digest] = reason
        self.display.line(f"{run}: FAILED: {reason}")

    def _status(self) -> str:
        training = ", ".join(f"{job.run} epoch {job.epochs_done}/{job.run.epochs}" for job in self._slots.values())
        return f"{training or 'waiting'} | {self._left()}"

    def _left(self) -> str:
        unfinished = [(job.run, job.epochs_done) for job in self._slots.values()]
        unfinished += [(run, 0) for run in self._waiting]
        done = f"{self._total - len(unfinished)} of {self._total} runs"
        seconds = self.forecast.seconds_left(unfinished, self.jobs)
        if not unfinished or seconds is None:
            return done
        return f"{done}, about {duration(seconds)} left"
