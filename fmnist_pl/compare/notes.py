"""What a reader must know before believing the table."""

from collections.abc import Callable, Iterable
from typing import Any

from fmnist_pl.compare.comparison import Comparison, RunResult
from fmnist_pl.compare.statistics import METHOD


def notes(comparison: Comparison) -> list[str]:
    """Sentences on the data, the method, and whatever differs between runs that should be alike."""
    result = [_data(comparison), _method(comparison)]
    complete = [run for run in comparison.runs if run.failure is None]
    epochs = _by_variant(complete, lambda run: run.summary.get("epochs"))
    if len(set(epochs.values())) > 1:
        result.append(f"The variants trained for different numbers of epochs: {_listed(epochs)}.")
    else:
        result.append(f"Epochs of every run: {next(iter(epochs.values()), 'none')}.")
    tested = _by_variant(complete, lambda run: run.summary.get("test_checkpoint", "best"))
    words = {"best": "the lowest validation loss", "last": "the last epoch"}
    if set(tested.values()) <= {"best"}:
        result.append("Test accuracy is of the weights with the lowest validation loss, the rest of the last epoch.")
    else:
        said = {name: words.get(value, value) for name, value in tested.items()}
        result.append(f"All figures are of the last epoch, test accuracy of the weights with: {_listed(said)}.")
    machines = _distinct(f"{r.summary.get('device')} with {r.summary.get('threads')} threads" for r in complete)
    if machines:
        result.append(f"Measured on {' and '.join(machines)}; {' and '.join(_distinct(map(_versions, complete)))}.")
    if len(machines) > 1:
        result.append("The number of threads and the device change figures in their last bits, and so in the end more.")
    if len({run.summary.get("identity", {}).get("code") for run in complete}) > 1:
        result.append("Some runs are of other versions of this package's code; they were accepted on request.")
    return result


def _data(comparison: Comparison) -> str:
    data = comparison.data
    name = "Fashion-MNIST" if data["dataset"] == "fashion_mnist" else "SYNTHETIC garments, not Fashion-MNIST"
    images = data["training_images"]
    first = "" if images is None else f", trained on only {images:,} images"
    seeds = ", ".join(map(str, comparison.seeds))
    return f"Data: {name}{first}. Seeds: {seeds}."


def _method(comparison: Comparison) -> str:
    if max((len(variant.complete) for variant in comparison.variants), default=0) < 2:
        return "Only one seed: no spread and no intervals. Nothing here tells a difference from chance."
    return (
        "Figures are mean ± standard deviation over seeds. Differences are paired by seed, variant minus "
        f"`{comparison.reference}`, mean ± half of the {METHOD}, each taken by itself: of twenty comparisons of equal "
        "variants about one would look like a difference."
    )


def _versions(run: RunResult) -> str:
    return ", ".join(f"{name} {version}" for name, version in run.summary.get("versions", {}).items())


def _by_variant(runs: Iterable[RunResult], read: Callable[[RunResult], Any]) -> dict[str, Any]:
    return {run.variant: read(run) for run in runs}


def _listed(values: dict[str, Any]) -> str:
    return ", ".join(f"{name} {value}" for name, value in values.items())


def _distinct(values: Iterable[str]) -> list[str]:
    return list(dict.fromkeys(values))
