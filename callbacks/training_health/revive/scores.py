"""Which units are to begin again: each method's rule, from sums over a window that ranks can add up."""

from __future__ import annotations

from dataclasses import dataclass, field

import numpy as np
import torch
from torch import Tensor

from training_health.batches import BatchSize
from training_health.relu.sites import ReLUCall
from training_health.tensor_statistics import exact_dtype


@dataclass
class SiteSums:
    """One site's sums over a window, each per unit.

    Attributes:
        output: Sum of the outputs; 0: dead. NaN or infinite: not a number.
        fired: Examples in which the unit was above zero at any position; empty if not asked for.
        gradient: Sum of the absolute gradients of the loss by the unit's input, each example's own; empty likewise.
        examples: How many.
    """

    output: np.ndarray
    fired: np.ndarray = field(default_factory=lambda: np.empty(0, np.int64))
    gradient: np.ndarray = field(default_factory=lambda: np.empty(0))
    examples: int = 0

    def __add__(self, other: SiteSums) -> SiteSums:
        fired = added(self.fired, other.fired)
        return SiteSums(self.output + other.output, fired, examples=self.examples + other.examples)

    @property
    def dead(self) -> np.ndarray:
        """(U,) bool: never above zero."""
        return self.output == 0


class SumCounter:
    """Adds up, on the device and without waiting for it, what `ReLUSites` reports.

    Args:
        count_fired: Whether to count the examples in which a unit fired.
    """

    def __init__(self, count_fired: bool) -> None:
        self.examples: float = 0  # NaN where a batch hid its size
        self._count_fired = count_fired
        self._batch = BatchSize(0, 0)
        self._sites: dict[str, list[Tensor]] = {}
        self._rows: dict[str, int] = {}

    def begin_batch(self, size: BatchSize) -> None:
        """Announce a batch."""
        self._batch = size

    def end_batch(self, size: BatchSize) -> None:
        """Add the batch's examples."""
        self.examples += size.counted

    def add(self, call: ReLUCall) -> None:
        """Add one call's output.

        Raises:
            ValueError: Where it has no dimension of examples, or another number of units than before.
        """
        output, dim = call.output.detach(), call.unit_dim
        if dim == 0:
            raise ValueError("its first dimension does not hold the examples")
        if self._batch.counted < self._batch.examples == len(output):
            output = output[: int(self._batch.counted)]
        positions = [d for d in range(1, output.dim()) if d != dim]
        wide = torch.promote_types(output.dtype, torch.float32)
        # (N, U): above 0 exactly where the unit fired at any position, since no output is below 0.
        per_example = output.sum(dim=positions, dtype=wide) if positions else output.to(wide)
        sums = per_example.sum(dim=0)
        parts = [sums.to(exact_dtype(sums.device))]
        if self._count_fired:
            parts.append((per_example > 0).sum(dim=0))
        with torch.inference_mode(False):  # normal tensors outlive inference mode
            known = self._sites.get(call.site)
            if known is None:
                self._sites[call.site] = [part.clone() for part in parts]
            elif known[0].shape != sums.shape:
                raise ValueError("its number of units changes from batch to batch")
            else:
                for total, part in zip(known, parts, strict=True):
                    total += part
        self._rows[call.site] = self._rows.get(call.site, 0) + len(output)

    def take(self) -> dict[str, SiteSums]:
        """Fetch everything, by site in forward order."""
        sites = {}
        for name, parts in self._sites.items():
            fetched = [part.cpu().numpy() for part in parts]
            sites[name] = SiteSums(fetched[0], fetched[1] if self._count_fired else np.empty(0, np.int64))
            sites[name].examples = self._rows[name]
        return sites


def added(one: np.ndarray, other: np.ndarray) -> np.ndarray:
    """Add up two arrays of the same length, else give the longer one."""
    return one + other if len(one) == len(other) else max(one, other, key=len)


def dormant(sums: np.ndarray, threshold: float) -> np.ndarray:
    """Units whose sum is at most ``threshold`` times their site's mean: ReDo's rule of outputs, GraMa's of gradients.

    Where all sums are 0, all units are dormant. A sum that is not a number is left out.

    >>> dormant(np.array([0.0, 1.0, 199.0, np.nan]), threshold=0.025).tolist()
    [True, True, False, False]
    """
    known = np.isfinite(sums)
    mean = sums[known].mean() if known.any() else 0.0
    return known & (np.where(known, sums, np.inf) <= threshold * mean)


@dataclass
class FiringHistory:
    """What SNR knows of one site's units, each (U,): ``fired`` of ``seen`` examples, and silent in the last ``age``.

    >>> history = FiringHistory.of(3)
    >>> history.add(np.array([5, 1, 0]), examples=10)
    >>> history.silent(0.01).tolist()  # the third has no rate of its own: judged by the median of the others, 0.3
    [False, False, False]
    >>> history.add(np.array([0, 0, 0]), examples=10)
    >>> history.silent(0.01).tolist()  # 0.5**10, 0.9**10, 0.7**20
    [True, False, True]
    """

    fired: np.ndarray
    seen: np.ndarray
    age: np.ndarray

    @classmethod
    def of(cls, units: int) -> FiringHistory:
        """Nothing is known of these units."""
        return cls(*(np.zeros(units, np.int64) for _ in range(3)))

    def add(self, fired: np.ndarray, examples: int) -> None:
        """Add a window."""
        self.age += examples
        alive = fired > 0
        self.fired += fired
        self.seen += np.where(alive, self.age, 0)
        self.age[alive] = 0

    def silent(self, tail: float) -> np.ndarray:
        """Units whose present silence has, at their own rate, a probability of at most ``tail``: (1 - rate)**age."""
        own = self.fired > 0
        rates = self.fired / np.maximum(self.seen, 1)
        rate = np.where(own, rates, np.median(rates[own]) if own.any() else 1.0)
        return (self.age > 0) & ((1 - rate) ** self.age <= tail)

    def forget(self, units: list[int]) -> None:
        """Begin again with units."""
        for part in (self.fired, self.seen, self.age):
            part[units] = 0

    def as_lists(self) -> list[list[int]]:
        """Plain values, for a checkpoint."""
        return [part.tolist() for part in (self.fired, self.seen, self.age)]


def as_many_others(chosen: np.ndarray, output: np.ndarray, generator: torch.Generator) -> np.ndarray:
    """Draw as many units that fired as were ``chosen``, none of these; fewer where there are not so many."""
    others = np.flatnonzero((output > 0) & np.isfinite(output) & ~chosen)
    order = torch.randperm(len(others), generator=generator).numpy()
    drawn = np.zeros_like(chosen)
    drawn[others[order[: chosen.sum()]]] = True
    return drawn
