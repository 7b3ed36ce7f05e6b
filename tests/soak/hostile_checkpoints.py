"""Resume from checkpoints with wrong values in random positions: they are refused in words, or train on."""

import copy
import random
import tempfile
from pathlib import Path
from typing import Any

import torch

from fmnist_pl.checkpoints.checkpoint_file import checkpoint_bytes, load_checked
from tests.soak.command import fit
from tests.soak.sigkill import in_a_process
from training_health.errors import UserError

HOSTILE = (
    None, True, "x", -1, 10**30, float("nan"), [], {}, [0], {"x": 1},
    torch.zeros(3, 3), torch.zeros(0), torch.tensor(0.0), torch.tensor(1, dtype=torch.int8),
)  # fmt: skip
OVERLAPPING = "a tensor of the same shape whose elements are one number in memory"


def spoil(checkpoint: dict[str, Any], chance: random.Random) -> str:
    """Replace, or take out, one value or branch; returns which and by what."""
    node: Any = checkpoint
    path = []
    while True:
        key = chance.choice(list(node) if isinstance(node, dict) else range(len(node)))
        path.append(key)
        below = node[key]
        if not isinstance(below, dict | list) or not below or (len(path) > 1 and chance.random() < 0.2):
            break
        node = below
    value = chance.choice([*HOSTILE, OVERLAPPING, "absent"])
    if value == OVERLAPPING and isinstance(below, torch.Tensor):
        node[key] = torch.zeros((), dtype=below.dtype).expand(below.shape)
    elif value == "absent" and isinstance(node, dict):
        del node[key]
    else:
        node[key] = value
    return f"{path}: {value!s:.60}"


def check(count: int, seed: int) -> list[str]:
    """Resume ``count`` runs from spoilt checkpoints; what ended in a traceback or by a signal."""
    found = []
    with tempfile.TemporaryDirectory() as name:
        run = fit(Path(name), "--trainer.max_epochs=1", variant="batch_norm")
        file = run / "checkpoints" / "last.ckpt"
        whole = load_checked(file)

        def attempt() -> None:
            try:
                fit(Path(name), "--resume", str(file), "--trainer.max_epochs=2", variant="batch_norm")
            except UserError as error:
                if str(run) not in str(error):
                    raise
            except SystemExit as end:
                if end.code != 2:
                    raise

        for number in range(count):
            spoilt = copy.deepcopy(whole)
            what = spoil(spoilt, random.Random(seed + number))
            file.write_bytes(checkpoint_bytes(spoilt))
            if status := in_a_process(attempt):
                found.append(f"{seed + number} {what}: status {status}")
    return found


def soak() -> str:
    """Four hundred."""
    found = check(400, 0)
    assert not found, "\n".join(found)
    return "400 checkpoints with a wrong value: each refused in words, or trained on"
