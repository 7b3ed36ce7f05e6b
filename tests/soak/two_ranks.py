"""Train on two processes: resume from every batch, and compare with one process."""

import json
import os
import socket
import subprocess
import sys
import tempfile
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch

from tests.soak import every_batch
from tests.soak.toys import KeepAll, Toy, train

RESUMED = Toy("two ranks", trainer={"strategy": "ddp", "devices": 2})
# Odd counts: 41 images in batches of 8, so that the last batch has one image, none of them for the second rank. No
# dropout and no augmentation, which each rank draws for itself; no batch norm, whose statistics are each rank's own.
COMPARED = Toy("compared", monitors=True, dropout=0.0, batch_norm=False, schedule="constant")


def on_two_ranks(folder: Path, every: int) -> dict[str, Any]:
    """Run `both` on two processes; return what the first one reports.

    Raises:
        RuntimeError: One of them failed; the message is what both wrote.
    """
    with socket.create_server(("127.0.0.1", 0)) as server:
        port = server.getsockname()[1]
    environment = {
        **os.environ,
        "MASTER_ADDR": "127.0.0.1",
        "MASTER_PORT": str(port),
        "WORLD_SIZE": "2",
        "NODE_RANK": "0",
        "OMP_NUM_THREADS": "1",
    }
    command = [sys.executable, "-m", "tests.soak.two_ranks", str(folder), str(every)]
    processes = [
        subprocess.Popen(
            command,
            env={**environment, "LOCAL_RANK": str(rank)},
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
        )
        for rank in range(2)
    ]
    outputs = [process.communicate(timeout=300)[0] for process in processes]
    if any(process.returncode for process in processes):
        raise RuntimeError("\n".join(outputs))
    return json.loads((folder / "report.json").read_text())  # type: ignore[no-any-return]


def resume(folder: Path, rank: int, every: int) -> dict[str, Any]:
    """Resume from every ``every``-th moment."""
    points, found = every_batch.check(replace(RESUMED, rank=rank, world_size=2), folder, every)
    return {"points": points, "found": found}


def compare(folder: Path, rank: int) -> dict[str, Any]:
    """Train once on this process and the other; return what it ended with."""
    toy = replace(COMPARED, rank=rank, world_size=2, trainer=RESUMED.trainer)
    return outcome(toy, folder)


def both(folder: Path, rank: int, every: int) -> dict[str, Any]:
    """`resume` and `compare` in one go."""
    return {"resume": resume(folder / "resume", rank, every), "compare": compare(folder / "compare", rank)}


def outcome(toy: Toy, folder: Path) -> dict[str, Any]:
    """Weights, figures, and the files that were written."""
    trainer, model = train(toy, folder, saver=KeepAll(every_n_minutes=None))
    return {
        "weights": torch.cat([value.flatten().double() for value in model.state_dict().values()]).tolist(),
        "figures": {name: float(value) for name, value in trainer.callback_metrics.items()},
        "files": sorted(_undated(path) for path in folder.rglob("*") if path.is_file()),
    }


def _undated(path: Path) -> str:
    return "events" if path.name.startswith("events.out.tfevents") else path.name


def furthest(first: dict[str, Any], second: dict[str, Any]) -> tuple[float, float]:
    """The largest difference between two outcomes' weights, and between their figures."""
    weights = max(abs(a - b) for a, b in zip(first["weights"], second["weights"], strict=True))
    assert first["figures"].keys() == second["figures"].keys()
    return weights, max(abs(value - second["figures"][name]) for name, value in first["figures"].items())


def soak() -> str:
    """Every moment, and the comparison."""
    with tempfile.TemporaryDirectory() as name:
        single = outcome(COMPARED, Path(name) / "one")
        double = on_two_ranks(Path(name) / "two", every=1)
    report = double["resume"]
    assert not report["found"], "\n".join(report["found"])
    weights, figures = furthest(single, double["compare"])
    assert weights < 1e-5, weights
    assert figures < 1e-6, figures
    return (
        f"{report['points']} resume points on two ranks: 0 differences; two ranks against one, odd counts: weights "
        f"within {weights:.0e}, figures within {figures:.0e}"
    )


if __name__ == "__main__":
    torch.set_num_threads(1)
    where, interval = sys.argv[1:]
    own_rank = int(os.environ["LOCAL_RANK"])
    Path(where).mkdir(parents=True, exist_ok=True)
    result = both(Path(where), own_rank, int(interval))
    if own_rank == 0:
        (Path(where) / "report.json").write_text(json.dumps(result))
