"""A stand-in for Fashion-MNIST that needs no download: drawn garments in the same files, read by the same code.

The drawings are a function of (seed, split, number of images) alone, to the byte, on every machine. They are kept in a
folder of their own under the root, so that real data and drawings of another seed or size are never mixed up. Where
nothing can be written they are drawn anew in memory, at 15,000 images per second and core.
"""

import json
from pathlib import Path

import numpy as np

from fmnist_pl.dataset.drawing import SIDE
from fmnist_pl.dataset.files import DatasetFiles, Split, load_split, raw_folder
from fmnist_pl.dataset.folder_lock import folder_lock
from fmnist_pl.dataset.garments import DRAWINGS
from fmnist_pl.dataset.idx_format import decode_images, decode_labels, encode, pack
from fmnist_pl.dataset.photography import draw
from fmnist_pl.dataset.verified_file import DataFile, install, remove_unfinished
from training_health.errors import UserError

TRAIN_IMAGES = 12_000
TEST_IMAGES = 2_000
VERSION = 1  # raise it when a drawing changes: old folders are then left unused
_NAMES = {
    "train": ("train-images-idx3-ubyte", "train-labels-idx1-ubyte"),
    "test": ("t10k-images-idx3-ubyte", "t10k-labels-idx1-ubyte"),
}


def generate(split: Split, seed: int, images: int) -> tuple[np.ndarray, np.ndarray]:
    """Draw one split in memory.

    Args:
        split: "train" or "test"; the two share no image.
        seed: Any whole number from 0.
        images: How many; the ten classes get equal shares (to within one), in mixed order.

    Returns:
        Images (N, 28, 28) uint8 and labels (N,) uint8.

    Raises:
        UserError: Fewer than one image or a negative seed.
    """
    if images < 1 or seed < 0:
        raise UserError(f"synthetic data needs at least one image and a seed from 0, got {images} and {seed}.", 2)
    key = (seed, list(_NAMES).index(split))
    shuffled = np.argsort(np.random.PCG64(np.random.SeedSequence(key)).random_raw(images), kind="stable")
    labels = (shuffled % len(DRAWINGS)).astype(np.uint8)
    drawn = np.empty((images, SIDE, SIDE), np.uint8)
    for label in range(min(len(DRAWINGS), images)):
        drawn[labels == label] = draw(label, int((labels == label).sum()), *key)
    return drawn, labels


def write_synthetic(
    root: Path, seed: int = 0, train_images: int = TRAIN_IMAGES, test_images: int = TEST_IMAGES
) -> DatasetFiles:
    """Draw both splits and write them as packed IDX files into ``root/FashionMNIST/raw/``.

    Returns:
        The files with their hashes, for `load_split`; also kept in ``synthetic.json`` beside them.

    Raises:
        OSError: The folder or the disk refused.
        UserError: See `generate`.
    """
    folder = raw_folder(root)
    folder.mkdir(parents=True, exist_ok=True)
    files: dict[str, tuple[DataFile, DataFile]] = {}
    for split, count in (("train", train_images), ("test", test_images)):
        contents = [encode(array) for array in generate(split, seed, count)]  # type: ignore[arg-type]
        images_file, labels_file = map(DataFile.of, _NAMES[split], contents)
        files[split] = images_file, labels_file
        for file, content in zip(files[split], contents, strict=True):
            path = folder / file.packed_name
            remove_unfinished(path)
            install(path, pack(content), receipt=f"Drawn by fmnist_pl from seed {seed}; it may be replaced.\n")
    listed = {split: [[file.name, file.size, file.sha256] for file in pair] for split, pair in files.items()}
    # last: its presence says that the four files are complete
    install(_catalogue(root), json.dumps(listed, indent=1).encode(), receipt="Written by fmnist_pl.\n")
    return DatasetFiles(files["train"], files["test"], mirrors=())


def load_synthetic(
    root: Path, split: Split, seed: int = 0, train_images: int = TRAIN_IMAGES, test_images: int = TEST_IMAGES
) -> tuple[np.ndarray, np.ndarray]:
    """One split of the drawn garments, from their files if they are there and intact, else drawn (and kept).

    Args:
        root: Folder under which ``synthetic-...`` is kept. Need not be writable.
        split: "train" or "test".
        seed: Of the drawings, from 0.
        train_images: Images in the training split.
        test_images: Images in the test split.

    Returns:
        Images (N, 28, 28) uint8 and labels (N,) uint8 in 0..9, as `load_split` gives them.

    Raises:
        UserError: See `generate`.
    """
    home = synthetic_folder(root, seed, train_images, test_images)
    found = _read(home, split)
    if found is not None:
        return found
    try:
        with folder_lock(raw_folder(home), "drawing garments into"):
            found = _read(home, split)  # another process may have drawn them while this one waited
            if found is None:
                write_synthetic(home, seed, train_images, test_images)
                found = _read(home, split)
    except OSError:  # a read-only folder or a full disk: the files only save time
        found = None
    return found or _in_memory(split, seed, train_images if split == "train" else test_images)


def synthetic_folder(root: Path, seed: int, train_images: int, test_images: int) -> Path:
    """Where the drawings of these arguments are kept, in torchvision's layout."""
    return Path(root).expanduser() / f"synthetic-v{VERSION}-seed{seed}-{train_images}-{test_images}"


def _catalogue(home: Path) -> Path:
    return raw_folder(home) / "synthetic.json"


def _read(home: Path, split: Split) -> tuple[np.ndarray, np.ndarray] | None:
    """The split, or None where the files are not there, incomplete or damaged."""
    try:
        listed = json.loads(_catalogue(home).read_text())
        train, test = (tuple(DataFile(*entry) for entry in listed[key]) for key in ("train", "test"))
        dataset = DatasetFiles(train, test, mirrors=())  # type: ignore[arg-type]
        return load_split(home, split, download=False, keras_cache=None, dataset=dataset)
    except (OSError, ValueError, KeyError, TypeError, UserError):
        return None


def _in_memory(split: Split, seed: int, images: int) -> tuple[np.ndarray, np.ndarray]:
    drawn, labels = generate(split, seed, images)
    here = Path("(in memory)")
    return decode_images(encode(drawn), here), decode_labels(encode(labels), here)
