"""The closing summary: one table, the monitors' sentences, and how to look at the curves."""

from pathlib import Path
from typing import Any

from rich.console import Console
from rich.table import Table


def print_summary(summary: dict[str, Any], run_folder: Path | None, console: Console | None = None) -> None:
    """Print a run's summary for a person to read.

    Args:
        summary: As `RunRecord.summary` returns it.
        run_folder: Where the run left its files; None without a logger.
        console: Where to print. Default: standard output, as wide as the table needs when it is not a terminal.
    """
    console = console or Console(soft_wrap=True, highlight=False)
    data = "SYNTHETIC garments, not Fashion-MNIST" if summary["dataset"] == "synthetic" else "Fashion-MNIST"
    table = Table(
        title=f"{summary['variant']} on {data}, seed {summary['seed']}", title_justify="left", show_header=False
    )
    table.add_column(style="dim")
    table.add_column()
    for name, value in summary_rows(summary):
        table.add_row(name, value)
    console.print()
    console.print(table)
    for sentence in summary["sentences"]:
        console.print(sentence)
    console.print()
    if run_folder is None:
        return
    console.print(f"Run folder: {run_folder}")
    console.print(f"See it all: tensorboard --logdir {run_folder.parents[1]}")


def summary_rows(summary: dict[str, Any]) -> list[tuple[str, str]]:
    """The table's rows as (name, value)."""
    last, best = summary["last_epoch"], summary["best_epoch"]
    tested = f"checkpoint of epoch {_ordinal(best)}, the lowest validation loss"
    if summary["test_checkpoint"] == "last":
        tested = "last epoch"
    accuracy = f"{_percent(summary['test'].get('test/accuracy'))} ({tested})"
    rows = [("test accuracy", "not tested" if summary["test_checkpoint"] == "none" else accuracy)]
    rows.append(
        (
            "validation accuracy",
            f"{_percent(last.get('val/accuracy'))} (best checkpoint: {_percent(summary['best_val_accuracy'])})",
        )
    )
    rows.append(
        ("training accuracy, running", f"{_percent(last.get('train/accuracy'))} (train mode, averaged over the epoch)")
    )
    if "gap/train_eval_accuracy" in last:
        rows.append(
            (
                "training accuracy, eval mode",
                f"{_percent(last['gap/train_eval_accuracy'])} (same weights as validation)",
            )
        )
        rows.append(
            (
                "gap",
                f"{_points(last.get('gap/accuracy'))} points, standard error "
                f"{_points(last.get('gap/accuracy_se'), sign=False)}",
            )
        )
        rows.append(("mode effect", f"{_points(last.get('gap/mode_effect'))} points"))
    if "dead_relu/total" in last:
        rows.append(("dead share", _percent(last["dead_relu/total"])))
    rows.append(("epochs", _epochs(summary)))
    rows.append(("network", f"{summary['parameters']:,} parameters"))
    versions = ", ".join(f"{name} {version}" for name, version in summary["versions"].items())
    rows.append(
        ("measured on", f"{summary['device']} x {summary['devices']}, {summary['threads']} threads; {versions}")
    )
    return rows


def _epochs(summary: dict[str, Any]) -> str:
    seconds = summary["seconds_per_epoch"]
    if seconds is None:
        return "none"
    watched = " and monitors" if summary["monitors"] else ""
    return f"{summary['epochs']}, {seconds:.1f} s each with validation{watched}"


def _percent(value: float | None) -> str:
    return "unknown" if value is None else f"{100 * value:.2f} %"


def _points(value: float | None, *, sign: bool = True) -> str:
    if value is None:
        return "unknown"
    return f"{100 * value:+.2f}" if sign else f"{100 * value:.2f}"


def _ordinal(epoch: int | None) -> str:
    return "none" if epoch is None else str(epoch + 1)
