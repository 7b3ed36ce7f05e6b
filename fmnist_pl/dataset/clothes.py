"""Ten classes of clothes, in the order of Fashion-MNIST's labels, made to be confused as real ones are.

Each function renders B images of its class: grey values (B, 28, 28), about 0 to 1, on black. What makes a class is its
cut; sleeves, lengths, heights and openings overlap between neighbours (shirt, coat, pullover, T-shirt; sneaker, sandal,
boot), so that some images could be either.

They are put together from anti-aliased grey shapes. All shapes of one call have the shape (B, 28, 28) or broadcast to
it; parameters are (B, 1, 1), one per image. Only ``+ - * /``, square root, minimum and maximum are used, which IEEE 754
rounds alike on every machine, and random numbers come from PCG64's raw output, whose stream NumPy guarantees: the same
seed renders the same bytes everywhere.
"""

from collections.abc import Callable, Sequence

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


def _upper_body(
    rng: ImageRng, x: Numbers, y: Numbers, *, sleeve: Numbers, hem: Numbers, waist: Numbers, neck: tuple[Value, Value]
) -> Numbers:
    """Torso with two sleeves of length ``sleeve`` (1: to the wrist); ``neck`` is its half-width and depth."""
    shoulder, chest = rng.uniform(0.36, 0.48), rng.uniform(0.38, 0.5)
    top = rng.uniform(-0.88, -0.76)
    body = slab(x, y, (top, top + 0.1, -0.35, 0.1, hem), (shoulder * 0.6, shoulder, chest, waist, waist + 0.04))
    spread, drop = rng.uniform(0.2, 0.46), rng.uniform(1.1, 1.4)
    end_x, end_y = shoulder - 0.06 + sleeve * spread, top + 0.24 + sleeve * drop
    root, cuff = rng.uniform(0.14, 0.2), rng.uniform(0.08, 0.14)
    arms = limb(np.abs(x), y, (shoulder - 0.08, top + 0.2), (end_x, end_y), (root, root + sleeve * (cuff - root)))
    seam = rng.uniform(0, 0.35) * soften(np.abs(np.abs(x) - shoulder - 0.03) - 0.03) * soften(-y - 0.3)
    cloth = np.maximum(body, arms * (sleeve > 0.05)) - seam * arms
    return cloth * (1 - ellipse(x, y, top, neck))


def _opening(x: Numbers, y: Numbers, top: Value, bottom: Value, half_width: Value) -> Numbers:
    """A vertical line in the middle: a button border or the gap of an open front."""
    return soften(np.maximum(np.abs(x) - half_width, np.maximum(top - y, y - bottom)))


def _either(rng: ImageRng, probability: float, first: Numbers, second: Numbers) -> Numbers:
    """``first`` with ``probability``, else ``second``, chosen per image."""
    return np.where(rng.chance(probability) > 0, first, second)


def t_shirt(rng: ImageRng, x: Numbers, y: Numbers) -> Numbers:
    """Short sleeves, round neck; at times sleeveless or with half sleeves, at times a print."""
    sleeve = _either(rng, 0.9, rng.uniform(0.12, 0.34), rng.uniform(0.0, 0.75))
    neck = (rng.uniform(0.14, 0.26), rng.uniform(0.08, 0.24))
    cloth = _upper_body(rng, x, y, sleeve=sleeve, hem=rng.uniform(0.6, 0.92), waist=rng.uniform(0.34, 0.5), neck=neck)
    logo = ellipse(x, y, rng.uniform(-0.3, 0.1), (rng.uniform(0.12, 0.28), rng.uniform(0.08, 0.25)))
    return cloth * (1 + rng.chance(0.35) * rng.uniform(-0.8, 0.5) * logo)


def trouser(rng: ImageRng, x: Numbers, y: Numbers) -> Numbers:
    """Two legs from one waist, wide or narrow, at times short."""
    waist, hip, foot = rng.uniform(0.2, 0.32), rng.uniform(0.26, 0.38), rng.uniform(0.2, 0.44)
    crotch, hem = rng.uniform(-0.5, -0.1), _either(rng, 0.93, rng.uniform(0.82, 0.96), rng.uniform(0.3, 0.8))
    legs = slab(x, y, (-0.94, -0.55, 0.0, hem), (waist, hip, (hip + foot) / 2, foot))
    gap = piecewise(y, (crotch, hem), (-0.04, rng.uniform(0.0, 0.16)))
    between = soften(np.maximum(np.abs(x) - gap, crotch - y))
    crease = rng.uniform(0, 0.3) * soften(np.abs(np.abs(x) - foot * 0.6) - 0.02)
    return legs * (1 - between * rng.uniform(0.55, 1)) * (1 - crease)


def pullover(rng: ImageRng, x: Numbers, y: Numbers) -> Numbers:
    """Long sleeves, closed front, ribbed hem; at times a stand-up collar."""
    sleeve = _either(rng, 0.94, rng.uniform(0.82, 1.06), rng.uniform(0.3, 0.85))
    hem = rng.uniform(0.62, 0.9)
    neck = (rng.uniform(0.12, 0.24), rng.uniform(0.04, 0.2))
    cloth = _upper_body(rng, x, y, sleeve=sleeve, hem=hem, waist=rng.uniform(0.36, 0.52), neck=neck)
    collar = rng.chance(0.35) * slab(x, y, (-0.95, -0.78), (0.14, 0.2)) * rng.uniform(0.6, 1.1)
    ribs = rng.chance(0.5) * rng.uniform(0.1, 0.4) * soften(hem - rng.uniform(0.08, 0.16) - y)
    return np.maximum(cloth * (1 - ribs), collar)


def dress(rng: ImageRng, x: Numbers, y: Numbers) -> Numbers:
    """Narrow at the waist and long, flared or straight; mostly without sleeves."""
    shoulder, chest = rng.uniform(0.18, 0.34), rng.uniform(0.22, 0.36)
    waist, flare = rng.uniform(0.16, 0.34), rng.uniform(0.22, 0.62)
    hem, waist_y = _either(rng, 0.9, rng.uniform(0.82, 0.97), rng.uniform(0.55, 0.85)), rng.uniform(-0.25, 0.1)
    body = slab(x, y, (-0.92, -0.55, waist_y, hem), (shoulder, chest, waist, flare))
    sleeve = rng.chance(0.4) * rng.uniform(0.1, 1.0)
    arms = limb(
        np.abs(x), y, (shoulder - 0.06, -0.76), (shoulder + 0.28 * sleeve, -0.7 + sleeve), (0.12, 0.12 - 0.04 * sleeve)
    )
    cloth = np.maximum(body, arms * (sleeve > 0.05))
    belt = rng.chance(0.3) * rng.uniform(0.2, 0.8) * soften(np.abs(y - waist_y) - 0.04)
    return cloth * (1 - ellipse(x, y, -0.92, (shoulder * 0.6, rng.uniform(0.08, 0.4)))) * (1 - belt)


def coat(rng: ImageRng, x: Numbers, y: Numbers) -> Numbers:
    """Long sleeves, long and straight, open or buttoned down the front, lapels."""
    sleeve = rng.uniform(0.85, 1.08)
    neck = (rng.uniform(0.1, 0.2), rng.uniform(0.08, 0.34))
    hem = rng.uniform(0.68, 0.96)
    cloth = _upper_body(rng, x, y, sleeve=sleeve, hem=hem, waist=rng.uniform(0.36, 0.54), neck=neck)
    front = _opening(x, y, -0.75, 1.0, rng.uniform(0.01, 0.06)) * rng.uniform(0.1, 0.9) * rng.chance(0.88)
    lapel_end = rng.uniform(-0.45, 0.0)
    lapels = soften(np.abs(np.abs(x) - piecewise(y, (-0.85, lapel_end), (0.26, 0.02))) - 0.025)
    lapels = lapels * soften(y - lapel_end) * rng.uniform(0, 0.6)
    pockets = soften(np.maximum(np.abs(np.abs(x) - 0.24) - 0.09, np.abs(y - 0.3) - 0.02)) * rng.uniform(0, 0.45)
    return cloth * (1 - front) * (1 - lapels) * (1 - pockets)


def sandal(rng: ImageRng, x: Numbers, y: Numbers) -> Numbers:
    """A sole, flat or raised, and straps over it."""
    ground, lift = rng.uniform(0.3, 0.6), _either(rng, 0.5, rng.uniform(0.0, 0.12), rng.uniform(0.12, 0.55))
    sole_top = piecewise(x, (-0.3, 0.5), (ground - 0.1, ground - 0.1 - lift))
    thin = rng.chance(0.5)
    sole_low = np.where(thin * (x < 0.45) > 0, np.minimum(sole_top + 0.13, ground), ground)  # thin: an arch, a heel
    ends = np.maximum(-0.92 - x, x - 0.88)
    sole = soften(np.maximum(np.maximum(sole_top - y, y - sole_low), ends))
    height = rng.uniform(0.15, 0.5)
    upper_top = piecewise(x, (-0.9, -0.55, 0.1, 0.5, 0.85), (0.0, -0.16, -height * 0.7, -height, -height * 1.1))
    upper = soften(np.maximum(np.maximum(sole_top + upper_top - y, y - sole_top), ends))
    slanted = x + rng.uniform(-0.6, 0.6) * (y - ground)
    straps = stripes(slanted + rng.uniform(0, 1), rng.uniform(0.3, 0.75), rng.uniform(0.2, 0.75))
    rim = soften(np.abs(y - sole_top - upper_top) - 0.03) * upper * rng.chance(0.6)
    return np.maximum(sole * rng.uniform(0.6, 1), upper * np.maximum(straps, rim))


def shirt(rng: ImageRng, x: Numbers, y: Numbers) -> Numbers:
    """Between T-shirt, pullover and coat: sleeves of any length, a collar, a fine button border."""
    sleeve = _either(rng, 0.6, rng.uniform(0.8, 1.06), rng.uniform(0.12, 0.5))
    neck = (rng.uniform(0.1, 0.22), rng.uniform(0.06, 0.3))
    cloth = _upper_body(rng, x, y, sleeve=sleeve, hem=rng.uniform(0.62, 0.94), waist=rng.uniform(0.34, 0.5), neck=neck)
    border = _opening(x, y, -0.7, 1.0, 0.03) * rng.uniform(0.05, 0.4) * rng.chance(0.75)
    dots = stripes(y, 0.3, 0.3) * _opening(x, y, -0.6, 1.0, 0.035) * rng.uniform(-0.5, 0.3) * rng.chance(0.5)
    collar = limb(np.abs(x), y, (0.05, -0.62), (0.22, -0.86), (0.05, 0.07)) * rng.uniform(0.6, 1.2) * rng.chance(0.6)
    return np.maximum(cloth * (1 - border + dots), collar)


def sneaker(rng: ImageRng, x: Numbers, y: Numbers) -> Numbers:
    """Low and long, toe to the left, a sole of its own shade; at times high at the ankle."""
    ground, height = rng.uniform(0.36, 0.58), _either(rng, 0.88, rng.uniform(0.52, 0.72), rng.uniform(0.7, 0.95))
    toe, ankle = ground - rng.uniform(0.22, 0.32), ground - height
    laces, tongue = rng.uniform(-0.4, -0.2), rng.uniform(0.05, 0.22)
    knots = (-0.94, -0.82, laces, tongue, tongue + 0.12, 0.6, 0.74, 0.88)
    dip = rng.uniform(0.02, 0.16)
    tops = (toe + 0.1, toe, toe - 0.08, ankle, ankle + dip, ankle + dip, ankle - 0.02, ankle + 0.04)
    shoe = hill(x, y, knots, tops, ground)
    sole = soften(ground - rng.uniform(0.08, 0.15) - y) * rng.uniform(-0.6, 0.6)
    flash = soften(np.abs(y - ground + 0.25 + 0.5 * x * rng.uniform(-1, 1)) - 0.03) * soften(np.abs(x - 0.1) - 0.35)
    return shoe * (1 + sole) * (1 + flash * rng.uniform(-0.7, 0.5))


def bag(rng: ImageRng, x: Numbers, y: Numbers) -> Numbers:
    """A box, wider or taller, with one or two handles or a strap, at times none."""
    top, bottom = rng.uniform(-0.45, 0.0), rng.uniform(0.55, 0.9)
    upper, lower = rng.uniform(0.5, 0.85), rng.uniform(0.55, 0.92)
    body = slab(x, y, (top, top + 0.08, bottom - 0.08, bottom), (upper - 0.06, upper, lower, lower - 0.08))
    reach = np.maximum(top + 0.92, 0.25) * rng.uniform(0.55, 1.0)
    handle = ring(x, y, top, (upper * rng.uniform(0.35, 0.95), reach), rng.uniform(0.02, 0.07)) * soften(y - top)
    flap = soften(np.abs(y - top - rng.uniform(0.15, 0.5)) - 0.025) * rng.uniform(0, 0.6)
    clasp = ellipse(x, y, top + 0.35, (0.1, 0.08)) * rng.uniform(-0.6, 0.5) * rng.chance(0.5)
    return np.maximum(body * (1 - flap) * (1 + clasp), handle * rng.uniform(0.5, 1) * rng.chance(0.85))


def ankle_boot(rng: ImageRng, x: Numbers, y: Numbers) -> Numbers:
    """Toe to the left, a shaft over the ankle, often a heel."""
    ground, height = rng.uniform(0.6, 0.85), _either(rng, 0.88, rng.uniform(1.0, 1.55), rng.uniform(0.7, 1.05))
    front, toe = rng.uniform(-0.25, 0.12), ground - rng.uniform(0.2, 0.34)
    shaft = ground - height
    knots = (-0.92, -0.75, front - 0.3, front, front + 0.12, 0.84)
    boot = hill(x, y, knots, (toe + 0.08, toe - 0.03, toe - 0.16, toe - 0.35, shaft, shaft + 0.06), ground)
    heel = rng.chance(0.6) * rng.uniform(0.05, 0.18)
    arch = soften(np.maximum(ground - heel - y, np.maximum(-0.35 - x, x - rng.uniform(0.35, 0.6))))
    sole = soften(ground - 0.1 - y) * rng.uniform(-0.5, 0.5)
    zipper = soften(np.abs(x - front - 0.4) - 0.02) * soften(y - ground + 0.3) * rng.uniform(0, 0.6)
    return boot * (1 + sole) * (1 - arch) * (1 - zipper)


CLOTHES: tuple[Callable[[ImageRng, Numbers, Numbers], Numbers], ...] = (
    t_shirt, trouser, pullover, dress, coat, sandal, shirt, sneaker, bag, ankle_boot,
)  # fmt: skip
