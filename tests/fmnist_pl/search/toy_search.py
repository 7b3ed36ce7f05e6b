"""A search without torch: a space of two numbers, and workers that compute where others train.

Run as a module it searches: ``python -m tests.fmnist_pl.search.toy_search FOLDER STORAGE TRIALS JOBS [SECONDS]``.
"""

import contextlib
import io
import sys
from pathlib import Path
from typing import Any

from optuna.distributions import CategoricalDistribution, FloatDistribution

from fmnist_pl.compare.display import Display
from fmnist_pl.search.ledger import Ledger
from fmnist_pl.search.presence import Presence
from fmnist_pl.search.storage import StudyStorage
from fmnist_pl.search.study import Settings, open_study
from fmnist_pl.search.workers.supervisor import Supervisor
from fmnist_pl.search.workers.worker_process import WorkerProcess

# Speaks a worker's protocol: two epochs, and an accuracy that is a parabola of the overlay's x.
_WORKER = """
import json, os, re, signal, sys, time
def say(**message):
    print(json.dumps(message), flush=True)
for line in sys.stdin:
    job = json.loads(line)
    x = float(re.search("x: (.*)", open(job["overlay"]).read()).group(1))
    kind = re.search("kind: (.*)", open(job["overlay"]).read()).group(1)
    with open(os.path.join(job["folder"], "trained.txt"), "a") as count:
        count.write(f"{x}\\n")
    figures = {"run": "none", "seconds": 1.0, "dead_share": 0.25, "validation_loss": 1.0 - x}
    time.sleep(SECONDS)
    if kind == "nan":
        say(kind="diverged", reason="val/loss was nan after epoch 1", figures=figures)
        continue
    if kind == "raises":
        say(kind="error", reason="ValueError: no", mendable=False)
        sys.exit(1)
    if kind == "mendable":
        say(kind="error", reason="There is no data.", mendable=True)
        continue
    if kind == "dies":
        os.kill(os.getpid(), signal.SIGKILL)
    accuracy = 1.0 - (x - 0.3) ** 2
    pruned = False
    for epoch in range(job["epochs"]):
        say(kind="epoch", epoch=epoch, accuracy=accuracy)
        answer = sys.stdin.readline()
        if not answer:
            sys.exit(1)
        pruned = json.loads(answer)["prune"] and epoch + 1 < job["epochs"]
        if pruned:
            break
    say(kind="pruned" if pruned else "done", value=accuracy, figures=figures)
"""


class ToySpace:
    """x in [0, 1], of which the upper half may not be trained, and a kind of trial."""

    name, digest, first = "toy", "d", ()

    def __init__(self, *kinds: str) -> None:
        self.content = {"space": {"x": [0, 1], "kind": list(kinds)}}
        self.distributions = {"x": FloatDistribution(0.0, 1.0), "kind": CategoricalDistribution(kinds or ("good",))}

    def overlay(self, params: dict[str, Any]) -> dict[str, Any]:
        return dict(params)

    def parameters(self, params: dict[str, Any]) -> int:
        return int(1000 * params["x"])

    def refusal(self, params: dict[str, Any]) -> str | None:
        return "x is above a half" if params["x"] > 0.5 else None


def settings(space: ToySpace, epochs: int = 2) -> Settings:
    return Settings(space, "synthetic", epochs, 0, None, (), "c")  # type: ignore[arg-type]


def ledger(folder: Path, storage: str, space: ToySpace, *, study: str = "toy", grace: float = 60.0) -> Ledger:
    opened = StudyStorage(storage)
    presence = Presence(folder)
    return Ledger(open_study(opened, study, settings(space)), opened, space, 0, presence, grace)  # type: ignore[arg-type]


def search(
    folder: Path, storage: str, trials: int, *kinds: str, jobs: int = 1, seconds: float = 0.0, epochs: int = 2
) -> tuple[Ledger, str]:
    """Search to the end.

    Returns:
        The ledger, and what was shown.
    """
    space = ToySpace(*kinds)
    book = ledger(folder, storage, space)
    shown = io.StringIO()

    def start(slot: int, log: Path) -> WorkerProcess:
        return WorkerProcess([sys.executable, "-c", _WORKER.replace("SECONDS", str(seconds))], log, {})

    try:
        Supervisor(book, settings(space, epochs), folder, jobs, trials, Display(shown), start).run()
    finally:
        book.close()
    return book, shown.getvalue()


def trained(folder: Path) -> list[str]:
    """The x of every training that began."""
    path = folder / "trained.txt"
    return path.read_text().splitlines() if path.exists() else []


if __name__ == "__main__":
    folder, storage, trials, jobs, *seconds = sys.argv[1:]
    with contextlib.suppress(KeyboardInterrupt):
        search(Path(folder), storage, int(trials), jobs=int(jobs), seconds=float(seconds[0]) if seconds else 0.0)
