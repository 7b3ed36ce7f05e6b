"""Trains the runs that are missing, each as a process of its own, several at a time if asked."""

import contextlib
import os
import re
import subprocess
import sys
import threading
import time
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import FIRST_EXCEPTION, ThreadPoolExecutor, wait
from datetime import timedelta
from pathlib import Path
from statistics import fmean

from filelock import FileLock, Timeout

from fmnist_pl.compare.log_folder import LogFolder, WantedRun
from fmnist_pl.compare.run_metrics import BY_KEY
from fmnist_pl.process import PARENT, ended_by, slot_environment
from training_health.errors import UserError

try:
    import fcntl
except ImportError:  # Windows
    fcntl = None  # type: ignore[assignment]

Command = Callable[[WantedRun, Path | None], Sequence[str]]
_POLL_SECONDS = 0.2
_STOP_SECONDS = 30.0  # that a run has to end itself when it is told to


def fit_command(logdir: Path, run: WantedRun, interrupted: Path | None) -> list[str]:
    """The command line that trains a run into ``logdir``, or resumes what an interrupted one left in its folder."""
    resume = [] if interrupted is None else [f"--resume={interrupted}"]
    save = f"--trainer.logger.init_args.save_dir={logdir}"
    return [sys.executable, "-m", "fmnist_pl", "fit", *run.options, save, *resume]


class TrainingPool:
    """Trains runs in ``jobs`` slots; each slot is a thread that starts one process after the other.

    What the processes print goes into files of ``output``, a line for each start and end to standard error.
    ``command`` makes the command line of a run from the run and the folder to resume, if any.
    """

    def __init__(self, logs: LogFolder, output: Path, jobs: int, command: Command) -> None:
        self.logs, self.output, self.jobs, self.command = logs, output, jobs, command
        self.failures: dict[str, str] = {}
        self._waiting: deque[WantedRun] = deque()
        self._busy_elsewhere: set[str] = set()
        self._missing, self._ended = 0, 0
        self._seconds: list[float] = []  # that each process took
        self._guard = threading.Lock()  # of what follows
        self._processes: set[subprocess.Popen[bytes]] = set()
        self._stopping = False

    def train(self, runs: Sequence[WantedRun]) -> dict[str, str]:
        """Train every run that is not finished; one that another process trains is waited for.

        Whatever exception ends this, Ctrl-C among them, ends the processes too.

        Returns:
            The reason of each run that failed, by digest. Runs of the same digest are trained once.
        """
        distinct = {run.digest: run for run in runs}
        self._waiting.extend(run for run in distinct.values() if self.logs.finished(run) is None)
        self._missing = len(self._waiting)
        _say(f"{len(distinct)} runs: {len(distinct) - self._missing} complete, {self._missing} to train.")
        if stale := sum(map(self.logs.of_other_code, self._waiting)):
            _say(
                f"{stale} of those to train were finished by another version of the code or its libraries; "
                "`fmnist compare --any_code` accepts them as they are."
            )
        pool = ThreadPoolExecutor(self.jobs)
        try:
            slots = [pool.submit(self._work, slot) for slot in range(self.jobs)]
            for slot in wait(slots, return_when=FIRST_EXCEPTION).done:
                slot.result()
        finally:
            with self._guard:
                self._stopping = True
                processes = list(self._processes)
            for process in processes:
                process.terminate()  # all of them, before the first is waited for
            for process in processes:
                with contextlib.suppress(subprocess.TimeoutExpired):
                    process.wait(_STOP_SECONDS)
                process.kill()  # does nothing to one that has ended
            pool.shutdown()
        return self.failures

    def _work(self, slot: int) -> None:
        """Train one waiting run after the other."""
        while not self._stopping:
            try:
                run = self._waiting.popleft()
            except IndexError:
                return
            try:
                with _locked(self.logs.path / ".locks" / run.digest) as lock:
                    outcome = self._train(run, slot, lock)
            except BlockingIOError:
                if run.digest not in self._busy_elsewhere:
                    self._busy_elsewhere.add(run.digest)
                    _say(f"{run}: another process trains it; waiting for its result.")
                self._waiting.append(run)
                time.sleep(_POLL_SECONDS)
                continue
            except (UserError, OSError) as error:
                self.failures[run.digest] = str(error)
                outcome = f"FAILED: {error}"
            if not self._stopping:
                _say(f"{run}: {outcome}. {self._count_ended()}")

    def _train(self, run: WantedRun, slot: int, lock: list[int]) -> str:
        """Train a run whose lock is held; what came of it. UserError if it failed."""
        if self.logs.finished(run) is not None:
            return "done by another process"
        interrupted = self.logs.interrupted(run)
        try:
            self._fit(run, slot, lock, interrupted)
        except UserError as error:
            if interrupted is None or self._stopping:
                raise
            _say(f"{run}: it cannot be resumed ({error}); it is trained again from the start.")
            self._fit(run, slot, lock, None)
        result = self.logs.finished(run)
        if result is None and self.logs.of_other_code(run):
            raise UserError("the code was edited since this comparison began; repeat the command")
        if result is None or result.failure is not None:
            raise UserError(f"it left no summary under {self.logs.path}" if result is None else str(result.failure))
        test = result.metrics["test_accuracy"]
        return "done" if test is None else f"done, test accuracy {BY_KEY['test_accuracy'].shown(test)} %"

    def _fit(self, run: WantedRun, slot: int, lock: list[int], interrupted: Path | None) -> None:
        """Run a run's command to its end; UserError if it failed."""
        self.output.mkdir(parents=True, exist_ok=True)
        path = self.output / f"{run.name}-seed{run.seed}-{run.digest[:8]}.log"
        start = time.monotonic()
        with path.open("wb") as log, self._guard:
            if self._stopping:
                return
            process = subprocess.Popen(
                self.command(run, interrupted),
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=subprocess.STDOUT,
                env={
                    **slot_environment(slot, self.jobs),
                    PARENT: str(os.getpid()),
                },  # killed, it takes the training along
                pass_fds=lock,  # until that has ended, it holds the lock
                process_group=0,  # Ctrl-C reaches this process alone, which ends the training
            )
            self._processes.add(process)
        _say(f"{run}: {f'resumes from {interrupted}' if interrupted else 'started'}. Output: {path}")
        process.wait()
        with self._guard:
            self._processes.remove(process)
            self._seconds.append(time.monotonic() - start)
        if process.returncode != 0:
            raise UserError(ended_by(process.returncode) or last_words(path) or f"status {process.returncode}")

    def _count_ended(self) -> str:
        """How many runs have ended, one more by now, and about how long the others will take."""
        with self._guard:
            self._ended += 1
            left = self._missing - self._ended
            seconds = fmean(self._seconds or [0]) * left / min(self.jobs, left or 1)
        text = f"{self._ended} of {self._missing} runs"
        return f"{text}, about {timedelta(seconds=round(seconds))} left" if left else text


def _say(line: str) -> None:
    print(line, file=sys.stderr, flush=True)


def last_words(log: Path) -> str:
    """The message that a failed process ended with: its ``error:`` line, else the exception, else its last line."""
    lines = [line.strip() for line in log.read_text("utf-8", errors="replace").splitlines() if line.strip()]
    errors = [line.removeprefix("error: ") for line in lines if line.startswith("error: ")]
    exceptions = [line for line in lines if re.match(r"^(\w+\.)*\w*(Error|Exception|Interrupt)\b", line)]
    return (errors or exceptions or lines or [""])[-1][:300]


@contextlib.contextmanager
def _locked(path: Path) -> Iterator[list[int]]:
    """Hold a lock; BlockingIOError if another process does. Gives the file that a child inherits to hold it too."""
    path.parent.mkdir(parents=True, exist_ok=True)
    if fcntl is None:  # no file that could be inherited
        try:
            with FileLock(path, timeout=0):
                yield []
        except Timeout:
            raise BlockingIOError(f"{path} is locked") from None
        return
    with path.open("ab") as file:
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        yield [file.fileno()]
