"""Markdown tables of what the monitors measured: `python -m benchmarks.health_tables RUN_FOLDER ...`.

Prints, for each run folder, the dead fraction per site and epoch, and the gap with its standard error and mode effect.
"""

import argparse
from pathlib import Path

from tensorboard.backend.event_processing.event_accumulator import SCALARS, EventAccumulator

from fmnist_pl.compare.output import table

Curves = dict[str, list[float]]  # one value per epoch, by tag
_NOT_SITES = {"dead_relu/total", "dead_relu/deaths", "dead_relu/revivals", "dead_relu/n"}


def curves(run: Path) -> Curves:
    """Every scalar of a run."""
    events = EventAccumulator(str(run), size_guidance={SCALARS: 0}).Reload()
    return {tag: [event.value for event in events.Scalars(tag)] for tag in events.Tags()["scalars"]}


def dead_fraction_table(runs: dict[str, Curves]) -> str:
    """One row per run and site, one column per epoch, in percent."""
    epochs = max(len(run["dead_relu/total"]) for run in runs.values())
    rows = [["run", "site", *(str(epoch + 1) for epoch in range(epochs))]]
    for name, run in runs.items():
        sites = [tag for tag in run if tag.startswith("dead_relu/") and tag not in _NOT_SITES]
        for tag in ["dead_relu/total", *sites]:
            rows.append([name, tag.removeprefix("dead_relu/"), *(f"{100 * value:.1f}" for value in run[tag])])
    return table(rows)


def gap_table(runs: dict[str, Curves]) -> str:
    """The last epoch's accuracies in percent, gap and mode effect in points."""
    columns = ["running accuracy", "eval-mode training accuracy", "validation accuracy", "gap ± SE", "mode effect"]
    rows = [["run", *columns]]
    for name, run in runs.items():
        last = {tag: 100 * values[-1] for tag, values in run.items()}
        accuracies = [last[tag] for tag in ("train/accuracy", "gap/train_eval_accuracy", "val/accuracy")]
        gap = f"{last['gap/accuracy']:+.2f} ± {last['gap/accuracy_se']:.2f}"
        rows.append([name, *(f"{value:.2f}" for value in accuracies), gap, f"{last['gap/mode_effect']:+.2f}"])
    return table(rows)


def main() -> None:
    """Read the run folders on the command line and print both tables."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("runs", nargs="+", type=Path, help="Run folders, lightning_logs/<variant>/version_N.")
    runs = {folder.parent.name: curves(folder) for folder in parser.parse_args().runs}
    print(dead_fraction_table(runs), gap_table(runs), sep="\n\n")


if __name__ == "__main__":
    main()
