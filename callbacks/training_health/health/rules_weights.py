"""Rules about how the weights move, and about numbers that are no numbers."""

from collections.abc import Iterator

import numpy as np

from training_health.health.finding import Finding, Rule, epochs_in_words
from training_health.health.health_run import HealthRun, Parameters

FROZEN_BELOW = 1e-8
MOVING_ABOVE = 1e-6
FROZEN_EPOCHS = 2
TOO_LARGE = 1e-1
TOO_SMALL = 1e-5

TORCHMORTEM = "torchmortem 0.1.1: median of the second half of training outside 1e-5 to 1e-1"
CS231N = 'the reference 1e-3: Stanford CS231n notes, "Neural networks 3"'


def nonfinite_weights(run: HealthRun) -> Iterator[Finding]:
    """A weight is NaN or infinite: it spreads to all that follows, and training can't recover by itself."""
    yield from _nonfinite(
        run.nonfinite,
        rule="nonfinite_weights",
        severity="critical",
        title="Weights are NaN or infinite",
        what="weights",
        advice=(
            "Go back to the last checkpoint before that epoch and lower `--model.learning_rate` 3 to 10 times.",
            "`--trainer.detect_anomaly true` names the operation that made the first NaN.",
            "With 16-bit precision: `--trainer.precision bf16-mixed`, or 32.",
        ),
    )


def nonfinite_gradients(run: HealthRun) -> Iterator[Finding]:
    """A gradient is NaN or infinite. A loss scaler skips such steps, so it can be harmless in fp16 training."""
    yield from _nonfinite(
        run.nonfinite_gradients,
        rule="nonfinite_gradients",
        severity="warning",
        title="Gradients are NaN or infinite",
        what="gradients",
        advice=(
            "A lower `--model.learning_rate`, or `--trainer.gradient_clip_val 1.0`.",
            "Rare ones are normal in fp16 (the scaler skips them); `--trainer.precision bf16-mixed` avoids them.",
        ),
    )


def _nonfinite(
    counts: Parameters | None, rule: str, severity: str, title: str, what: str, advice: tuple[str, ...]
) -> Iterator[Finding]:
    if counts is None:
        return
    known = np.where(np.isfinite(counts.values), counts.values, 0)
    if not (known > 0).any():
        return
    rows = np.flatnonzero((known > 0).any(axis=1))
    bad = [name for name, column in zip(counts.names, known.T, strict=True) if (column > 0).any()]
    worst = int(known.max())
    yield Finding(
        rule=rule,
        severity=severity,  # type: ignore[arg-type]
        title=title,
        evidence=f"Non-finite {what} in {_listed(bad)}, first at epoch {counts.epochs[rows[0]] + 1} and at "
        f"{len(rows)} of {len(counts.epochs)} records; up to {worst:,} elements in one tensor.",
        threshold=f"{severity.capitalize()} from the first non-finite element.",
        source="no threshold: IEEE 754 NaN propagates through every sum and product",
        advice=advice,
        section="weights",
    )


def frozen_layer(run: HealthRun) -> Iterator[Finding]:
    """A parameter doesn't move although others do, or nothing has moved at all."""
    ratios = run.update_ratio
    if ratios is None or len(ratios.epochs) < FROZEN_EPOCHS:
        return
    recent = ratios.values[-FROZEN_EPOCHS:]
    frozen = np.asarray((recent < FROZEN_BELOW).all(axis=0))  # NaN compares false: unknown is not frozen
    if not frozen.any():
        return
    # all still now but not at first: a schedule that ended at zero, which is meant
    never_moved = bool((ratios.values < FROZEN_BELOW).all())
    if not (recent > MOVING_ABOVE).any() and not never_moved:
        return
    names = [name for name, still in zip(ratios.names, frozen, strict=True) if still]
    last = int(ratios.epochs[-1])
    yield Finding(
        rule="frozen_layer",
        severity="warning",
        title="No weight moves" if never_moved else "Frozen parameters",
        evidence=f"{_listed(names)}: each update is below {FROZEN_BELOW:g} of the weights' norm in the last "
        f"{FROZEN_EPOCHS} records (up to epoch {last + 1})"
        + (", and no parameter has ever moved." if never_moved else ", while other parameters move."),
        threshold=f"Warning when a parameter's update ratio stays below {FROZEN_BELOW:g} for {FROZEN_EPOCHS} records "
        f"while another's is above {MOVING_ABOVE:g}, or when no ratio was ever above {FROZEN_BELOW:g}.",
        source="Amazon SageMaker Debugger, WeightUpdateRatio (small_threshold = 1e-8)",
        advice=(
            "Is the parameter in the optimiser, and is `requires_grad` true? Ignore this if freezing was meant.",
            "A dead layer freezes what feeds it: see the dead units of the same layer.",
        ),
        section="weights",
    )


def update_ratio_out_of_range(run: HealthRun) -> Iterator[Finding]:
    """Weights are thrown about, or hardly move, in the second half of training."""
    ratios = run.update_ratio
    if ratios is None or len(ratios.epochs) < 2:
        return
    # biases start at zero, so their ratio says little
    weights = [i for i, name in enumerate(ratios.names) if not name.endswith("bias")]
    second_half = ratios.values[len(ratios.epochs) // 2 :, weights]
    known = np.isfinite(second_half).any(axis=0)
    if not known.any():
        return
    names = [ratios.names[i] for i, k in zip(weights, known, strict=True) if k]
    median = np.nanmedian(np.where(np.isfinite(second_half[:, known]), second_half[:, known], np.nan), axis=0)
    span = epochs_in_words(int(ratios.epochs[len(ratios.epochs) // 2]), int(ratios.epochs[-1]))
    large = [(n, m) for n, m in zip(names, median, strict=True) if m > TOO_LARGE]
    small = [(n, m) for n, m in zip(names, median, strict=True) if FROZEN_BELOW <= m < TOO_SMALL]
    if large:
        yield Finding(
            rule="update_ratio_large",
            severity="warning",
            title="Updates too large",
            evidence=f"One step changes {_listed([f'{n} by {m:.2g} of its norm' for n, m in large])} "
            f"(median over {span}); healthy is around 1e-3.",
            threshold=f"Warning when the median update ratio of a weight is above {TOO_LARGE:g}.",
            source=f"{TORCHMORTEM}; {CS231N}",
            advice=(
                "A learning rate 3 to 10 times lower (`--model.learning_rate`).",
                "A warm-up, if only the first epochs are too fast.",
            ),
            section="weights",
        )
    if small:
        yield Finding(
            rule="update_ratio_small",
            severity="notice",
            title="Updates very small",
            evidence=f"One step changes {_listed([f'{n} by {m:.2g} of its norm' for n, m in small])} "
            f"(median over {span}); healthy is around 1e-3.",
            threshold=f"Notice when the median update ratio of a weight is below {TOO_SMALL:g}.",
            source=f"{TORCHMORTEM}; {CS231N}",
            advice=("A higher `--model.learning_rate`, or Adam instead of plain SGD (`--variant baseline`).",),
            section="weights",
        )


def _listed(items: list[str], most: int = 4) -> str:
    shown = ", ".join(items[:most])
    return shown if len(items) <= most else f"{shown} and {len(items) - most} more"


RULES: tuple[Rule, ...] = (nonfinite_weights, nonfinite_gradients, frozen_layer, update_ratio_out_of_range)
