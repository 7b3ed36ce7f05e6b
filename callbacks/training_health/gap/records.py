"""The gap as scalars, as a record, in plain values and in words."""

from __future__ import annotations

import math
import re
from typing import Any

from training_health.gap.statistics import Gap
from training_health.log_format import Record

COLUMNS = [
    "running_accuracy", "train_eval_accuracy", "val_accuracy", "accuracy_gap", "accuracy_gap_se", "mode_effect",
    "running_loss", "train_eval_loss", "val_loss", "loss_gap", "loss_gap_se",
]  # fmt: skip


def scalars(gap: Gap) -> dict[str, float]:
    """Values by logged key; NaN where unknown."""
    values = {
        "gap/train_eval_accuracy": gap.training.accuracy,
        "gap/train_eval_loss": gap.training.loss,
        "gap/mode_effect": gap.mode_effect,
    }
    for key, value, error in (("accuracy", gap.accuracy, gap.accuracy_se), ("loss", gap.loss, gap.loss_se)):
        values |= {f"gap/{key}": value, f"gap/{key}_se": error}
        values |= {f"gap/{key}_lower": value - 2 * error, f"gap/{key}_upper": value + 2 * error}
    return values


def layout(train_accuracy: str, accuracy: str, train_loss: str, loss: str) -> dict[str, dict[str, list[Any]]]:
    """TensorBoard's custom-scalars page: lines are chosen by regular expression, margins by tag."""

    def lines(*keys: str) -> list[Any]:
        return ["Multiline", [f"^{re.escape(key)}$" for key in keys]]

    def margin(key: str) -> list[Any]:
        return ["Margin", [key, f"{key}_lower", f"{key}_upper"]]

    return {
        "Training and validation": {
            "accuracy": lines(train_accuracy, "gap/train_eval_accuracy", accuracy),
            "loss": lines(train_loss, "gap/train_eval_loss", loss),
        },
        "Gap, with two standard errors": {"accuracy": margin("gap/accuracy"), "loss": margin("gap/loss")},
    }


def record(gap: Gap) -> Record:
    """The ``gap`` record: ``[n of validation, one value per column]``."""
    values = [
        gap.running_accuracy, gap.training.accuracy, gap.validation.accuracy, gap.accuracy, gap.accuracy_se,
        gap.mode_effect, gap.running_loss, gap.training.loss, gap.validation.loss, gap.loss, gap.loss_se,
    ]  # fmt: skip
    content = {
        "columns": COLUMNS,
        "n_train": gap.training.examples,
        "n_val": gap.validation.examples,
        "se_method": gap.se_method,
    }
    return "gap", "gap", [gap.validation.examples, *values], content


def as_dict(gap: Gap) -> dict[str, Any]:
    """Plain values for JSON; None where unknown."""
    _, _, vector, content = record(gap)
    values = {name: None if math.isnan(value) else value for name, value in zip(COLUMNS, vector[1:], strict=True)}
    counts = {key: content[key] for key in ("n_train", "n_val", "se_method")}
    return {**values, **counts, "beyond_noise": gap.beyond_noise}


def sentence(gap: Gap | None) -> str:
    """Say how large the gap is, whether it is more than noise, and what training mode hid."""
    if gap is None:
        return "The gap was not measured: no validation has run beside training."
    if not math.isnan(gap.accuracy):
        text = (
            f"The gap is {100 * gap.accuracy:.1f} ± {_number(100 * gap.accuracy_se, 1)} points "
            f"(training {100 * gap.training.accuracy:.1f} %, validation {100 * gap.validation.accuracy:.1f} %, "
            f"both in eval mode, {_sizes(gap)}){_verdict(gap)}."
        )
    else:
        text = (
            f"The gap in loss is {_number(gap.loss, 4)} ± {_number(gap.loss_se, 4)} (training "
            f"{_number(gap.training.loss, 4)}, validation {_number(gap.validation.loss, 4)}, both in eval mode, "
            f"{_sizes(gap)}){_verdict(gap)}."
        )
    effect = 100 * gap.mode_effect
    if math.isnan(effect):
        return text
    side = "below" if effect >= 0 else "above"
    return text + (
        f" Mode effect: the running accuracy ({100 * gap.running_accuracy:.1f} %) was {abs(effect):.1f} points {side} "
        "it, through dropout, augmentation and averaging while the weights moved; that is not overfitting."
    )


def _verdict(gap: Gap) -> str:
    verdicts = {True: ": beyond noise", False: ": within 2 standard errors, noise", None: ""}
    return verdicts[gap.beyond_noise]


def _number(value: float, digits: int) -> str:
    return "unknown" if math.isnan(value) else f"{value:.{digits}f}"


def _sizes(gap: Gap) -> str:
    train, val = gap.training.examples, gap.validation.examples
    return f"n = {val:,} each" if train == val else f"n = {train:,} and {val:,}"
