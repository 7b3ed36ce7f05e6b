"""The layer with weights before a ReLU: what it adds up, and over which inputs.

Followed are a linear layer, a convolution or a product with a weight matrix, then what leaves each unit on its own: an
added bias, batch normalisations, views, dropout in eval mode, pools, padding; not a residual addition, attention or a
layer normalisation. Affine is the map from the layer's input to a unit behind no more than an added bias, a batch
normalisation in eval mode, views, dropout and max-pools.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Sequence
from math import prod
from typing import Any, NamedTuple

import numpy as np
import torch
from torch import Tensor

from training_health.tensor_statistics import exact_dtype
from training_health.torch_private import is_transformed

_SPATIAL = {f"conv{'_transpose' if transposed else ''}{n}d": n for n in (1, 2, 3) for transposed in (False, True)}
_PRODUCTS = {"matmul", "mm"}
_ARGUMENTS = ("input", "weight", "bias", "stride", "padding", "dilation", "groups")
_TRANSPOSED = (*_ARGUMENTS[:5], "output_padding", "groups")
_NO_PADDING: tuple[object, ...] = (0, "valid")


class Source(NamedTuple):
    """Whose outputs values are, in one dimension: ``outer`` times all units of a ReLU site, ``block`` of each."""

    site: str
    units: int
    dim: int
    block: int = 1
    outer: int = 1

    @property
    def size(self) -> int:
        """The dimension's."""
        return self.outer * self.units * self.block

    def owners(self) -> list[int]:
        """The unit of each place in the dimension."""
        return [place // self.block % self.units for place in range(self.size)]


class Norm(NamedTuple):
    """A batch normalisation, (U,) each."""

    mean: Tensor | None
    var: Tensor | None
    weight: Tensor | None
    bias: Tensor | None
    eps: float

    @property
    def own(self) -> Tensor | None:
        """What tells it from others."""
        return self.weight if self.mean is None else self.mean


class Feed(NamedTuple):
    """One call of a layer with weights, whose output, normalised or pooled since, goes into a ReLU."""

    call: int  # its number among those of the pass
    weight: Tensor
    unit_dim: int  # the weight's dimension that has a row for each unit
    units: int  # how many there are, also where the weight is freed behind its layer
    biases: tuple[Tensor, ...]  # (U,) or (1,) each
    source: Source | None  # of its inputs
    low: Tensor | None  # the range of all its inputs in this call, with 0 where it pads; None: not looked at
    high: Tensor | None
    groups: int = 1
    norms: tuple[Norm, ...] = ()
    pooled: bool = False
    affine: bool = True

    @property
    def is_small(self) -> bool:
        """Whether a call of a function takes longer than its work on the weight."""
        return self.weight.numel() <= _SMALL

    def copied(self) -> Feed:
        """Give the same with tensors of its own."""
        weight, *biases = (tensor.detach().clone() for tensor in (self.weight, *self.biases))
        parts = ([None if part is None else part.detach().clone() for part in norm[:4]] for norm in self.norms)
        norms = tuple(Norm._make([*own, norm.eps]) for own, norm in zip(parts, self.norms, strict=True))
        return self._replace(weight=weight, biases=tuple(biases), norms=norms)

    def rows(self) -> Tensor:
        """The weight with a row for each unit: (U, inputs, taps)."""
        rows = self.weight.detach().movedim(self.unit_dim, 0)
        return rows.reshape(len(rows), rows.shape[1], -1)


def feed_of(
    name: str, args: Sequence[Any], kwargs: dict[str, Any], source: Source | None, call: int, ranged: bool
) -> Feed | None:
    """Read a call of a function with weights; None for one that is not followed.

    Args:
        name: The function's, without underscores.
        args: Its arguments; the weight is known to be one.
        kwargs: Its arguments by name.
        source: Of the input.
        call: The call's number in the pass.
        ranged: Whether the input's range is wanted.
    """
    pads, unit_dim, groups = False, 0, 1
    if name == "linear" and not kwargs:
        x, weight, bias = args if len(args) == 3 else (*args, None)
        fan_in_dim = x.dim() - 1
    elif name == "linear" or name in _SPATIAL:
        transposed = "transpose" in name
        given = dict(zip(_TRANSPOSED if transposed else _ARGUMENTS, args, strict=False)) | kwargs
        x, weight, bias = given["input"], given["weight"], given.get("bias")
        padding = given.get("padding", 0)
        padding = tuple(padding) if isinstance(padding, (tuple, list)) else (padding,)
        # Of a transposed convolution some outputs have fewer taps, as if there were zeros.
        pads, unit_dim = transposed or any(p not in _NO_PADDING for p in padding), int(transposed)
        fan_in_dim = x.dim() - 1 - _SPATIAL.get(name, 0)
        groups = given.get("groups", 1)
        if transposed and groups != 1:
            return None
    elif name in _PRODUCTS and len(args) == 2:
        (x, weight), bias, unit_dim, fan_in_dim = args, None, 1, args[0].dim() - 1
        if weight.dim() != 2:  # a stack of matrices
            return None
    elif name == "addmm" and len(args) == 3 and not kwargs and args[0].dim() == 1:
        (bias, x, weight), unit_dim, fan_in_dim = args, 1, 1
    else:
        return None
    if weight.dim() < 2 or is_transformed(x) or is_transformed(weight):
        return None
    fan_in = weight.shape[1 - unit_dim] * groups
    if source is not None and (source.dim != fan_in_dim or source.size != fan_in):
        source = None
    low = high = None
    if ranged and x.numel() and x.is_floating_point():
        low, high = (x.detach() if x.requires_grad else x).aminmax()
        if pads:
            low, high = low.clamp(max=0), high.clamp(min=0)
    biases = () if bias is None else (bias,)
    return Feed(call, weight, unit_dim, weight.shape[unit_dim], biases, source, low, high, groups)


def normalized(feed: Feed, args: Sequence[Any], kwargs: dict[str, Any]) -> Feed:
    """Give the map with a call of ``batch_norm`` behind it."""
    statistics, affine, rest = ("mean", "var"), ("weight", "bias"), ("training", "momentum", "eps", "cudnn_enabled")
    is_native = len(args) + len(kwargs) > 8  # `torch.batch_norm`, which exported networks call, has another order
    names = ("input", *((*affine, *statistics) if is_native else (*statistics, *affine)), *rest)
    given = dict(zip(names, args, strict=False)) | {k.removeprefix("running_"): v for k, v in kwargs.items()}
    norm = Norm(given["mean"], given["var"], given.get("weight"), given.get("bias"), given.get("eps", 1e-5))
    by_batch = given.get("training") or norm.mean is None
    return feed._replace(norms=(*feed.norms, norm), affine=feed.affine and not (by_batch or feed.norms or feed.pooled))


def biased(feed: Feed, bias: Tensor, output: Tensor, dim: int) -> Feed | None:
    """Give the map with ``bias`` added, which must differ from unit to unit only."""
    place = dim - (output.dim() - bias.dim())
    others = [size for d, size in enumerate(bias.shape) if d != place]
    if prod(others) != 1 or bias.numel() not in (1, feed.units) or feed.norms:
        return None
    return feed._replace(biases=(*feed.biases, bias.reshape(-1)))


_SMALL, _TOGETHER = 1 << 14, 1 << 20  # weights of a layer, and of those that are read together
_BLOCK = 1 << 17  # weights whose copies in double precision stay in a CPU's cache
# What `numbers_of` gives for each unit.
NUMBERS = ("up", "down", "offset", "bias", "along", "across", "layer_bias", "gain", "shift")


def read_numbers(feeds: Sequence[Feed]) -> list[Tensor]:
    """Read what `numbers_of` needs of affine maps on their devices, in double precision where these have it.

    Of each, rows of (U,): the sum of a unit's positive incoming weights, of all, their norm, the bias, and the number
    of inputs; behind a batch normalisation then its mean, variance, weight, bias and eps.
    """
    alike = defaultdict[object, list[int]](list)  # small ones are read together
    for place, feed in enumerate(feeds):
        weight, norms = feed.weight, [(norm.weight is None, norm.bias is None, norm.eps) for norm in feed.norms]
        kind = weight.numel() // feed.units, weight.dtype, weight.device, len(feed.biases), *norms
        alike[kind if feed.is_small else place].append(place)
    found: dict[int, Tensor] = {}
    for group in alike.values():
        count = _TOGETHER // max(1, *(feeds[place].weight.numel() for place in group)) or 1
        for places in (group[first : first + count] for first in range(0, len(group), count)):
            some = [feeds[place] for place in places]
            found |= zip(places, _read_alike(some).split([feed.units for feed in some], 1), strict=True)
    return [found[place] for place in range(len(feeds))]


def read_each(feeds: Sequence[Feed]) -> list[Tensor | None]:
    """Do as `read_numbers`; None for one that cannot be read, which must not cost the others theirs."""
    try:
        return [*read_numbers(feeds)]
    except Exception:
        return [None] if len(feeds) == 1 else [read_each([feed])[0] for feed in feeds]


def _read_alike(feeds: Sequence[Feed]) -> Tensor:
    exact = exact_dtype(feeds[0].weight.device)
    rows = _joined([feed.rows().flatten(1) for feed in feeds])
    parts = rows.split(max(1, _BLOCK // rows.shape[1])) if rows.is_cpu and rows.numel() > _BLOCK else [rows]
    wide = (part.to(exact, memory_format=torch.contiguous_format) for part in parts)  # whose sums are one row's each
    sums = [(part.relu().sum(1), part.sum(1), torch.linalg.vector_norm(part, dim=1)) for part in wide]
    read = [*map(_joined, zip(*sums, strict=True))]
    zeros, ones = torch.zeros_like(read[0]), torch.ones_like(read[0])
    biases = zip(*([bias.detach().flatten().expand(feed.units) for bias in feed.biases] for feed in feeds), strict=True)
    read += [sum(map(_joined, biases), zeros), ones * rows.shape[1]]
    for norms in zip(*(feed.norms for feed in feeds), strict=True):
        mean, var, weight, shift = zip(*(norm[:4] for norm in norms), strict=True)
        for values, without in ((mean, None), (var, None), (weight, ones), (shift, zeros)):
            known = [value.detach() for value in values if value is not None]
            read.append(_joined(known).to(exact) if known or without is None else without)
        read.append(ones * norms[0].eps)
    return torch.stack(read)


def _joined(parts: Sequence[Tensor]) -> Tensor:
    return parts[0] if len(parts) == 1 else torch.cat([*parts])


def numbers_of(read: np.ndarray) -> np.ndarray:
    """Give all that is kept of an affine map, by what `read_numbers` gave: (9, U).

    With a unit's incoming weights w (a row of m numbers) and bias b, behind a batch normalisation
    w s and (b - mean) s + beta with s = gamma / sqrt(var + eps):

    - ``up``, ``down``: the sums of the positive and of the negative weights; ``offset``: the constant;
    - ``bias``: b, or beta behind a batch normalisation;
    - ``along`` = sum(w) / sqrt(m), ``across`` = sqrt(||w||^2 - along^2), of the layer's own w: the lengths of w's parts
      along the vector of ones and across it; ``layer_bias``: b; ``gain``, ``shift``: gamma and beta, NaN without.
    """
    up, total, norm, bias, inputs = read[:5]
    with np.errstate(all="ignore"):
        down = total - up  # exactly 0 where no weight is negative
        along = total / np.sqrt(inputs)
        across = np.sqrt(np.maximum(norm**2 - along**2, 0))
        own = offset = bias
        gain = shift = np.full_like(up, np.nan)
        if len(read) > 5:
            mean, var, gain, shift, eps = read[5:]
            scale = gain / np.sqrt(var + eps)
            up, down = np.maximum(up * scale, down * scale), np.minimum(up * scale, down * scale)
            own, offset = shift, (bias - mean) * scale + shift
    return np.stack([up, down, offset, own, along, across, bias, gain, shift])


def units_read(feed: Feed, units: Sequence[int]) -> dict[int, list[int]]:
    """For some units, those of the source's site whose outputs have a weight other than 0."""
    source = feed.source
    if source is None or feed.groups > 1 or not units:
        return {}
    everything = list(range(source.units))  # one list for all units of a dense layer, which may be thousands
    if feed.is_small and bool(feed.weight.all()):
        return dict.fromkeys(units, everything)
    index = torch.tensor(units, device=feed.weight.device)
    weights = (feed.rows().index_select(0, index) != 0).cpu().numpy()
    if weights.all():
        return dict.fromkeys(units, everything)
    read = np.any(weights.reshape(len(units), source.outer, source.units, -1), axis=(1, 3))
    rows = zip(units, np.all(read, axis=1), read, strict=True)
    return {unit: everything if reads_all else np.flatnonzero(row).tolist() for unit, reads_all, row in rows}
