"""What happens to a drawn garment on its way to an image: cloth, light, things in front of it, noise, 8 bits."""

import numpy as np

from fmnist_pl.dataset.drawing import SIDE, Dice, Numbers, coordinates, stripes
from fmnist_pl.dataset.garments import DRAWINGS

BLOCK = 250  # images drawn at a time: few enough for a processor's cache


def draw(label: int, images: int, *key: int) -> np.ndarray:
    """Draw ``images`` garments of class ``label``: (images, 28, 28) uint8, a function of the arguments alone."""
    blocks = range(0, images, BLOCK)
    return np.concatenate([_block(label, min(BLOCK, images - start), (*key, label, start)) for start in blocks])


def _block(label: int, images: int, key: tuple[int, ...]) -> np.ndarray:
    dice = Dice(images, *key)
    x, y = coordinates(dice)
    grey = DRAWINGS[label](dice, x, y) * _cloth(dice, x, y)
    grey = grey + _noise(dice, grey)
    grey = np.where(_hidden(dice), dice.uniform(0, 0.6) * dice.chance(0.5), grey)
    return (np.clip(grey, 0, 1) * np.float32(255) + np.float32(0.5)).astype(np.uint8)


def _cloth(dice: Dice, x: Numbers, y: Numbers) -> Numbers:
    """Brightness, shading towards one side, and on a third of the garments a pattern."""
    across, down = dice.uniform(-0.25, 0.25), dice.uniform(-0.25, 0.25)
    shade = dice.uniform(0.3, 1.0) * (1 + across * x + down * y)
    upright, period = dice.chance(0.5), dice.uniform(0.16, 0.5)
    lines = stripes(np.where(upright > 0, x, y) + dice.uniform(0, 1), period)
    crossing = stripes(np.where(upright > 0, y, x), period) * dice.chance(0.3)
    return shade * (1 - dice.chance(0.33) * dice.uniform(0.1, 0.7) * np.maximum(lines, crossing))


def _noise(dice: Dice, grey: Numbers) -> Numbers:
    """The grain of the cloth, and a little on the background."""
    noise = dice.noise()
    return noise * (dice.uniform(0.02, 0.25) * grey + dice.uniform(0.0, 0.04) * dice.chance(0.3))


def _hidden(dice: Dice) -> np.ndarray:
    """A rectangle that something hides, in one image of four: bool (B, 28, 28)."""
    places = np.arange(SIDE, dtype=np.float32)
    left, top = dice.uniform(-4, SIDE), dice.uniform(-4, SIDE)
    wide, high = dice.uniform(3, 12), dice.uniform(3, 12)
    columns, rows = places[None, None, :] - left, places[None, :, None] - top
    inside = (columns >= 0) & (columns < wide) & (rows >= 0) & (rows < high)
    return inside & (dice.chance(0.25) > 0)
