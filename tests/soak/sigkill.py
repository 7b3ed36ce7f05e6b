"""Kill ``fmnist fit`` at random moments, resume it each time, and compare what it ends with."""

import os
import random
import shutil
import signal
import tempfile
import time
import traceback
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch

from fmnist_pl.checkpoints.checkpoint_file import RESUMABLE, load_checked
from tests.soak.command import differences, ending, fit
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


def attempt(logs: Path) -> None:
    """Start the run, or resume it if it has a checkpoint; nothing if it is finished."""
    saved = any((logs / RUN / "checkpoints" / name).is_file() for name in RESUMABLE)
    if not saved:  # killed in its first epoch, it is begun again
        shutil.rmtree(logs / RUN, ignore_errors=True)
    try:
        fit(logs, *(["--resume", str(logs / RUN)] if saved else ["--trainer.logger.init_args.version=0"]))
    except UserError as error:
        if "is finished" not in str(error):
            raise


def steps(run: Path) -> int:
    """The step that the run resumes from; every checkpoint must be whole."""
    found = {path.name: load_checked(path)["global_step"] for path in (run / "checkpoints").glob("*.ckpt")}
    return max(found.get(name, 0) for name in RESUMABLE)  # killed within a save, only the previous one may be there


def check(kills: int, seed: int) -> tuple[int, list[str]]:
    """Kill runs until there were ``kills``; each run is resumed until it ends.

    Returns:
        The number of runs, and every difference from a run that was left alone.
    """
    chance = random.Random(seed)
    found: list[str] = []
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        assert in_a_process(lambda: attempt(folder / "warm")) == 0  # it also makes the images
        began = time.monotonic()
        assert in_a_process(lambda: attempt(folder / "straight")) == 0
        seconds = time.monotonic() - began
        expected = ending(folder / "straight" / RUN)
        found += [f"same seed, other process: {x}" for x in differences(expected, ending(folder / "warm" / RUN))]
        hits = runs = 0
        while hits < kills:
            logs, before, status = folder / f"run{runs}", 0, -signal.SIGKILL
            runs += 1
            while status == -signal.SIGKILL:
                after = chance.uniform(0.0, 1.1 * seconds) if hits < kills else None
                status = in_a_process(lambda logs=logs: attempt(logs), after)  # type: ignore[misc]
                hits += status == -signal.SIGKILL
                now = steps(logs / RUN)
                found += [f"{logs.name}: went back from step {before} to {now}"] if now < before else []
                before = now
            if status != 0:
                found.append(f"{logs.name}: ended with status {status}")
                continue
            found += [f"{logs.name}: {where}" for where in differences(expected, ending(logs / RUN))]
            curves = python_curves(logs / RUN), rust_curves(logs / RUN)
            found += [f"{logs.name}: the readers differ in {where}" for where in differences(*curves)]
            found += [f"{logs.name}: {path} is left" for path in (logs / RUN).rglob("*.part")]
    return runs, found


def soak() -> str:
    """100 kills."""
    runs, found = check(100, seed=0)
    assert not found, "\n".join(found)
    return f"100 SIGKILLs in {runs} runs: 0 divergences in weights, summary or curves, 0 unreadable checkpoints"
