"""Synthetic images: ten classes of rendered clothes that need no network, and the files that keep them.

They are a function of (seed, split, number of images) alone, to the byte, on every machine. Where nothing can be
written they are rendered in memory, at 15,000 images per second and core.
"""

import contextlib
import io
import zipfile
from pathlib import Path

import numpy as np

from fmnist_pl.dataset.clothes import CLOTHES, SIDE, ImageRng, Numbers, coordinates, stripes
from fmnist_pl.dataset.files import Split
from training_health.durable_file import replace_durably

SYNTHETIC_IMAGES = {"train": 12_000, "test": 2_000}
VERSION = 1  # raise it when a rendering changes: old files are then left unused
BLOCK = 250  # images rendered at a time: few enough for a processor's cache

Images = tuple[np.ndarray, np.ndarray]  # (N, 28, 28) uint8, labels (N,) uint8


def load_synthetic(root: Path, split: Split, seed: int = 0, images: int | None = None) -> Images:
    """One split of the synthetic images, from its file if that is there and intact, else rendered (and kept).

    The file lies in ``root``, which need not be writable. The ten classes are equally frequent, to within one image, in
    mixed order; "train" and "test" have no image in common. Returned as by `fmnist_pl.dataset.files.load_split`.
    """
    images = SYNTHETIC_IMAGES[split] if images is None else images
    path = Path(root).expanduser() / f"synthetic-v{VERSION}-seed{seed}-{split}-{images}.npz"
    with contextlib.suppress(Exception):  # not there, or damaged in whichever way: it is made again
        if not path.is_file():
            raise FileNotFoundError  # nor a pipe, which would wait
        with zipfile.ZipFile(path) as archive:
            damaged = archive.testzip()  # the first array whose checksum does not match
        with np.load(path) as arrays:
            if damaged is None:
                return arrays["images"], arrays["labels"]
    pixels, labels = generate(split, seed, images)
    content = io.BytesIO()
    np.savez_compressed(content, images=pixels, labels=labels)
    with contextlib.suppress(OSError):  # a read-only folder or a full disk: the file only saves time
        replace_durably(path, content.getvalue())
    return pixels, labels


def generate(split: Split, seed: int, images: int) -> Images:
    """Render what `load_synthetic` returns, in memory."""
    key = (seed, list(SYNTHETIC_IMAGES).index(split))
    shuffled = np.argsort(np.random.PCG64(np.random.SeedSequence(key)).random_raw(images), kind="stable")
    labels = (shuffled % len(CLOTHES)).astype(np.uint8)
    pixels = np.empty((images, SIDE, SIDE), np.uint8)
    for label in range(min(len(CLOTHES), images)):
        pixels[labels == label] = render(label, int((labels == label).sum()), *key)
    return pixels, labels


def render(label: int, images: int, *key: int) -> np.ndarray:
    """``images`` images of class ``label``: (images, 28, 28) uint8, a function of the arguments alone."""
    blocks = range(0, images, BLOCK)
    return np.concatenate([_block(label, min(BLOCK, images - start), (*key, label, start)) for start in blocks])


def _block(label: int, images: int, key: tuple[int, ...]) -> np.ndarray:
    rng = ImageRng(images, *key)
    x, y = coordinates(rng)
    grey = CLOTHES[label](rng, x, y) * _cloth(rng, x, y)
    grey = grey + _noise(rng, grey)
    grey = np.where(_hidden(rng), rng.uniform(0, 0.6) * rng.chance(0.5), grey)
    return (np.clip(grey, 0, 1) * np.float32(255) + np.float32(0.5)).astype(np.uint8)


def _cloth(rng: ImageRng, x: Numbers, y: Numbers) -> Numbers:
    """Brightness, shading towards one side, and on a third of the images a pattern."""
    across, down = rng.uniform(-0.25, 0.25), rng.uniform(-0.25, 0.25)
    shade = rng.uniform(0.3, 1.0) * (1 + across * x + down * y)
    upright, period = rng.chance(0.5), rng.uniform(0.16, 0.5)
    lines = stripes(np.where(upright > 0, x, y) + rng.uniform(0, 1), period)
    crossing = stripes(np.where(upright > 0, y, x), period) * rng.chance(0.3)
    return shade * (1 - rng.chance(0.33) * rng.uniform(0.1, 0.7) * np.maximum(lines, crossing))


def _noise(rng: ImageRng, grey: Numbers) -> Numbers:
    """The grain of the cloth, and a little on the background."""
    noise = rng.noise()
    return noise * (rng.uniform(0.02, 0.25) * grey + rng.uniform(0.0, 0.04) * rng.chance(0.3))


def _hidden(rng: ImageRng) -> np.ndarray:
    """A rectangle that something hides, in one image of four: bool (B, 28, 28)."""
    position = np.arange(SIDE, dtype=np.float32)
    left, top = rng.uniform(-4, SIDE), rng.uniform(-4, SIDE)
    wide, high = rng.uniform(3, 12), rng.uniform(3, 12)
    columns, rows = position[None, None, :] - left, position[None, :, None] - top
    inside = (columns >= 0) & (columns < wide) & (rows >= 0) & (rows < high)
    return inside & (rng.chance(0.25) > 0)
