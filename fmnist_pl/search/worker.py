"""The processes that train a study's trials: each takes what Optuna suggests, until the study has enough of them."""

import contextlib
import multiprocessing
import os
import signal
import statistics
import sys
import threading
import time
import traceback
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from datetime import timedelta
from multiprocessing.connection import Connection, wait
from pathlib import Path
from typing import IO

import optuna
from optuna.storages import RDBStorage, fail_stale_trials
from optuna.study import Study
from optuna.trial import FrozenTrial, TrialState

from fmnist_pl.process import slot_environment
from fmnist_pl.search.storage import experimental, explained, open_storage
from fmnist_pl.search.study import Settings, best_of, counts, is_retry, open_study, retry
from training_health.errors import UserError

_MOST_DEATHS = 3  # of each slot's workers in a row, without a trial that trains in between
_USER_ERROR, _SECONDS_TO_END = 3, 20.0


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
    def open(self) -> Iterator[tuple[Study, RDBStorage]]:
        """Open the study; a storage that fails is a user error."""
        with explained(self.storage):
            storage = open_storage(self.storage, self.heartbeat, self.grace, retry)
            try:
                yield open_study(storage, self.name, self.settings), storage
            finally:
                storage.remove_session()
                storage.engine.dispose()


Objective = Callable[[optuna.Trial], float]


class TrialFailedError(Exception):
    """A training went wrong in a way that says something of its parameters; the worker takes the next trial."""


def run_workers(search: Search, make_objective: Callable[[Search], Objective]) -> None:
    """Have the trials of a study trained by ``search.jobs`` processes; replace those that die.

    Args:
        search: To do.
        make_objective: A function of a module that imports no torch, called in each process.

    Raises:
        UserError: If no trial can be trained, or the storage fails.
    """
    spawn = multiprocessing.get_context("spawn")
    pool: dict[int, tuple[multiprocessing.process.BaseProcess, Connection]] = {}

    def start(slot: int) -> None:
        receiver, sender = spawn.Pipe(duplex=False)
        environment = slot_environment(slot, search.jobs)
        process = spawn.Process(target=_work, args=(search, slot, environment, make_objective, sender))
        process.start()
        sender.close()
        pool[slot] = process, receiver

    trained = deaths = 0
    try:
        for slot in range(search.jobs):
            start(slot)
        while pool:
            wait([process.sentinel for process, _ in pool.values()])
            for slot, (process, receiver) in list(pool.items()):
                if process.exitcode is None:
                    continue
                del pool[slot]
                if process.exitcode == 0:
                    continue
                reason = f"ended by {signal.Signals(max(-process.exitcode, 1)).name} (out of memory?)"
                with contextlib.suppress(EOFError):
                    reason = receiver.recv()
                if process.exitcode == _USER_ERROR:
                    raise UserError(reason)
                with search.open() as (study, _):
                    trials = [trial for trial in study.get_trials(deepcopy=False) if counts(trial)]
                before, trained = trained, sum(trial.state != TrialState.FAIL for trial in trials)
                deaths = deaths + 1 if trained == before else 1
                if deaths == _MOST_DEATHS * search.jobs:
                    raise UserError(
                        f"{deaths} workers ended one after the other, the last one: {reason}. Their output is in "
                        f"{search.folder / 'output'}. Finished trials are kept; the same command resumes."
                    )
                print(f"Worker {slot}: {reason}. Another one takes over.", file=sys.stderr)
                start(slot)
    finally:
        for process, _ in pool.values():
            process.terminate()
        for process, _ in pool.values():
            process.join(_SECONDS_TO_END)
            process.kill()


def _work(
    search: Search,
    slot: int,
    environment: dict[str, str],
    make_objective: Callable[[Search], Objective],
    sender: Connection,
) -> None:
    """What the process in a slot does."""
    os.setsid()  # Ctrl-C is for the command, which ends its workers in order
    signal.signal(signal.SIGTERM, lambda number, _: sys.exit(128 + number))
    threading.Thread(target=_end_with_parent, daemon=True).start()
    os.environ.update(environment)
    terminal = os.fdopen(os.dup(2), "w", buffering=1)
    (search.folder / "output").mkdir(parents=True, exist_ok=True)
    with (search.folder / "output" / f"worker_{slot}.log").open("a") as log:
        for descriptor in (1, 2):  # what libraries and trainings print
            os.dup2(log.fileno(), descriptor)
    try:
        with search.open() as (study, storage):
            _train(study, storage, search, make_objective(search), terminal)
    except UserError as error:
        sender.send(str(error))
        sys.exit(_USER_ERROR)
    except Exception as error:
        traceback.print_exc()
        sender.send(" ".join(f"{type(error).__name__}: {error}".split())[:300])
        sys.exit(1)
    except KeyboardInterrupt:
        sys.exit(128 + signal.SIGTERM)


def _end_with_parent() -> None:
    """End a worker whose command was killed: nobody would stop it."""
    parent = multiprocessing.parent_process()
    assert parent is not None
    parent.join()
    os._exit(1)


def _train(study: Study, storage: RDBStorage, search: Search, objective: Objective, terminal: IO[str]) -> None:
    """Train until the study has its trials, and none is left that may have been lost."""
    study_id, noted = storage.get_study_id_from_name(search.name), set[int]()

    def beat(number: int) -> None:
        storage.record_heartbeat(storage.get_trial_id_from_study_id_trial_number(study_id, number))

    def attempt(trial: optuna.Trial) -> float:
        beat(trial.number)  # Optuna's thread may be killed before it does
        trial.set_user_attr("begun", trial.number)
        try:
            return objective(trial)
        except (KeyboardInterrupt, SystemExit, UserError) as stop:
            signal.signal(signal.SIGTERM, signal.SIG_IGN)  # from now on it ends by itself
            retry(study, study.get_trials(deepcopy=False)[trial.number])
            if isinstance(stop, UserError):
                raise UserError(f"Trial {trial.number} cannot be trained: {stop}") from stop
            raise KeyboardInterrupt from stop  # Optuna ends a trial with that, not with SystemExit
        except (optuna.TrialPruned, TrialFailedError):
            raise
        except Exception as error:
            trial.set_user_attr("failure", f"{type(error).__name__}: {error}"[:300])
            raise

    def show(study: Study, trial: FrozenTrial) -> None:
        if counts(trial):
            print(f"trial {trial.number}: {progress(study, trial, search)}", file=terminal)

    while True:
        trials = study.get_trials(deepcopy=False)
        running = [trial for trial in trials if trial.state == TrialState.RUNNING]
        lost = [trial for trial in trials if trial.state == TrialState.WAITING and is_retry(trial)]
        finished = sum(map(counts, trials))
        if finished >= search.trials and not running and not lost:
            return
        if finished + len(running) < search.trials or lost:
            study.optimize(attempt, n_trials=1, catch=TrialFailedError, callbacks=[show], gc_after_trial=True)
            continue
        for trial in running:  # one that was killed before its first heartbeat would never be taken for lost
            if trial.user_attrs.get("begun") != trial.number and trial.number not in noted:
                noted.add(trial.number)
                beat(trial.number)
        time.sleep(1)
        with experimental():
            fail_stale_trials(study)


def progress(study: Study, trial: FrozenTrial, search: Search) -> str:
    """How a trial ended, how far the search is, and about how long the rest will take."""
    finished = [one for one in study.get_trials(deepcopy=False) if counts(one)]
    text = f"failed: {trial.user_attrs.get('failure')}" if trial.value is None else f"{100 * trial.value:.2f} %"
    if trial.state == TrialState.PRUNED:
        text = f"pruned after epoch {len(trial.intermediate_values)} at {text}"
    text += f". {len(finished)} of {search.trials} trials"
    if best := best_of(finished):
        text += f"; best {100 * (best.value or 0):.2f} % (trial {best.number})"
    if (left := search.trials - len(finished)) > 0:
        seconds = statistics.mean(one.duration.total_seconds() for one in finished if one.duration)
        text += f"; about {timedelta(seconds=round(seconds * left / search.jobs))} left"
    return text
