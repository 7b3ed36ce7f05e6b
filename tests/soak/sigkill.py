"""Kill a run at random moments, several times, let it be resumed each time, and compare what it ends with."""

import os
import random
import signal
import tempfile
import time
import traceback
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch

from fmnist_pl.checkpoints.checkpoint_file import load_checked
from fmnist_pl.checkpoints.last_checkpoint import PREVIOUS, RESUMABLE
from fmnist_pl.runs.folder import wait_for_a_later_name
from fmnist_pl.runs.record import RUN
from tests.soak.tensorboard_readers import python_curves
from tests.soak.toys import EPOCHS, Toy, differences, last, train

TOY = Toy(monitors=True)


def in_a_process(task: Callable[[], Any], kill_after: float | None = None) -> int:
    """Run ``task`` in a fork of this process, perhaps killed by SIGKILL after some seconds; returns its status."""
    child = os.fork()
    if child == 0:
        status = 1
        try:
            silence = os.open(os.devnull, os.O_WRONLY)
            os.dup2(silence, 1)
            torch.set_num_threads(1)
            task()
            status = 0
        except BaseException:  # said here: nothing of it gets out of this process
            traceback.print_exc()
        finally:
            os._exit(status)
    if kill_after is not None:
        time.sleep(kill_after)
        os.kill(child, signal.SIGKILL)
    _, status = os.waitpid(child, 0)
    return os.waitstatus_to_exitcode(status)


def attempt(folder: Path) -> None:
    """Start, or go on, as ``--resume last`` does."""
    checkpoints = [last(folder), last(folder).with_name(PREVIOUS)]
    train(TOY, folder, checkpoint=next((path for path in checkpoints if path.is_file()), None))


def progress(folder: Path) -> tuple[int, int]:
    """Epoch and batch that the last checkpoint is of; it and the others must be whole."""
    for path in (folder / "checkpoints").glob("*.ckpt"):
        load_checked(path)
    if not last(folder).is_file():
        return (0, 0)
    moment = load_checked(last(folder))[RESUMABLE]
    return moment["epoch"], moment["batches"]


def ending(folder: Path) -> dict[str, Any]:
    checkpoint = load_checked(last(folder))
    del checkpoint[RUN]["started"]
    return {"checkpoint": checkpoint, "curves": python_curves(folder)}


def check(kills: int, seed: int) -> tuple[int, int, int, list[str]]:
    """Kill runs until there were ``kills``; each run is resumed until it ends.

    Returns:
        Kills that hit, runs, the most kills in one run, and every difference from a run that was left alone.
    """
    chance = random.Random(seed)
    found: list[str] = []
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        began = time.monotonic()
        assert in_a_process(lambda: attempt(folder / "straight")) == 0
        seconds = time.monotonic() - began
        expected = ending(folder / "straight")
        hits = runs = most = 0
        while hits < kills:
            run, before, hits_before = folder / f"run{runs}", (0, 0), hits
            runs += 1
            while True:
                wait_for_a_later_name(run)  # here, so that the kill does not meet a process that waits
                after = chance.uniform(0.0, 0.8 * seconds) if hits < kills else None
                status = in_a_process(lambda run=run: attempt(run), after)  # type: ignore[misc]
                now = progress(run)
                if now < before:
                    found.append(f"{run.name}: went back from {before} to {now}")
                before = now
                if status == -signal.SIGKILL:
                    hits += 1
                    continue
                if status != 0:
                    found.append(f"{run.name}: ended with status {status}")
                break
            most = max(most, hits - hits_before)
            found += [f"{run.name}: {place}" for place in differences(expected, ending(run))]
            epochs = len(python_curves(run)["val/loss"])
            if epochs != EPOCHS:
                found.append(f"{run.name}: {epochs} epochs in the curves")
            if list((run / "checkpoints").glob(".*")):
                found.append(f"{run.name}: temporary files are left")
    return hits, runs, most, found


def soak() -> str:
    """200 kills."""
    hits, runs, most, found = check(200, seed=0)
    assert not found, "\n".join(found)
    return (
        f"{hits} SIGKILLs in {runs} runs, up to {most} in one: 0 divergences, 0 unreadable checkpoints, 0 lost epochs"
    )
