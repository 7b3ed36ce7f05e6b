"""`python -m benchmarks [MEASURE]`: measure, print a table, write JSON; see docs/speed.md.

Of what is there `python -m benchmarks cures --logdir FOLDER` makes the table of cures against dead units, `prediction
RUN...` that of predicted and counted dead units, `curves` the picture of how costs grow.
"""

import argparse
import importlib
import os
import sys
import tempfile
import time
from collections.abc import Mapping
from pathlib import Path

import torch

from benchmarks import measures
from benchmarks.growth import AXES, grow
from benchmarks.planted.measure import planted
from benchmarks.results_table import Report, machine
from benchmarks.workshop import Workshop, run_group

MEASURES = {  # and the number of rounds
    "quick": (measures.quick, 9),
    "monitors": (measures.what_monitors_add, 40),
    "foreign": (measures.monitors_in_foreign_models, 9),
    "models": (measures.monitors_and_peers, 7),
    "profile": (measures.profile, 9),
    "peers": (measures.against_keras, 10),
    "planted": (planted, 9),
    "gpu": (measures.on_gpu, 10),
    "growth": (grow, 7),
    "variants": (measures.steps_of_variants, 9),
    "cure-costs": (measures.what_cures_add, 12),
}
OWN_DATA = {"foreign", "models", "planted"}
PARTS: dict[str, Mapping[str, object]] = {
    "growth": AXES,
    "foreign": measures.FOREIGN,
    "models": measures.MODELS,
    "cure-costs": measures.CURES_PARTS,
}
READERS = ("cures", "prediction", "curves")  # modules that measure no time


def main() -> None:
    """See the module."""
    if sys.argv[1:] and sys.argv[1] in READERS:  # late: children inherit the memory that scipy takes here
        return importlib.import_module(f"benchmarks.{sys.argv[1]}").main(sys.argv[2:])
    parser = argparse.ArgumentParser(prog="python -m benchmarks", description=__doc__)
    parser.add_argument("measure", nargs="?", default="quick", choices=MEASURES)
    parser.add_argument("--rounds", type=int, help="Interleaved rounds; more narrow the intervals.")
    parser.add_argument("--only", nargs="+", default=[], help="Parts of growth, foreign, models, cure-costs.")
    parser.add_argument("--threads", type=int, default=torch.get_num_threads())
    parser.add_argument(
        "--data", type=Path, default=Path(os.environ.get("DATA_DIR") or "data"),
        help="Folder that holds FashionMNIST/raw. Default: DATA_DIR, else data.",
    )  # fmt: skip
    parser.add_argument(
        "--peers-python", type=Path, default=Path(".venv-peers/bin/python"), help="Interpreter that has Keras."
    )
    parser.add_argument("--output", type=Path, default=Path("benchmarks/results"), help="Folder of the JSON.")
    arguments = parser.parse_args()
    parts = PARTS.get(arguments.measure, {})
    if unknown := [part for part in arguments.only if part not in parts]:
        parser.error(f"{arguments.measure} has no part {unknown[0]}; it has {', '.join(parts) or 'none'}")
    gpu = arguments.measure == "gpu"
    if gpu and not torch.cuda.is_available():
        raise SystemExit("No CUDA device was found: bench-gpu needs one. `make bench` measures on the CPU.")
    start = time.perf_counter()
    report = Report(machine(arguments.threads))
    measure, rounds = MEASURES[arguments.measure]
    device = "cuda" if gpu else "cpu"
    with tempfile.TemporaryDirectory() as folder:
        data = None if arguments.measure in OWN_DATA else arguments.data
        workshop = Workshop(Path(folder), arguments.threads, device, data, arguments.peers_python)
        workshop.only = arguments.only
        if not gpu:
            run_group(workshop, report, "sgemm", {"sgemm": measures.SGEMM}, 9)  # the machine's own rate
        measure(workshop, report, arguments.rounds or rounds)
    report.facts["measuring took, s"] = round(time.perf_counter() - start)
    report.write(arguments.output / f"{'_'.join([arguments.measure, *arguments.only])}.json")
    print(report.markdown())


if __name__ == "__main__":
    main()
