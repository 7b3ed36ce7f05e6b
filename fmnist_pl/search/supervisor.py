"""Runs a search: hands trials to workers, takes their results, replaces workers that die."""

import os
import selectors
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml

from fmnist_pl.checkpoints.durable_file import replace_durably
from fmnist_pl.compare.display import Display
from fmnist_pl.compare.environment import available_cpus, available_gpus, job_environment
from fmnist_pl.errors import UserError
from fmnist_pl.search import job, progress
from fmnist_pl.search.ledger import Begun, Ledger
from fmnist_pl.search.study import Settings
from fmnist_pl.search.worker_process import WorkerProcess

_TICK_SECONDS, _LOOK_SECONDS = 0.5, 5.0
_MOST_FAILURES_IN_A_ROW = 3
StartWorker = Callable[[int, Path], WorkerProcess]


@dataclass
class _Slot:
    """A place for one worker."""

    worker: WorkerProcess
    trial: Begun | None = None
    epochs: int = 0
    accuracy: float | None = None


def worker_starter(jobs: int, command: list[str]) -> StartWorker:
    """What starts the worker of a slot with its share of the threads and GPUs, its output in the given log."""
    cpus = available_cpus()
    gpus = available_gpus() if jobs > 1 else []

    def start(slot: int, log: Path) -> WorkerProcess:
        return WorkerProcess(command, log, job_environment(slot, jobs, cpus, gpus, os.environ))

    return start


class Supervisor:
    """Has the trials of a study trained, several at a time if asked.

    Args:
        ledger: Of the study.
        settings: Of the study.
        folder: Takes the trials' configurations and runs, and the workers' output.
        jobs: How many trials train here at a time.
        target: How many trials the study shall have in the end, those of all its searches together.
        display: Takes the progress.
        start_worker: See `worker_starter`.
    """

    def __init__(
        self,
        ledger: Ledger,
        settings: Settings,
        folder: Path,
        jobs: int,
        target: int,
        display: Display,
        start_worker: StartWorker,
    ) -> None:
        self.ledger, self.settings, self.folder, self.jobs, self.target = ledger, settings, folder, jobs, target
        self.display, self.start_worker = display, start_worker
        self._slots: dict[int, _Slot] = {}
        self._selector = selectors.DefaultSelector()
        self._failures_in_a_row = 0
        self._looked = 0.0

    def run(self) -> None:
        """Search until the study has its trials, here or elsewhere; an exception leaves it ready to go on.

        Raises:
            UserError: If no trial could be trained, or the storage fails.
        """
        with self.ledger.storage.explained():
            try:
                while not self._is_over():
                    self._fill()
                    self._listen()
                    self.ledger.beat()
            finally:
                self._stop()

    def _is_over(self) -> bool:
        """Look for trials of dead searches, and whether there is anything left to do or to wait for."""
        if any(slot.trial for slot in self._slots.values()) and time.monotonic() - self._looked < _LOOK_SECONDS:
            return False
        self._looked = time.monotonic()
        for number in self.ledger.retire_dead():
            self.display.line(f"trial {number}: its search was killed; it is tried again")
        return self.ledger.tally().finished >= self.target and not any(slot.trial for slot in self._slots.values())

    def _fill(self) -> None:
        for number in range(self.jobs):
            slot = self._slots.get(number)
            if slot is not None and slot.trial is not None:
                continue
            begun = self.ledger.begin(self.target)
            if begun is None:
                return
            path = self._write_overlay(begun)
            if slot is None or slot.worker.has_ended():
                slot = self._start(number)
            slot.trial, slot.epochs, slot.accuracy = begun, 0, None
            settings = self.settings
            slot.worker.send(
                job.TrialJob(
                    begun.number, str(path), str(self.folder), settings.epochs, settings.seed, self._fit_options()
                )
            )

    def _fit_options(self) -> tuple[str, ...]:
        subset = self.settings.subset
        images = () if subset is None else (f"--data.training_images={subset}",)
        return (f"--data.dataset={self.settings.data}", *images, *self.settings.options)

    def _start(self, number: int) -> _Slot:
        self._close(number)
        log = self.folder / "output" / f"{self.ledger.presence.token[:8]}-{number}.log"
        try:
            worker = self.start_worker(number, log)
        except OSError as error:
            raise UserError(f"A worker cannot be started: {error}") from error
        slot = self._slots[number] = _Slot(worker)
        self._selector.register(worker, selectors.EVENT_READ, number)
        return slot

    def _write_overlay(self, begun: Begun) -> Path:
        path = self.folder / "configurations" / f"trial_{begun.number:04}.yaml"
        head = f"# Trial {begun.number} of the search {self.ledger.study.study_name}.\n"
        replace_durably(path, (head + yaml.safe_dump(begun.overlay, sort_keys=False)).encode())
        return path

    def _listen(self) -> None:
        if not self._slots:
            time.sleep(_TICK_SECONDS)  # other searches have the last trials
        for key, _ in self._selector.select(_TICK_SECONDS):
            number: int = key.data
            slot = self._slots[number]
            ended = slot.worker.has_ended()  # asked first, so that nothing it said is missed
            for message in slot.worker.messages():
                self._hear(number, slot, message)
            if ended:
                self._worker_ended(number, slot)
        epochs = {slot.trial.number: slot.epochs for slot in self._slots.values() if slot.trial}
        standing = progress.standing(self.ledger.trials(), self.target, self.jobs)
        self.display.status(f"{progress.running(epochs, self.settings.epochs)} | {standing}")

    def _hear(self, place: int, slot: _Slot, message: Mapping[str, Any]) -> None:
        assert slot.trial is not None, message
        if message["kind"] == job.EPOCH:
            slot.epochs, slot.accuracy = message["epoch"] + 1, message["accuracy"]
            slot.worker.send({"prune": self.ledger.report(slot.trial.number, message["epoch"], message["accuracy"])})
            return
        begun, slot.trial = slot.trial, None
        number, figures = begun.number, message.get("figures", {})
        if message["kind"] == job.ERROR:
            self._close(place)  # an exception that nobody foresaw may have left anything behind
            self._error(slot.worker.log, number, str(message["reason"]), mendable=bool(message["mendable"]))
            return
        self._failures_in_a_row = 0
        if message["kind"] == job.DONE:
            counted = self.ledger.finish(number, figures, message["value"])
            ended = f"{progress.percent(message['value'])}, {begun.trial.user_attrs['parameters']:,} parameters"
        elif message["kind"] == job.PRUNED:
            counted = self.ledger.finish(number, figures, None)
            ended = f"pruned after epoch {slot.epochs} of {self.settings.epochs} at {progress.percent(slot.accuracy)}"
        else:
            counted = self.ledger.fail(number, message["reason"], figures)
            ended = f"FAILED: {message['reason']}"
        self._say(number, ended if counted else f"{ended}; not counted, for another search took this one for dead")

    def _error(self, log: Path, number: int, reason: str, *, mendable: bool) -> None:
        if mendable:
            self.ledger.lose(number, reason)
            raise UserError(f"Trial {number} cannot be trained, nor could any other be: {reason}")
        self.ledger.fail(number, reason)
        self._say(number, f"FAILED: {reason}")
        self._count_failure(reason, log)

    def _worker_ended(self, place: int, slot: _Slot) -> None:
        self._close(place)
        if slot.trial is None:
            return
        reason, trial = slot.worker.reason(), slot.trial.number
        again = self.ledger.crashed(trial, reason)
        self._say(trial, f"its process {reason}; it is tried again" if again else f"FAILED: its process {reason} again")
        if not again:
            self._count_failure(reason, slot.worker.log)

    def _count_failure(self, reason: str, log: Path) -> None:
        self._failures_in_a_row += 1
        if self._failures_in_a_row >= _MOST_FAILURES_IN_A_ROW:
            raise UserError(
                f"The last {self._failures_in_a_row} trials failed, so the search stops. The last one: {reason} "
                f"Output: {log}. The trials before are kept; mend the cause and repeat the command."
            )

    def _say(self, number: int, text: str) -> None:
        self.display.line(f"trial {number}: {text}. {progress.standing(self.ledger.trials(), self.target, self.jobs)}")

    def _close(self, number: int) -> None:
        slot = self._slots.pop(number, None)
        if slot is not None:
            self._selector.unregister(slot.worker)
            slot.worker.stop()

    def _stop(self) -> None:
        """End the workers; what they were training waits to be tried again."""
        begun = [slot.trial for slot in self._slots.values() if slot.trial]
        for number in list(self._slots):
            self._close(number)
        self._selector.close()
        self.display.close()
        for trial in begun:
            self.ledger.lose(trial.number, "the search was stopped")
