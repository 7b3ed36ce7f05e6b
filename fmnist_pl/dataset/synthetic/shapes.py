"""Anti-aliased grey shapes on many 28x28 canvases at once.

All shapes of one call have the shape (B, 28, 28) or broadcast to it; parameters are (B, 1, 1), one per image. Only
``+ - * /``, square root, minimum and maximum are used, which IEEE 754 rounds alike on every machine, and random numbers
come from PCG64's raw output, whose stream NumPy guarantees: the same seed renders the same bytes everywhere.
"""

from collections.abc import Sequence

import numpy as np

SIDE = 28
PIXELS_PER_UNIT = np.float32(SIDE / 2)  # canvases span -1..1

Numbers = np.ndarray  # float32, broadcasts to (B, 28, 28)
Value = np.ndarray | float


class ImageRng:
    """Uniform random numbers, one per image, that depend on ``key`` alone."""

    def __init__(self, images: int, *key: int) -> None:
        self.images = images
        self._bits = np.random.PCG64(np.random.SeedSequence(key))

    def uniform(self, low: float, high: float) -> Numbers:
        """Numbers in [low, high) of shape (B, 1, 1)."""
        raw = self._bits.random_raw(self.images) >> 40  # 24 bits: all that a float32 holds
        unit = raw.astype(np.float32) * np.float32(2.0**-24)
        return (np.float32(low) + np.float32(high - low) * unit).reshape(self.images, 1, 1)

    def chance(self, probability: float) -> Numbers:
        """1.0 with ``probability``, else 0.0, of shape (B, 1, 1)."""
        return (self.uniform(0, 1) < np.float32(probability)).astype(np.float32)

    def noise(self) -> Numbers:
        """Bell-shaped noise in (-1, 1) per pixel, (B, 28, 28): the mean of two 16-bit uniforms from one draw."""
        raw = self._bits.random_raw((self.images * SIDE * SIDE + 1) // 2)
        halves = raw.astype("<u8").view("<u2")[: 2 * self.images * SIDE * SIDE].astype(np.float32)
        pairs = halves.reshape(self.images, SIDE, SIDE, 2)
        return (pairs[..., 0] + pairs[..., 1]) * np.float32(2.0**-16) - np.float32(1)


def coordinates(rng: ImageRng) -> tuple[Numbers, Numbers]:
    """Axes to the right (x) and downwards (y) as the clothes see them: moved, turned, slanted, scaled and bent."""
    centres = (np.arange(SIDE, dtype=np.float32) + np.float32(0.5)) / PIXELS_PER_UNIT - np.float32(1)
    x = centres[None, None, :] - rng.uniform(-0.08, 0.08)
    y = centres[None, :, None] - rng.uniform(-0.07, 0.07)
    half_tangent = rng.uniform(-0.05, 0.05)  # of the angle: sine and cosine without the maths library, +-6 degrees
    norm = 1 + half_tangent * half_tangent
    cosine, sine = (1 - half_tangent * half_tangent) / norm, 2 * half_tangent / norm
    x, y = cosine * x + sine * y, cosine * y - sine * x
    x = x + rng.uniform(-0.08, 0.08) * y + rng.uniform(-0.06, 0.06) * (y * y - np.float32(0.3))
    return x / rng.uniform(0.86, 1.06), y / rng.uniform(0.9, 1.04)


def soften(distance: Numbers) -> Numbers:
    """Coverage in [0, 1] from a signed distance (negative inside) in canvas units; the edge is one pixel wide."""
    return np.clip(np.float32(0.5) - distance * PIXELS_PER_UNIT, 0, 1)


def piecewise(position: Numbers, knots: Sequence[Value], values: Sequence[Value]) -> Numbers:
    """The piecewise-linear function through ``(knots, values)``, constant outside; knots must rise."""
    result = np.float32(0) * position + values[0]
    for left, right, low, high in zip(knots, knots[1:], values, values[1:], strict=False):
        result = result + (high - low) * np.clip((position - left) / (right - left), 0, 1)
    return result.astype(np.float32)


def slab(x: Numbers, y: Numbers, knots: Sequence[Value], half_widths: Sequence[Value]) -> Numbers:
    """Coverage of an upright shape, symmetric about x = 0, whose half-width at height ``knots[i]`` is given."""
    outside = np.maximum(knots[0] - y, y - knots[-1])
    return soften(np.maximum(np.abs(x) - piecewise(y, knots, half_widths), outside))


def hill(x: Numbers, y: Numbers, knots: Sequence[Value], tops: Sequence[Value], ground: Value) -> Numbers:
    """Coverage of a shape that stands on ``ground`` and whose upper edge at ``knots[i]`` is ``tops[i]``."""
    outside = np.maximum(knots[0] - x, x - knots[-1])
    return soften(np.maximum(np.maximum(piecewise(x, knots, tops) - y, y - ground), outside))


def limb(
    x: Numbers, y: Numbers, start: tuple[Value, Value], end: tuple[Value, Value], thickness: tuple[Value, Value]
) -> Numbers:
    """Coverage of a straight limb from ``start`` to ``end`` (x, y) with half its thickness at either end."""
    along_x, along_y = end[0] - start[0], end[1] - start[1]
    fraction = ((x - start[0]) * along_x + (y - start[1]) * along_y) / (along_x * along_x + along_y * along_y)
    near = np.clip(fraction, 0, 1)
    across_x, across_y = x - start[0] - near * along_x, y - start[1] - near * along_y
    distance = np.sqrt(across_x * across_x + across_y * across_y)
    blunt = np.maximum(fraction - 1, -fraction) * np.sqrt(along_x * along_x + along_y * along_y)  # flat ends: cuffs
    return soften(np.maximum(distance - (thickness[0] + near * (thickness[1] - thickness[0])), blunt))


def ring(x: Numbers, y: Numbers, centre: Value, radii: tuple[Value, Value], thickness: Value) -> Numbers:
    """Coverage of an elliptic line around (0, ``centre``) with horizontal and vertical ``radii``."""
    across, down = x / radii[0], (y - centre) / radii[1]
    return soften(np.abs(np.sqrt(across * across + down * down) - 1) * radii[0] - thickness)


def ellipse(x: Numbers, y: Numbers, centre: Value, radii: tuple[Value, Value]) -> Numbers:
    """Coverage of a filled ellipse around (0, ``centre``)."""
    across, down = x / radii[0], (y - centre) / radii[1]
    return soften((np.sqrt(across * across + down * down) - 1) * np.minimum(radii[0], radii[1]))


def stripes(position: Numbers, period: Value, fraction: Value = 0.5) -> Numbers:
    """1 on stripes across ``position``, 0 between them; ``fraction`` of each period is stripe."""
    phase = position / period
    return soften((np.abs(phase - np.floor(phase) - np.float32(0.5)) - np.float32(0.5) * fraction) * period)
