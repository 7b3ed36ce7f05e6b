"""`python -m benchmarks [MEASURE]`: measure, print a table, write JSON; see README.md beside this file.

`python -m benchmarks cures --logdir FOLDER` makes the table of cures against dead units from runs that are there,
`python -m benchmarks prediction RUN...` that of predicted and counted dead units.
"""

import argparse
import os
import sys
import tempfile
import time
from pathlib import Path

import torch

from benchmarks import measures
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
    "growth": (measures.grow, 9),
    "variants": (measures.steps_of_variants, 9),
    "cure-costs": (measures.what_cures_add, 9),
}
OWN_DATA = {"foreign", "models", "planted"}


def main() -> None:
    """See the module."""
    if sys.argv[1:2] == ["cures"]:  # reads runs, as the next, and measures no time
        from benchmarks import cures  # late: children inherit the memory that scipy takes here

        return cures.main(sys.argv[2:])
    if sys.argv[1:2] == ["prediction"]:
        from benchmarks import prediction

        return prediction.main(sys.argv[2:])
    parser = argparse.ArgumentParser(prog="python -m benchmarks", description=__doc__)
    parser.add_argument("measure", nargs="?", default="quick", choices=MEASURES)
    parser.add_argument("--rounds", type=int, help="Interleaved rounds; more narrow the intervals.")
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
        if not gpu:
            run_group(workshop, report, "sgemm", {"sgemm": measures.SGEMM}, 9)  # the machine's own rate
        measure(workshop, report, arguments.rounds or rounds)
    report.facts["measuring took, s"] = round(time.perf_counter() - start)
    report.write(arguments.output / f"{arguments.measure}.json")
    print(report.markdown())


if __name__ == "__main__":
    main()
