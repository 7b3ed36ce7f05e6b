"""A search whose trainings take fractions of a second and need no torch.

Run as a module it searches: ``python -m tests.fmnist_pl.search.toy_search FOLDER STORAGE TRIALS JOBS KIND``.
"""

import os
import signal
import sys
import time
from pathlib import Path

import optuna
from optuna.distributions import FloatDistribution
from optuna.trial import TrialState

from fmnist_pl.search.study import SeededSampler, Settings
from fmnist_pl.search.worker import Search, TrialFailedError, run_workers
from training_health.errors import UserError

X = FloatDistribution(0.0, 1.0)
OBJECTIVE = "tests.fmnist_pl.search.toy_search:ToyObjective"


def toy(folder, storage="", trials=4, *, kind="good", jobs=1, epochs=1):
    settings = Settings("synthetic", epochs, 0, None, [], {}, {"space": {"kind": kind}})
    storage = storage or f"sqlite:///{folder / 'study.db'}"
    return Search("toy", settings, storage, folder, trials, jobs, heartbeat=1, grace=8)


class ToyObjective:
    """x in [0, 1], of which the upper third is beyond the limits; the accuracy is a parabola of it.

    The kind of the search says what becomes of a training. In a folder with a file `hold` it lasts until that is gone.
    """

    def __init__(self, search: Search) -> None:
        self.search, self.kind = search, search.settings.space["space"]["kind"]
        if self.kind == "stopped between":
            SeededSampler.before_trial = stop_the_search

    def __call__(self, trial: optuna.Trial) -> float:
        x = trial.suggest_float("x", 0.0, 1.0)
        trial.set_constraint("x", x - 2 / 3)
        if x > 2 / 3:
            trial.set_user_attr("failure", "x is large")
            raise optuna.TrialPruned
        with (self.search.folder / "trained.txt").open("a") as log:
            log.write(f"{os.getpid()} {x}\n")
        if self.kind == "slow":
            time.sleep(0.3)
        until = time.monotonic() + 120
        while (self.search.folder / "hold").exists() or (self.kind == "together" and self.alone()):
            assert time.monotonic() < until
            time.sleep(0.01)
        if self.kind == "nan":
            trial.set_user_attr("failure", "val/loss was nan")
            raise TrialFailedError
        if self.kind == "raises":
            raise ValueError("no\nnumber")
        if self.kind == "no data":
            raise UserError("There are no data.")
        if self.kind == "dies":
            os.kill(os.getpid(), signal.SIGKILL)
        if self.kind == "taken for lost" and trial.number == 0:
            trial.study.tell(trial.number, state=TrialState.FAIL)
        accuracy = 1.0 - (x - 0.3) ** 2
        for epoch in range(self.search.settings.epochs):
            trial.report(accuracy, epoch)
            if trial.should_prune():
                raise optuna.TrialPruned
        return accuracy

    def alone(self) -> bool:
        return len({process for process, _ in trained(self.search.folder)}) == 1


def stop_the_search(sampler, study, trial):
    """What a sampler does first with a trial: here Ctrl-C falls before its training."""
    handler, came, until = signal.getsignal(signal.SIGTERM), [], time.monotonic() + 120
    signal.signal(signal.SIGTERM, lambda *args: (came.append(args), handler(*args)))
    os.kill(os.getppid(), signal.SIGINT)
    while not came:
        assert time.monotonic() < until
        time.sleep(0.01)


def search(*args, **options):
    """Search to the end; the trials."""
    wanted = toy(*args, **options)
    run_workers(wanted, OBJECTIVE)
    return trials_of(wanted)


def trials_of(search):
    with search.open() as (study, _):
        return study.get_trials()


def trained(folder):
    """Process id and x of every training that began."""
    path = folder / "trained.txt"
    return [line.split() for line in path.read_text().splitlines()] if path.exists() else []


if __name__ == "__main__":
    folder, storage, trials, jobs, kind = sys.argv[1:]
    run_workers(toy(Path(folder), storage, int(trials), kind=kind, jobs=int(jobs)), OBJECTIVE)
