"""Whether predictions of dead units hold: `python -m benchmarks prediction RUN...`.

For each run's last checkpoint it counts the dead units on 5,000 training images, drawn at random, and compares the
interval predicted for ten times as many with the count on 50,000, these among them.
"""

import argparse
import os
from itertools import islice
from pathlib import Path

from fmnist_pl.compare.output import table
from fmnist_pl.saved_network import load_network
from training_health import inspect

FEW, MANY = 5_000, 50_000


def main(args: list[str]) -> None:
    """See the module."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks prediction", description=__doc__)
    parser.add_argument("runs", nargs="+", type=Path, help="Folders of runs.")
    rows, covered = [["run", f"dead on {FEW:,}", f"predicted for {MANY:,}", f"dead on {MANY:,}", "covered"]], 0
    runs = parser.parse_args(args).runs
    for run in runs:
        saved = load_network(run / "checkpoints" / "last.ckpt", os.environ.get("DATA_DIR"))
        saved.data.setup("fit")
        batches = list(saved.data.train_dataloader().evaluation_sample(MANY, seed=0, rank=0, world_size=1))
        size = len(batches[0][0])
        few = inspect(saved.model, islice(batches, FEW // size)).to_dict()
        many, told = inspect(saved.model, batches).to_dict(), few["by_examples"]
        assert (few["n"], many["n"]) == (FEW, MANY), "batches do not divide the sample"
        holds = told["predicted_low"] <= many["dead"] <= told["predicted_high"]
        covered += holds
        interval = f"{told['predicted']} ({told['predicted_low']} to {told['predicted_high']})"
        rows.append(
            [f"{run.parent.name}/{run.name}", str(few["dead"]), interval, str(many["dead"]), "yes" if holds else "no"]
        )
    print(table(rows))
    print(f"\nCovered: {covered} of {len(runs)}.")
