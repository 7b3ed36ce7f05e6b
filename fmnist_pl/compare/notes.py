"""What a reader must know before believing the table."""

from collections.abc import Callable, Mapping
from typing import Any

from fmnist_pl.compare.results import Comparison
from fmnist_pl.compare.statistics import METHOD

_TESTED = {"best": "the lowest validation loss", "last": "the last epoch", "none": "no epoch"}

# What should be the same for all runs, each with its way to read it from a run's summary.
_SETTINGS: Mapping[str, Callable[[Mapping[str, Any]], Any]] = {
    "number of epochs": lambda summary: summary.get("epochs"),
    "weights that were tested": lambda summary: "those of " + _TESTED[summary.get("test_checkpoint", "best")],
    "device": lambda summary: f"{summary.get('device')}, threads: {summary.get('threads')}",
    "versions": lambda summary: ", ".join(f"{name} {v}" for name, v in summary.get("versions", {}).items()),
    "code of this package": lambda summary: (summary.get("identity") or {}).get("code"),
}


def notes(comparison: Comparison) -> list[str]:
    """Sentences on the data, the method, and whatever differs between runs that should be the same."""
    data, complete = comparison.data, [run for run in comparison.runs if run.failure is None]
    name = "Fashion-MNIST" if data["dataset"] == "fashion_mnist" else "SYNTHETIC images, not Fashion-MNIST"
    images = "" if data["training_images"] is None else f", trained on only {data['training_images']:,} images"
    result = [f"Data: {name}{images}. Seeds: {', '.join(map(str, dict.fromkeys(r.seed for r in comparison.runs)))}."]
    if max(len(variant.complete) for variant in comparison.variants) < 2:
        result.append("Only one seed: no spread and no intervals. Nothing here tells a difference from chance.")
    else:
        result.append(
            "Metrics are mean ± standard deviation over seeds. Differences are paired by seed, variant minus "
            f"`{comparison.reference}`, mean ± half of the {METHOD}, each taken by itself: of twenty comparisons of "
            "equal variants about one would look like a difference."
        )
    result.append("Test accuracy is of the tested weights, all other metrics are of the last epoch.")
    for setting, read in _SETTINGS.items():
        values = {run.variant: read(run.summary) for run in complete}
        distinct = list(dict.fromkeys(read(run.summary) for run in complete))
        if len(distinct) == 1:
            result.append(f"{setting.capitalize()}: {distinct[0]}.")
        elif len(distinct) > 1:
            listed = "; ".join(f"{variant}: {value}" for variant, value in values.items())
            result.append(f"NOT the same for all runs, {setting}: {listed}.")
    return result
