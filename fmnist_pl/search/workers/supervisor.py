"""Runs a search: hands trials to workers, and writes down how they end."""

import time
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml

from fmnist_pl.compare.display import Display
from fmnist_pl.search.ledger import Begun, Ledger
from fmnist_pl.search.study import Settings
from fmnist_pl.search.workers import job, progress
from fmnist_pl.search.workers.crew import Crew, StartWorker
from training_health.durable_file import replace_durably
from training_health.errors import UserError

_TICK_SECONDS, _LOOK_SECONDS = 0.5, 5.0
_MOST_FAILURES_IN_A_ROW = 3


@dataclass
class _Training:
    """A trial that a worker trains: what is known of it."""

    begun: Begun
    epochs: int = 0
    accuracy: float | None = None


class Supervisor:
    """Has the trials of a study trained, several at a time if asked.

    Args:
        ledger: Of the study.
        settings: Of the study.
        folder: Takes the trials' configurations and runs, and the workers' output.
        jobs: How many trials train here at a time.
        target: How many trials the study shall have in the end, those of all its searches together.
        display: Takes the progress.
        start_worker: See `fmnist_pl.search.workers.crew.worker_starter`.
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
        self.display = display
        self._crew = Crew(folder / "output", ledger.presence.token[:8], start_worker)
        self._training: dict[int, _Training] = {}  # by the worker's place
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
        if self._training and time.monotonic() - self._looked < _LOOK_SECONDS:
            return False
        self._looked = time.monotonic()
        for number in self.ledger.retire_dead():
            self.display.line(f"trial {number}: its search was killed; it is tried again")
        return self.ledger.tally().finished >= self.target and not self._training

    def _fill(self) -> None:
        for place in range(self.jobs):
            if place not in self._training:
                begun = self.ledger.begin(self.target)
                if begun is None:
                    return
                self._training[place] = _Training(begun)
                self._crew.give(place, self._job(begun))

    def _job(self, begun: Begun) -> job.TrialJob:
        """Write the trial's configuration and describe its training.

        Raises:
            UserError: It cannot be written.
        """
        overlay = self.folder / "configurations" / f"trial_{begun.number:04}.yaml"
        head = f"# Trial {begun.number} of the search {self.ledger.study.study_name}.\n"
        try:
            replace_durably(overlay, (head + yaml.safe_dump(begun.overlay, sort_keys=False)).encode())
        except OSError as error:
            raise UserError(
                f"{overlay} cannot be written: {error.strerror or error}. Make room and repeat the command: finished "
                "trials are not repeated."
            ) from error
        settings = self.settings
        images = () if settings.subset is None else (f"--data.training_images={settings.subset}",)
        options = (f"--data.dataset={settings.data}", *images, *settings.options)
        return job.TrialJob(begun.number, str(overlay), str(self.folder), settings.epochs, settings.seed, options)

    def _listen(self) -> None:
        for place, message in self._crew.listen(_TICK_SECONDS):
            training = self._training.get(place)
            if message is None:
                self._worker_ended(place, training)
            elif training is not None and message["kind"] == job.EPOCH:
                training.epochs, training.accuracy = message["epoch"] + 1, message["accuracy"]
                hopeless = self.ledger.report(training.begun.number, message["epoch"], message["accuracy"])
                self._crew.answer(place, {"prune": hopeless})
            elif training is not None:
                del self._training[place]
                self._trial_ended(place, training, message)
        epochs = {training.begun.number: training.epochs for training in self._training.values()}
        standing = progress.standing(self.ledger.trials(), self.target, self.jobs)
        self.display.status(f"{progress.running(epochs, self.settings.epochs)} | {standing}")

    def _trial_ended(self, place: int, training: _Training, message: Mapping[str, Any]) -> None:
        number, kind, figures = training.begun.number, message["kind"], message.get("figures", {})
        if kind == job.ERROR:
            self._crew.dismiss(place)  # an exception that nobody foresaw may have left anything behind
            self._error(place, number, str(message["reason"]), mendable=bool(message["mendable"]))
            return
        self._failures_in_a_row = 0
        if kind == job.DONE:
            counted = self.ledger.finish(number, figures, message["value"])
            ended = f"{progress.percent(message['value'])}, {training.begun.parameters:,} parameters"
        elif kind == job.PRUNED:
            counted = self.ledger.finish(number, figures, None)
            accuracy = progress.percent(training.accuracy)
            ended = f"pruned after epoch {training.epochs} of {self.settings.epochs} at {accuracy}"
        else:
            counted = self.ledger.fail(number, message["reason"], figures)
            ended = f"FAILED: {message['reason']}"
        self._say(number, ended if counted else f"{ended}; not counted, for another search took this one for dead")

    def _error(self, place: int, number: int, reason: str, *, mendable: bool) -> None:
        if mendable:
            self.ledger.lose(number, reason)
            raise UserError(f"Trial {number} cannot be trained, nor could any other be: {reason}")
        self.ledger.fail(number, reason)
        self._say(number, f"FAILED: {reason}")
        self._count_failure(place, reason)

    def _worker_ended(self, place: int, training: _Training | None) -> None:
        reason = self._crew.reason(place) if training else ""
        self._crew.dismiss(place)
        if training is None:
            return
        del self._training[place]
        number = training.begun.number
        again = self.ledger.crashed(number, reason)
        self._say(
            number, f"its process {reason}; it is tried again" if again else f"FAILED: its process {reason} again"
        )
        if not again:
            self._count_failure(place, reason)

    def _count_failure(self, place: int, reason: str) -> None:
        self._failures_in_a_row += 1
        if self._failures_in_a_row >= _MOST_FAILURES_IN_A_ROW:
            raise UserError(
                f"The last {self._failures_in_a_row} trials failed, so the search stops. The last one: {reason} "
                f"Output: {self._crew.log(place)}. The trials before are kept; mend the cause and repeat the command."
            )

    def _say(self, number: int, text: str) -> None:
        self.display.line(f"trial {number}: {text}. {progress.standing(self.ledger.trials(), self.target, self.jobs)}")

    def _stop(self) -> None:
        """End the workers; what they were training waits to be tried again."""
        self._crew.dismiss_all()
        self.display.close()
        for training in self._training.values():
            self.ledger.lose(training.begun.number, "the search was stopped")
