"""Kill ``fmnist fit`` at random moments, resume it each time, and compare what it ends with."""

import contextlib
import functools
import os
import random
import shutil
import signal
import subprocess
import tempfile
import time
import traceback
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch

from fmnist_pl.checkpoints.checkpoint_file import RESUMABLE, load_checked
from tests.soak import every_epoch
from tests.soak.command import TWO_RANKS, differences, ending, fit, start
from tests.soak.tensorboard_readers import python_curves, rust_curves
from training_health.errors import UserError

RUN = Path("baseline-synthetic") / "version_0"


def in_a_process(task: Callable[[], Any], kill_after: float | None = None) -> int:
    """Run ``task`` in a fork of this process, perhaps killed by SIGKILL after some seconds; returns its status."""
    child = os.fork()
    if child == 0:
        status = 1
        try:
            os.dup2(os.open(os.devnull, os.O_WRONLY), 1)
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


def attempt(logs: Path, *options: str, variant: str = "baseline", run: Callable[..., object] = fit) -> None:
    """Start the run, or resume it if it has a checkpoint; nothing if it is finished."""
    folder = logs / f"{variant}-synthetic" / "version_0"
    if any((folder / "checkpoints" / name).is_file() for name in RESUMABLE):
        options = ("--resume", str(folder), *(option for option in options if "callbacks" not in option))
    else:  # killed in its first epoch, it is begun again
        shutil.rmtree(folder, ignore_errors=True)
        options = ("--trainer.logger.init_args.version=0", *options)
    try:
        run(logs, *options, variant=variant)
    except UserError as error:
        if "is finished" not in str(error):
            raise


def run_apart(task: Callable[..., None], kill_after: float | None) -> int:
    """As `in_a_process` with a command of its own, all of whose ranks must have ended within 20 s of its end."""
    status = 0

    def run(logs: Path, *options: str, variant: str) -> None:
        nonlocal status
        if (logs / f"{variant}-synthetic" / "version_0" / "summary.json").is_file():
            return
        process = start(logs, *options, variant=variant)
        with contextlib.suppress(subprocess.TimeoutExpired):
            process.communicate(timeout=kill_after or 600)
        process.kill()
        status = process.wait()
        process.communicate(timeout=20)  # until the last rank has closed the output

    task(run=run)
    return status


def steps(run: Path) -> int:
    """The step that the run resumes from; every checkpoint must be whole."""
    found = {path.name: load_checked(path)["global_step"] for path in (run / "checkpoints").glob("*.ckpt")}
    return max(found.get(name, 0) for name in RESUMABLE)  # killed within a save, only the previous one may be there


def check(kills: int, seed: int, variant: str = "baseline", *options: str) -> tuple[int, list[str]]:
    """Kill runs until there were ``kills``; each run is resumed until it ends.

    Returns:
        The number of runs, and every difference from a run that was left alone.
    """
    chance = random.Random(seed)
    found: list[str] = []
    version = Path(f"{variant}-synthetic") / "version_0"
    in_one = run_apart if set(TWO_RANKS) <= set(options) else in_a_process

    def one(logs: Path, kill_after: float | None = None) -> int:
        return in_one(functools.partial(attempt, logs, *options, variant=variant), kill_after)

    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        assert one(folder / "warm") == 0  # it also makes the images
        began = time.monotonic()
        assert one(folder / "straight") == 0
        seconds = time.monotonic() - began
        expected = ending(folder / "straight" / version)
        found += [f"same seed, other process: {x}" for x in differences(expected, ending(folder / "warm" / version))]
        hits = runs = 0
        while hits < kills:
            logs, before, status = folder / f"run{runs}", 0, -signal.SIGKILL
            runs += 1
            while status == -signal.SIGKILL:
                after = chance.uniform(0.0, 1.1 * seconds) if hits < kills else None
                status = one(logs, after)
                hits += status == -signal.SIGKILL
                now = steps(logs / version)
                found += [f"{logs.name}: went back from step {before} to {now}"] if now < before else []
                before = now
            if status != 0:
                found.append(f"{logs.name}: ended with status {status}")
                continue
            found += [f"{logs.name}: {where}" for where in differences(expected, ending(logs / version))]
            curves = python_curves(logs / version), rust_curves(logs / version)
            found += [f"{logs.name}: the readers differ in {where}" for where in differences(*curves)]
            found += [f"{logs.name}: {path} is left" for path in (logs / version).rglob("*.part")]
    return runs, found


CASES = {
    name: every_epoch.CASES[name]
    for name in ("modern", "averaged weights", "stochastic weight averaging", "early stopping")
} | {"batch_norm": ("batch_norm",), "two ranks": ("batch_norm", *TWO_RANKS)}


def soak() -> str:
    """100 kills, and 10 in each of the cases."""
    runs, found = check(100, 0)
    for name, (variant, *options) in CASES.items():
        more, wrong = check(10, 0, variant, *options)
        runs, found = runs + more, found + [f"{name}: {where}" for where in wrong]
    assert not found, "\n".join(found)
    return f"160 SIGKILLs in {runs} runs: 0 divergences in weights, summary or curves, 0 unreadable checkpoints"
