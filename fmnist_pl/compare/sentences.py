"""What a paired difference says, in words."""

from collections.abc import Mapping

from fmnist_pl.compare.figures import BY_KEY
from fmnist_pl.compare.statistics import Difference, Spread

TOLD = ("gap", "test_accuracy", "dead_share")  # the rest is in the table of differences
_NAMES = {"gap": "the gap", "test_accuracy": "test accuracy", "dead_share": "the dead share"}


def verdict_sentence(
    variant: str,
    reference: str,
    differences: Mapping[str, Difference | None],
    spreads: Mapping[str, Spread | None],
    reference_spreads: Mapping[str, Spread | None],
) -> str:
    """One sentence on how ``variant`` differs from ``reference``; what lies within noise is called that.

    Args:
        variant: Name of the variant.
        reference: Name of the reference variant.
        differences: By figure, variant minus reference.
        spreads: By figure, of the variant.
        reference_spreads: By figure, of the reference.
    """
    told = [(key, difference) for key in TOLD if (difference := differences.get(key)) is not None]
    if not told:
        return f"`{variant}` and `{reference}` have no seed in common with a figure to compare."
    pairs = told[0][1].n
    seeds = f"{pairs} seed{'s' if pairs > 1 else ''}"
    clauses = [
        _clause(key, difference, _both_positive(spreads.get(key), reference_spreads.get(key)))
        for key, difference in told
    ]
    return f"`{variant}` against `{reference}` ({seeds}): {'; '.join(clauses)}."


def _clause(key: str, difference: Difference, both_positive: bool) -> str:
    name, figure = _NAMES[key], BY_KEY[key]
    if difference.half_width is None:
        return f"{name} differs by {figure.shown(difference.mean, sign=True)} points, with no second seed to judge it"
    half_width = figure.shown(difference.half_width)
    if difference.verdict == "noise":
        return f"{name} does not differ beyond noise ({figure.shown(difference.mean, sign=True)} ± {half_width} points)"
    if key == "gap" and both_positive:
        verb = "widens" if difference.mean > 0 else "narrows"
        return f"it {verb} the gap by {figure.shown(abs(difference.mean))} ± {half_width} points"
    return f"it changes {name} by {figure.shown(difference.mean, sign=True)} ± {half_width} points"


def _both_positive(first: Spread | None, second: Spread | None) -> bool:
    return first is not None and second is not None and first.mean > 0 and second.mean > 0
