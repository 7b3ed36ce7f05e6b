"""Two processes train like one, on an odd number of images whose last batch is not the same on both."""

import tempfile
from pathlib import Path
from typing import Any

from tests.soak.command import TWO_RANKS, ending, fit, fit_elsewhere

# No dropout, which each rank draws for itself; all validation images, which a limit on batches would double.
OPTIONS = ("--model.conv_dropout=0", "--model.hidden_dropout=0", "--trainer.limit_val_batches=1.0")


def check(logs: Path) -> tuple[float, float]:
    """The largest differences of the weights and of the last epoch's metrics."""
    one = ending(fit(logs / "one", *OPTIONS))
    two = ending(fit_elsewhere(logs / "two", *OPTIONS, *TWO_RANKS, "--data.batch_size=4"))
    weights = [(one["last.ckpt"]["state_dict"][name], value) for name, value in two["last.ckpt"]["state_dict"].items()]
    metrics: list[dict[str, Any]] = [run["summary"]["last_epoch"] for run in (one, two)]
    assert metrics[0].keys() == metrics[1].keys()
    return (
        max(float((first - second).abs().max()) for first, second in weights),
        max(abs(value - metrics[1][name]) for name, value in metrics[0].items() if value is not None),
    )


def soak() -> str:
    with tempfile.TemporaryDirectory() as folder:
        weights, metrics = check(Path(folder))
    assert weights < 1e-5, weights
    assert metrics < 1e-5, metrics
    return f"two ranks against one, odd counts: weights within {weights:.0e}, metrics within {metrics:.0e}"
