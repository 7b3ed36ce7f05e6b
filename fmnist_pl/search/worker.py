"""The processes that train a study's trials: each takes what Optuna suggests, until the study has enough of them."""

import contextlib
import multiprocessing
import os
import pkgutil
import signal
import statistics
import sys
import threading
import time
import traceback
import warnings
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from datetime import timedelta
from multiprocessing.connection import Connection, wait
from pathlib import Path
from typing import Any

import optuna
from optuna.exceptions import ExperimentalWarning, StorageInternalError
from optuna.storages import RDBStorage, fail_stale_trials
from optuna.study import Study
from optuna.trial import FrozenTrial, TrialState
from sqlalchemy.exc import SQLAlchemyError

from fmnist_pl.process import ended_by, keep_writing, slot_environment
from fmnist_pl.search.storage import StorageError, opened, to_stderr
from fmnist_pl.search.study import Settings, best_of, counts, open_study, origin, retry
from training_health.errors import UserError

_MOST_DEATHS = 3  # of each slot's workers in a row, without a trial that trains in between
_SECONDS_TO_END = 20.0


@dataclass(frozen=True)
class Search:
    """What every worker knows."""

    name: str  # of the study
    settings: Settings
    storage: str  # URL
    folder: Path  # takes configurations, runs and the workers' output
    trials: int  # that the study shall have in the end
    jobs: int = 1  # workers here
    heartbeat: int = 15  # seconds between a running trial's signs of life
    grace: int = 90  # seconds without one after which a trial is taken for lost

    @contextlib.contextmanager
    def open(self, say: Callable[[str], object] = to_stderr) -> Iterator[tuple[Study, RDBStorage]]:
        """Open the study; a storage that fails is a user error, one that is waited for is said."""
        with opened(self.storage, self.heartbeat, self.grace, say) as storage:
            yield open_study(storage, self.name, self.settings), storage


class TrialFailedError(Exception):
    """A training went wrong in a way that says something of its parameters; the worker takes the next trial."""


def run_workers(search: Search, objective: str) -> None:
    """Have the trials of a study trained by ``search.jobs`` processes; replace those that die.

    Args:
        search: The search to run.
        objective: ``MODULE:NAME`` of a callable that takes the search and returns the function that trains a trial.
            Each process imports it after its number of threads is set, which torch reads once.

    Raises:
        UserError: If no trial can be trained, or the storage fails.
    """
    spawn = multiprocessing.get_context("spawn")
    pool: dict[Any, tuple[int, multiprocessing.process.BaseProcess]] = {}  # slot and process by the pipe from it

    def start(slot: int) -> None:
        receiver, sender = spawn.Pipe(duplex=False)
        environment = slot_environment(slot, search.jobs)
        process = spawn.Process(target=_work, args=(search, environment, slot, objective, sender))
        process.start()
        sender.close()
        pool[receiver] = slot, process

    deaths = 0
    try:
        for slot in range(search.jobs):
            start(slot)
        while pool:
            ready: list[Any] = wait(list(pool))
            for receiver in ready:
                told = None
                with contextlib.suppress(EOFError):  # it has ended
                    told = receiver.recv()
                if isinstance(told, UserError) and not isinstance(told, StorageError):
                    raise told
                if isinstance(told, str):
                    print(told, file=sys.stderr)
                    deaths = 0
                    continue
                slot, process = pool.pop(receiver)
                process.join()
                if (status := process.exitcode or 0) == 0:
                    continue
                reason = told or ended_by(status) or f"ended with status {status}"
                deaths += 1
                if deaths == _MOST_DEATHS * search.jobs:
                    raise UserError(
                        f"{deaths} workers ended one after the other, the last one: {reason}. Their output is in "
                        f"{search.folder / 'output'}. Finished trials are kept; the same command resumes."
                    )
                print(f"Worker {slot}: {reason}. Another one takes over.", file=sys.stderr)
                start(slot)
    finally:
        for _, process in pool.values():
            process.terminate()
        until = time.monotonic() + _SECONDS_TO_END  # one that waits for a database does not hear it
        for _, process in pool.values():
            process.join(max(0.0, until - time.monotonic()))
            process.kill()


def _work(search: Search, environment: dict[str, str], slot: int, objective: str, sender: Connection) -> None:
    """What the process in a slot does. It sends a line for each trial, and an exception if that ends it."""
    if hasattr(os, "setsid"):  # not on Windows
        os.setsid()  # Ctrl-C is for the command, which ends its workers in order
    signal.signal(signal.SIGTERM, lambda number, _: sys.exit(128 + number))
    threading.Thread(target=_end_with_parent, daemon=True).start()
    os.environ.update(environment)
    (search.folder / "output").mkdir(parents=True, exist_ok=True)
    with (search.folder / "output" / f"worker_{slot}.log").open("a") as log:
        for descriptor in (1, 2):  # what libraries and trainings print
            os.dup2(log.fileno(), descriptor)
    keep_writing()
    try:
        with search.open(sender.send) as (study, storage):
            _train(study, storage, search, pkgutil.resolve_name(objective)(search), sender)
    except Exception as error:
        traceback.print_exc()
        text = " ".join(f"{type(error).__name__}: {error}".split())[:300]
        sender.send(error if isinstance(error, UserError) else RuntimeError(text))
        sys.exit(1)


def _end_with_parent() -> None:
    """End a worker whose command was killed: nobody would stop it."""
    parent = multiprocessing.parent_process()
    assert parent is not None
    parent.join()
    os._exit(1)


def _train(
    study: Study, storage: RDBStorage, search: Search, objective: Callable[[optuna.Trial], float], sender: Connection
) -> None:
    """Train until the study has its trials, and none is left that may have been lost."""
    training = stopped = False
    taken: int | None = None  # number of a trial that another process took for lost, and queued, meanwhile

    def stop(number: int, _: object) -> None:
        nonlocal stopped
        stopped = True
        if training:  # else Optuna has begun a trial that is not ours yet, or is recording how one ended: it finishes
            sys.exit(128 + number)

    def attempt(trial: optuna.Trial) -> float:
        nonlocal training
        try:
            try:
                training = True
                if stopped:
                    sys.exit(1)
                return objective(trial)
            finally:
                training = False
        except (KeyboardInterrupt, SystemExit, UserError, SQLAlchemyError, StorageInternalError) as reason:
            retry(study, study.get_trials(deepcopy=False)[trial.number])  # none of them says anything of the trial
            if isinstance(reason, UserError):
                raise UserError(f"Trial {trial.number} cannot be trained: {reason}") from reason
            if isinstance(reason, SystemExit):  # Optuna does not end a trial with that
                raise KeyboardInterrupt from reason
            raise
        except (optuna.TrialPruned, TrialFailedError):
            raise
        except Exception as error:
            trial.set_user_attr("failure", f"{type(error).__name__}: {error}"[:300])
            raise

    def watched(trial: optuna.Trial) -> float:
        nonlocal taken
        try:
            return attempt(trial)
        finally:
            taken = trial.number if study.get_trials(deepcopy=False)[trial.number].state.is_finished() else None

    def tell(study: Study, trial: FrozenTrial) -> None:
        if counts(trial):
            sender.send(f"trial {trial.number}: {progress(study, trial, search)}")

    study_id, noted = storage.get_study_id_from_name(search.name), set[int]()
    signal.signal(signal.SIGTERM, stop)
    while not stopped:
        trials = study.get_trials(deepcopy=False)
        running = {trial.number for trial in trials if trial.state == TrialState.RUNNING}
        lost = any(trial.state == TrialState.WAITING and origin(trial) != trial.number for trial in trials)
        finished = sum(map(counts, trials))
        if lost or finished + len(running) < search.trials:
            try:
                study.optimize(watched, n_trials=1, catch=TrialFailedError, callbacks=[tell], gc_after_trial=True)
            except (ValueError, AssertionError):  # what Optuna raises where a trial has ended already
                if taken is None:
                    raise
                sender.send(
                    f"trial {taken}: taken for lost, with no sign of life for {search.grace} s; it does not count"
                )
                taken = None
            continue
        if not running:
            return
        time.sleep(1)
        with warnings.catch_warnings(action="ignore", category=ExperimentalWarning):
            fail_stale_trials(study)
        for number in running - noted:  # one that was killed before its first heartbeat would never be taken for lost
            storage.record_heartbeat(storage.get_trial_id_from_study_id_trial_number(study_id, number))
        noted |= running
    sys.exit(1)


def progress(study: Study, trial: FrozenTrial, search: Search) -> str:
    """How a trial ended, how far the search is, and about how long the rest will take."""
    finished = [one for one in study.get_trials(deepcopy=False) if counts(one)]
    text = f"failed: {trial.user_attrs.get('failure')}" if trial.value is None else f"{100 * trial.value:.2f} %"
    if trial.state == TrialState.PRUNED:
        text = f"pruned after epoch {len(trial.intermediate_values)} at {text}"
    text += f". {len(finished)} of {search.trials} trials"
    if best := best_of(finished):
        text += f"; best {100 * (best.value or 0):.2f} % (trial {best.number})"
    seconds = statistics.mean(one.duration.total_seconds() for one in finished if one.duration)
    left = max(0, search.trials - len(finished)) * seconds / search.jobs
    return f"{text}; about {timedelta(seconds=round(left))} left"
