"""Stop a save at every step it consists of, and see what is there to be loaded."""

import os
import signal
import sys
import tempfile
from collections.abc import Callable
from pathlib import Path
from types import FrameType
from typing import Any

import torch

from fmnist_pl.checkpoints import checkpoint_file
from fmnist_pl.checkpoints.checkpoint_file import HOLD, LAST, PREVIOUS, DurableCheckpointIO, load_checked
from tests.soak.sigkill import in_a_process
from training_health import durable_file
from training_health.durable_file import remove_stale_temporaries


def state(number: int) -> dict[str, Any]:
    return {"state_dict": {"weight": torch.full((200,), float(number))}, "number": number}


def save(io: DurableCheckpointIO, folder: Path, number: int) -> None:
    io.save_checkpoint(state(number), folder / LAST, storage_options=HOLD)
    io.write_held()


def die() -> None:
    os.kill(os.getpid(), signal.SIGKILL)


def dying_at_line(count: int, task: Callable[[], None]) -> Callable[[], None]:
    """``task``, killed when the writing modules are about to run their ``count``-th line."""

    def run() -> None:
        remaining = count

        def trace(frame: FrameType, event: str, _: Any) -> Any:
            nonlocal remaining
            if frame.f_code.co_filename not in (durable_file.__file__, checkpoint_file.__file__):
                return None
            if event == "line":
                remaining -= 1
                if remaining < 0:
                    die()
            return trace

        sys.settrace(trace)
        task()

    return run


def check_kills() -> tuple[int, list[str]]:
    """Kill the third save of a run at each of its steps; return how many there are, and what was wrong."""
    found: list[str] = []
    steps = 0
    with tempfile.TemporaryDirectory() as name:
        while True:
            folder = Path(name) / str(steps)
            io = DurableCheckpointIO()
            save(io, folder, 1)
            save(io, folder, 2)
            status = in_a_process(dying_at_line(steps, lambda folder=folder, io=io: save(io, folder, 3)))  # type: ignore[misc]
            numbers = {path.name: load_checked(path)["number"] for path in folder.glob("*.ckpt")}
            if (numbers.get(LAST), numbers.get(PREVIOUS)) not in {(2, 1), (None, 2), (3, 2)}:
                found.append(f"step {steps}: {numbers}")
            remove_stale_temporaries(folder)
            found += [f"step {steps}: {path} is left" for path in folder.iterdir() if path.name not in numbers]
            if status == 0:  # there were fewer lines than this: the save went through
                if numbers != {LAST: 3, PREVIOUS: 2}:
                    found.append(f"the whole save left {numbers}")
                break
            steps += 1
    return steps, found


def soak() -> str:
    steps, found = check_kills()
    assert not found, "\n".join(found)
    return f"a save killed at each of its {steps} steps: always the old or the new checkpoint can be loaded"
