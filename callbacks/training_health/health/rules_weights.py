"""Rules about how the weights move, and about numbers that are no numbers."""

import statistics
from collections.abc import Iterator, Sequence
from functools import partial

import numpy as np

from training_health.health.finding import CLIPPING, LOWER_RATE, Finding, Rule, Severity
from training_health.health.health_run import Columns, HealthRun

FROZEN_BELOW = 1e-8
MOVING_ABOVE = 1e-6
FROZEN_EPOCHS = 2
TOO_LARGE = 1e-1
TOO_SMALL = 1e-5

TORCHMORTEM = "torchmortem 0.1.1: median of the second half of training outside 1e-5 to 1e-1"
CS231N = 'the reference 1e-3: Stanford CS231n notes, "Neural networks 3"'
BF16 = '`Trainer(precision="bf16-mixed")`'

_finding = partial(Finding, section="weights")


def nonfinite(run: HealthRun) -> Iterator[Finding]:
    """A weight or a gradient is NaN or infinite.

    A weight spreads it to all that follows, and training can't recover by itself. In fp16 training a loss scaler skips
    the steps of such gradients, so there it can be harmless.
    """
    after_weights = (
        f"Go back to the last checkpoint before that epoch. {LOWER_RATE}.",
        "`Trainer(detect_anomaly=True)` names the operation that made the first NaN.",
        f"With 16-bit precision: {BF16}, or 32.",
    )
    rare = f"Rare ones are normal in fp16 (the scaler skips them); {BF16} avoids them."
    kinds: tuple[tuple[Severity, str, Columns, tuple[str, ...]], ...] = (
        ("critical", "weights", run.nonfinite, after_weights),
        ("warning", "gradients", run.nonfinite_gradients, (f"{LOWER_RATE}. {CLIPPING}.", rare)),
    )
    for severity, what, counts, advice in kinds:
        bad = {name: np.where(np.isfinite(column), column, 0) for name, column in counts.columns.items()}
        bad = {name: column for name, column in bad.items() if (column > 0).any()}
        if not bad:
            continue
        elements = np.array(list(bad.values()))
        epochs = counts.epochs[(elements > 0).any(axis=0)]
        yield _finding(
            rule=f"nonfinite_{what}",
            severity=severity,
            title=f"{what.capitalize()} are NaN or infinite",
            evidence=f"Non-finite {what} in {_listed(list(bad))}{run.dated(', first at epoch', epochs[0])}"
            f"{f' and at {len(epochs)} of {len(counts.epochs)} records' if run.history else ''}; "
            f"up to {elements.max():,.0f} elements in one tensor.",
            threshold=f"{severity.capitalize()} from the first non-finite element.",
            source="no threshold: IEEE 754 NaN propagates through every sum and product",
            advice=advice,
        )


def nothing_has_moved(run: HealthRun) -> bool:
    """Whether no parameter's update was ever large enough to count, in as many records as it takes to say so."""
    ratios = run.update_ratio
    still = all((column < FROZEN_BELOW).all() for column in ratios.columns.values())
    return still and len(ratios.epochs) >= FROZEN_EPOCHS


def frozen_layer(run: HealthRun) -> Iterator[Finding]:
    """A parameter doesn't move although others do, or nothing has moved at all."""
    ratios = run.update_ratio
    recent = {name: column[-FROZEN_EPOCHS:] for name, column in ratios.columns.items()}
    frozen = [name for name, last in recent.items() if (last < FROZEN_BELOW).all()]  # NaN, unknown, compares false
    never_moved = nothing_has_moved(run)
    if not never_moved:  # a normalisation takes away all that a bias in front of it adds, and so its gradient
        frozen = [name for name in frozen if not name.endswith("bias")]
    if len(ratios.epochs) < FROZEN_EPOCHS or not frozen:
        return
    # all still now but not at first: a schedule that ended at zero, which is meant
    if not never_moved and not any((last > MOVING_ABOVE).any() for last in recent.values()):
        return
    yield _finding(
        rule="frozen_layer",
        severity="warning",
        title="No weight moves" if never_moved else "Frozen parameters",
        evidence=f"{_listed(frozen)}: each update is below {FROZEN_BELOW:g} of the weights' norm in the last "
        f"{FROZEN_EPOCHS} records (up to epoch {ratios.epochs[-1] + 1})"
        + (", and no parameter has ever moved." if never_moved else ", while other parameters move."),
        threshold="Warning when the update ratio of a parameter other than a bias stays below "
        f"{FROZEN_BELOW:g} for {FROZEN_EPOCHS} records while another's is above {MOVING_ABOVE:g}, or when no ratio was "
        f"ever above {FROZEN_BELOW:g}.",
        source="Amazon SageMaker Debugger, WeightUpdateRatio (small_threshold = 1e-8)",
        advice=(
            "Is the parameter in the optimiser, and is `requires_grad` true? Ignore this if freezing was meant.",
            "A dead layer freezes what feeds it: see the dead units of the same layer.",
        ),
    )


def update_ratio_out_of_range(run: HealthRun) -> Iterator[Finding]:
    """Weights are thrown about, or hardly move, in the second half of training."""
    ratios = run.update_ratio
    if len(ratios.epochs) < 2:
        return
    half = len(ratios.epochs) // 2
    medians = {}
    for name, column in ratios.columns.items():
        known = column[half:][np.isfinite(column[half:])]
        if len(known) and not name.endswith("bias"):  # biases start at zero, so their ratio says little
            medians[name] = statistics.median(known.tolist())
    first, last = ratios.epochs[half] + 1, ratios.epochs[-1] + 1
    span = f"epoch {first}" if first == last else f"epochs {first} to {last}"

    def evidence(names: Sequence[str]) -> str:
        changes = _listed([f"{name} by {medians[name]:.2g} of its norm" for name in names])
        return f"One step changes {changes} (median over {span}); healthy is around 1e-3."

    if large := [name for name, median in medians.items() if median > TOO_LARGE]:
        yield _finding(
            rule="update_ratio_large",
            severity="warning",
            title="Updates too large",
            evidence=evidence(large),
            threshold=f"Warning when the median update ratio of a weight is above {TOO_LARGE:g}.",
            source=f"{TORCHMORTEM}; {CS231N}",
            advice=(f"{LOWER_RATE}.", "A warm-up, if only the first epochs are too fast."),
        )
    if small := [name for name, median in medians.items() if FROZEN_BELOW <= median < TOO_SMALL]:
        yield _finding(
            rule="update_ratio_small",
            severity="notice",
            title="Updates very small",
            evidence=evidence(small),
            threshold=f"Notice when the median update ratio of a weight is below {TOO_SMALL:g}.",
            source=f"{TORCHMORTEM}; {CS231N}",
            advice=("A higher learning rate, or Adam instead of plain SGD.",),
        )


def _listed(items: Sequence[str], most: int = 4) -> str:
    shown = ", ".join(items[:most])
    return shown if len(items) <= most else f"{shown} and {len(items) - most} more"


RULES: tuple[Rule, ...] = (nonfinite, frozen_layer, update_ratio_out_of_range)
