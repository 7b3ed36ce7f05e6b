"""The data set as every contender can read it: torchvision wants the four files unpacked."""

import gzip
import os
import shutil
from pathlib import Path

NAMES = ("train-images-idx3-ubyte", "train-labels-idx1-ubyte", "t10k-images-idx3-ubyte", "t10k-labels-idx1-ubyte")


def unpacked(target: Path, root: Path | None = None) -> Path:
    """Put the four files, unpacked, into ``target/FashionMNIST/raw`` and return ``target``.

    Args:
        target: An existing folder.
        root: Folder that holds FashionMNIST/raw. Default: the environment variable DATA_DIR, else ``data``.

    Raises:
        SystemExit: If a file is missing.
    """
    source = (root or Path(os.environ.get("DATA_DIR") or "data")) / "FashionMNIST" / "raw"
    folder = target / "FashionMNIST" / "raw"
    folder.mkdir(parents=True)
    for name in NAMES:
        packed, plain = source / f"{name}.gz", source / name
        if plain.exists():
            shutil.copyfile(plain, folder / name)
        elif packed.exists():
            with gzip.open(packed) as original, (folder / name).open("wb") as copy:
                shutil.copyfileobj(original, copy)
        else:
            raise SystemExit(f"{packed} is missing. Fetch the data with `fmnist fit`, or name its folder in DATA_DIR.")
    return target
