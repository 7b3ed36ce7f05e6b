"""The workers of a search: started when there is work for them, replaced when they die."""

import os
import selectors
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from fmnist_pl.compare.environment import available_cpus, available_gpus, job_environment
from fmnist_pl.search.workers.job import TrialJob
from fmnist_pl.search.workers.worker_process import WorkerProcess
from training_health.errors import UserError

StartWorker = Callable[[int, Path], WorkerProcess]


def worker_starter(jobs: int, command: Sequence[str]) -> StartWorker:
    """What starts the worker of a place with its share of the threads and GPUs, its output in the given log."""
    cpus = available_cpus()
    gpus = available_gpus() if jobs > 1 else []

    def start(place: int, log: Path) -> WorkerProcess:
        return WorkerProcess(command, log, job_environment(place, jobs, cpus, gpus, os.environ))

    return start


class Crew:
    """One worker at most in each of the places 0, 1, ...

    Args:
        logs: Folder of their output.
        name: What begins the names of their logs, so that those of several searches differ.
        start: See `worker_starter`.
    """

    def __init__(self, logs: Path, name: str, start: StartWorker) -> None:
        self.logs, self.name, self.start = logs, name, start
        self._workers: dict[int, WorkerProcess] = {}
        self._selector = selectors.DefaultSelector()

    def give(self, place: int, trial: TrialJob) -> None:
        """Have a trial trained, by a new worker if there is none.

        Raises:
            UserError: No worker can be started.
        """
        worker = self._workers.get(place)
        if worker is None or worker.has_ended():
            self.dismiss(place)
            try:
                worker = self._workers[place] = self.start(place, self.log(place))
            except OSError as error:
                raise UserError(f"A worker cannot be started: {error}") from error
            self._selector.register(worker, selectors.EVENT_READ, place)
        worker.send(trial)

    def answer(self, place: int, message: Mapping[str, Any]) -> None:
        """Answer the worker of a place."""
        self._workers[place].send(message)

    def listen(self, seconds: float) -> Iterator[tuple[int, dict[str, Any] | None]]:
        """What the workers say within some seconds, each with its place; None instead of a message: it has ended."""
        if not self._workers:
            time.sleep(seconds)
        for key, _ in self._selector.select(seconds):
            worker = self._workers[key.data]
            ended = worker.has_ended()  # asked first, so that nothing it said is missed
            for message in worker.messages():
                yield key.data, message
            if ended:
                yield key.data, None

    def reason(self, place: int) -> str:
        """Why the worker of a place has ended."""
        return self._workers[place].reason()

    def log(self, place: int) -> Path:
        """The output of the worker of a place."""
        return self.logs / f"{self.name}-{place}.log"

    def dismiss(self, place: int) -> None:
        """End the worker of a place, if there is one."""
        worker = self._workers.pop(place, None)
        if worker is not None:
            self._selector.unregister(worker)
            worker.stop()

    def dismiss_all(self) -> None:
        """End all workers."""
        for place in list(self._workers):
            self.dismiss(place)
        self._selector.close()
