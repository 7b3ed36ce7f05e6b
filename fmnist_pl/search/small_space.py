"""Counts the configurations of a space that has few of them: a search needs no more trials than that."""

import itertools
import math
from typing import Any

from optuna.distributions import BaseDistribution, CategoricalDistribution, FloatDistribution, IntDistribution

from fmnist_pl.search.space import Space

MOST_COUNTED = 100


def count_configurations(space: Space, at_most: int = MOST_COUNTED) -> int | None:
    """How many configurations may be trained; None if the space holds more than ``at_most``, trainable or not."""
    values = [_values(distribution, at_most) for distribution in space.distributions.values()]
    if any(some is None for some in values) or math.prod(len(some or []) for some in values) > at_most:
        return None
    combinations = itertools.product(*(some or [] for some in values))
    return sum(space.refusal(dict(zip(space.distributions, one, strict=True))) is None for one in combinations)


def _values(distribution: BaseDistribution, at_most: int) -> list[Any] | None:
    """All values, or None if there are too many to count."""
    if isinstance(distribution, CategoricalDistribution):
        return list(distribution.choices)
    if isinstance(distribution, IntDistribution):
        values = range(distribution.low, distribution.high + 1, distribution.step)
        return list(values) if len(values) <= at_most else None
    if isinstance(distribution, FloatDistribution):
        if distribution.single():
            return [distribution.low]
        if distribution.step is not None:
            steps = round((distribution.high - distribution.low) / distribution.step)
            return (
                [distribution.low + step * distribution.step for step in range(steps + 1)] if steps < at_most else None
            )
    return None
