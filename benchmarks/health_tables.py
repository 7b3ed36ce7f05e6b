"""Markdown tables of what the monitors measured: `python -m benchmarks.health_tables RUN_FOLDER ...`.

Prints, for each run folder, the dead fraction per site and epoch, and the gap with its standard error and mode effect.
"""

import argparse
from pathlib import Path

from tensorboard.backend.event_processing.event_accumulator import SCALARS, EventAccumulator

Curve = list[float]


def curves(run: Path) -> dict[str, Curve]:
    """Every scalar of a run by its tag, one value per epoch."""
    events = EventAccumulator(str(run), size_guidance={SCALARS: 0})
    events.Reload()
    return {tag: [event.value for event in events.Scalars(tag)] for tag in events.Tags()["scalars"]}


def dead_fraction_table(runs: dict[str, dict[str, Curve]]) -> str:
    """One row per run and site, one column per epoch, in percent."""
    epochs = max(len(run["dead_relu/total"]) for run in runs.values())
    lines = [
        f"| run | site | {' | '.join(str(epoch + 1) for epoch in range(epochs))} |",
        f"| --- | --- | {' | '.join(['---:'] * epochs)} |",
    ]
    for name, run in runs.items():
        not_sites = {"dead_relu/total", "dead_relu/deaths", "dead_relu/revivals", "dead_relu/n"}
        sites = [tag for tag in run if tag.startswith("dead_relu/") and tag not in not_sites]
        for tag in ["dead_relu/total", *sites]:
            values = " | ".join(f"{100 * value:.1f}" for value in run[tag])
            lines.append(f"| {name} | {tag.removeprefix('dead_relu/')} | {values} |")
    return "\n".join(lines)


def gap_table(runs: dict[str, dict[str, Curve]]) -> str:
    """The last epoch's accuracies in percent, gap and mode effect in points."""
    lines = [
        "| run | running accuracy | eval-mode training accuracy | validation accuracy | gap ± SE | mode effect |",
        "| --- | ---: | ---: | ---: | ---: | ---: |",
    ]
    for name, run in runs.items():
        last = {tag: 100 * values[-1] for tag, values in run.items()}
        lines.append(
            f"| {name} | {last['train/accuracy']:.2f} | {last['gap/train_eval_accuracy']:.2f} | "
            f"{last['val/accuracy']:.2f} | {last['gap/accuracy']:+.2f} ± {last['gap/accuracy_se']:.2f} | "
            f"{last['gap/mode_effect']:+.2f} |"
        )
    return "\n".join(lines)


def main() -> None:
    """Read the run folders on the command line and print both tables."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("runs", nargs="+", type=Path, help="Run folders, lightning_logs/<variant>/version_N.")
    runs = {folder.parent.name: curves(folder) for folder in parser.parse_args().runs}
    print(dead_fraction_table(runs), gap_table(runs), sep="\n\n")


if __name__ == "__main__":
    main()
