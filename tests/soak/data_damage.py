"""Damage the data files at random: all of it must be refused before a single image is used."""

import os
import random
import tempfile
import time
from pathlib import Path

import numpy as np

from fmnist_pl.dataset.files import load_split, prepare
from tests.fmnist_pl.small_dataset import CONTENTS, PACKED, describe, write_raw
from training_health.errors import UserError


def mutate(content: bytes, chance: random.Random) -> bytes:
    """The content with one random change: bits, a cut, an insertion, a repetition, two places exchanged, zeros."""
    data = bytearray(content)
    here, there = sorted(chance.sample(range(len(data)), 2))
    kind = chance.randrange(7)
    if kind == 0:
        data[here] ^= 1 << chance.randrange(8)
    elif kind == 1:
        data[here] = (data[here] + chance.randrange(1, 256)) % 256
    elif kind == 2:
        del data[here:]
    elif kind == 3:
        del data[here:there]
    elif kind == 4:
        data[here:here] = chance.randbytes(chance.randrange(1, 40))
    elif kind == 5:
        data += data[here:there]
    else:
        data[here:there] = bytes(there - here)
    return bytes(data)


def check(mutations: int, seed: int) -> tuple[int, list[str]]:
    """Change one file after another; return how many changes there were, and those that were not refused in words.

    A packed file may be changed without changing what it unpacks to (its name, its time): then the images must be those
    of the whole file.
    """
    chance = random.Random(seed)
    found, harmless = [], 0
    dataset = describe()
    with tempfile.TemporaryDirectory() as name:
        folder = write_raw(Path(name))
        whole = {split: load_split(Path(name), split, dataset=dataset) for split in ("train", "test")}
        for number in range(mutations):
            files = PACKED if number % 2 else CONTENTS
            victim = chance.choice(sorted(files))
            changed = mutate(files[victim], chance)
            if changed == files[victim]:
                continue
            for path in folder.iterdir():
                path.unlink()
            for other, content in files.items():
                (folder / other).write_bytes(changed if other == victim else content)
            try:
                prepare(Path(name), download=False, dataset=dataset)
                read = {
                    split: load_split(Path(name), split, download=False, dataset=dataset) for split in ("train", "test")
                }
            except UserError as error:
                if str(folder / victim) not in str(error):
                    found.append(f"mutation {number}: the message does not name {victim}: {error}")
            else:
                harmless += 1
                same = all(
                    np.array_equal(a, b) for split in read for a, b in zip(read[split], whole[split], strict=True)
                )
                if not same:
                    found.append(f"mutation {number} of {victim} was read")
    return mutations - harmless, found


def seconds_to_check_the_real_files(root: Path) -> float:
    """How long it takes to prove the four files of Fashion-MNIST intact, the fastest of five times."""

    def once() -> float:
        began = time.perf_counter()
        prepare(root, download=False)
        return time.perf_counter() - began

    return min(once() for _ in range(5))


def soak() -> str:
    """1,000 mutations; the 20 kinds of damage are listed one by one in ``test_dataset_files.py``."""
    refused, found = check(1000, seed=0)
    assert not found, "\n".join(found)
    said = f"1,000 mutations of data files: {refused} refused with file and remedy, the rest changed no image"
    root = Path(os.environ.get("DATA_DIR", "data"))
    if (root / "FashionMNIST" / "raw").is_dir():
        said += f"; checking the real files takes {seconds_to_check_the_real_files(root):.2f} s"
    return said
