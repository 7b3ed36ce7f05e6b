"""Flip single bits of a checkpoint."""

import random
import tempfile
from pathlib import Path

from fmnist_pl.checkpoints.checkpoint_file import load_checked
from tests.soak.toys import Toy, last, train
from training_health.errors import UserError


def check(flips: int, seed: int, file: Path) -> list[str]:
    """Flip a random bit of ``file``, ``flips`` times; return those that were loaded, or refused in other words."""
    whole = file.read_bytes()
    load_checked(file)
    chance = random.Random(seed)
    found = []
    damaged = file.with_name("damaged.ckpt")
    for _ in range(flips):
        bit = chance.randrange(len(whole) * 8)
        content = bytearray(whole)
        content[bit // 8] ^= 1 << bit % 8
        damaged.write_bytes(content)
        try:
            load_checked(damaged)
        except UserError as error:
            if f"The checkpoint {damaged} is damaged" in str(error) and f"--resume {file}" in str(error):
                continue
            found.append(f"bit {bit}: {error}")
        else:
            found.append(f"bit {bit}: loaded")
    return found


def soak() -> str:
    """A thousand in a real checkpoint."""
    with tempfile.TemporaryDirectory() as folder:
        train(Toy(), Path(folder))
        found = check(1000, 0, last(Path(folder)))
    assert not found, "\n".join(found)
    return "1,000 single-bit flips: 0 loaded; each names the file and the whole one beside it"
