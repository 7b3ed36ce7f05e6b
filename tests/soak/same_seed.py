"""Train with the same seed in several processes, and compare the weights bit by bit."""

import hashlib
import subprocess
import sys
import tempfile
from pathlib import Path

import torch

from tests.soak.toys import Toy, train


def weights_hash() -> str:
    """SHA-256 of what a toy run ends with."""
    torch.set_num_threads(1)
    with tempfile.TemporaryDirectory() as folder:
        _, model = train(Toy(), Path(folder))
    digest = hashlib.sha256()
    for name, value in sorted(model.state_dict().items()):
        digest.update(name.encode() + value.contiguous().numpy().tobytes())
    return digest.hexdigest()


def check(processes: int) -> set[str]:
    """The different hashes that so many processes, each started anew, arrive at."""
    command = [sys.executable, "-c", "from tests.soak.same_seed import weights_hash; print(weights_hash())"]
    runs = (subprocess.run(command, capture_output=True, text=True, check=True) for _ in range(processes))
    return {run.stdout.split()[-1] for run in runs}


def soak() -> str:
    """Twenty processes."""
    hashes = check(20)
    assert len(hashes) == 1, hashes
    return "the same seed in 20 processes: 20 of 20 with the same hash"
