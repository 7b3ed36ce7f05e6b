"""Flip single bits of a checkpoint: none may change what is loaded without a word."""

import random
import tempfile
from pathlib import Path

from fmnist_pl.checkpoints.checkpoint_file import load_checked
from tests.soak.command import differences, fit
from training_health.errors import UserError


def check(flips: int, seed: int, file: Path) -> tuple[int, list[str]]:
    """Flip a random bit of ``file``, ``flips`` times.

    Returns:
        How many files were refused, and those that were loaded with another content or refused in other words. What
        is left are bits that no reader of the archive uses.
    """
    whole, expected = file.read_bytes(), load_checked(file)
    chance = random.Random(seed)
    refused, found = 0, []
    damaged = file.with_name("damaged.ckpt")
    for _ in range(flips):
        bit = chance.randrange(len(whole) * 8)
        content = bytearray(whole)
        content[bit // 8] ^= 1 << bit % 8
        damaged.write_bytes(content)
        try:
            found += [f"bit {bit}: {where}" for where in differences(expected, load_checked(damaged))]
        except UserError as error:
            refused += 1
            if str(damaged) not in str(error):
                found.append(f"bit {bit}: {error}")
    return refused, found


def soak() -> str:
    """A thousand in a real checkpoint."""
    with tempfile.TemporaryDirectory() as folder:
        refused, found = check(1000, 0, fit(Path(folder)) / "checkpoints" / "last.ckpt")
    assert not found, "\n".join(found)
    return f"1,000 single-bit flips: {refused} refused with the file's name, the rest changed no value"
