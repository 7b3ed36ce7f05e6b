"""Rounds in which every contender runs once, and ratios of their times with an interval.

On a shared machine absolute times swing by a factor of two; two runs that follow each other within seconds swing
together. So a ratio is taken within each round, and the median over the rounds is reported, with an A/A null (the same
contender twice) beside it: what the null shows is noise.
"""

import statistics
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace

import numpy as np

Round = dict[str, float]  # contender -> seconds per unit of work


@dataclass(frozen=True)
class Ratio:
    """Median over the rounds of numerator / denominator, with its bootstrap 95 % interval.

    ``best`` is the numerator's best round over the denominator's best: what is left where nothing disturbed either.
    """

    name: str
    median: float
    low: float
    high: float
    rounds: int
    best: float | None = None

    def __str__(self) -> str:
        return f"{self.median:.3f} [{self.low:.3f}, {self.high:.3f}] (n = {self.rounds})"


def interleaved(
    contenders: Mapping[str, Callable[[], float]],
    rounds: int,
    warm_up: int = 1,
    tell: Callable[[str], None] = lambda _line: None,
) -> list[Round]:
    """Run every contender once per round, in an order that turns around each round; ``tell`` gets a line of progress.

    A contender runs some work when called and returns its seconds per unit of work. Warm-up rounds do not count.
    """
    results = []
    names = list(contenders)
    for number in range(-warm_up, rounds):
        order = names if number % 2 == 0 else names[::-1]
        times = {name: contenders[name]() for name in order}
        what = "warm-up" if number < 0 else f"round {number + 1}/{rounds}"
        tell(f"{what}: " + "  ".join(f"{name} {times[name] * 1e3:.2f} ms" for name in names))
        if number >= 0:
            results.append({name: times[name] for name in names})
    return results


def ratio(name: str, rounds: Sequence[Round], numerator: str, denominator: str) -> Ratio:
    """``numerator / denominator`` within each round, as median with interval; and of their best rounds."""
    found = summary(name, [times[numerator] / times[denominator] for times in rounds])
    best = min(times[numerator] for times in rounds) / min(times[denominator] for times in rounds)
    return replace(found, best=best)


def summary(name: str, values: Sequence[float], resamples: int = 9999) -> Ratio:
    """Median of ``values`` and its percentile-bootstrap 95 % interval (Efron 1979)."""
    if not values:
        raise ValueError("a median needs at least one value")
    samples = np.random.default_rng(0).choice(np.asarray(values), size=(resamples, len(values)))
    low, high = np.percentile(np.median(samples, axis=1), [2.5, 97.5])
    return Ratio(name, statistics.median(values), float(low), float(high), len(values))


def best_of(rounds: Sequence[Round], names: Sequence[str]) -> str:
    """The name with the lowest median: the setting in which a contender is compared."""
    return min(names, key=lambda name: statistics.median(times[name] for times in rounds))
