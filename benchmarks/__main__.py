"""`python -m benchmarks [quick | monitors | ...]`: measure, print a table, write JSON. `--help` lists the measures."""

import argparse
import statistics
import time
from pathlib import Path

import torch

from benchmarks import groups
from benchmarks.report import Report, machine


def quick(workshop: groups.Workshop, report: Report, rounds: int) -> None:
    """Ours only, in under five minutes."""
    starts = [groups.seconds_to_first_step(workshop) for _ in range(3)]
    report.facts["start of `fmnist fit` to the first step, s"] = f"{statistics.median(starts):.1f} (median of 3)"
    groups.against_plain_pipelines(workshop, report, rounds, steps=50)
    groups.through_lightning(workshop, report, rounds, steps=300)


def monitors(workshop: groups.Workshop, report: Report, rounds: int) -> None:
    """What the monitors add to an epoch, in rounds enough for a claim of one percent."""
    groups.sgemm_alone(workshop, report)
    groups.what_monitors_add(workshop, report, rounds)


def profile(workshop: groups.Workshop, report: Report, rounds: int) -> None:
    """Where a training step's time goes, and how much Lightning adds."""
    from benchmarks.step_profile import profile_step

    torch.set_num_threads(workshop.threads)
    groups.sgemm_alone(workshop, report)
    groups.lightning_alone(workshop, report, rounds)  # before: children inherit the peak memory of this process
    profile_step(report, workshop.data)


def peers(workshop: groups.Workshop, report: Report, rounds: int) -> None:
    """Keras beside ours."""
    groups.sgemm_alone(workshop, report)
    groups.against_keras(workshop, report, rounds)


def gpu(workshop: groups.Workshop, report: Report, rounds: int) -> None:
    """On a CUDA device."""
    from benchmarks.gpu import on_gpu

    on_gpu(workshop, report, rounds)


def growth(workshop: groups.Workshop, report: Report, rounds: int) -> None:
    """How costs grow."""
    from benchmarks.growth import grow

    groups.sgemm_alone(workshop, report)
    grow(workshop, report, rounds)


def variants(workshop: groups.Workshop, report: Report, rounds: int) -> None:
    """What a step of larger variants costs."""
    groups.steps_of_variants(workshop, report, rounds)


ROUNDS = {quick: 7, monitors: 40, profile: 9, peers: 10, gpu: 10, growth: 5, variants: 7}


def main() -> None:
    """See the module."""
    measures = {function.__name__: function for function in ROUNDS}
    described = "; ".join(f"{name}: {function.__doc__}" for name, function in measures.items())
    parser = argparse.ArgumentParser(prog="python -m benchmarks", description=__doc__)
    parser.add_argument("measure", nargs="?", default="quick", choices=measures, help=described)
    parser.add_argument("--rounds", type=int, help="Interleaved rounds; more narrow the intervals.")
    parser.add_argument("--threads", type=int, default=torch.get_num_threads())
    parser.add_argument("--data", type=Path, help="Folder that holds FashionMNIST/raw. Default: DATA_DIR, else data.")
    parser.add_argument(
        "--peers-python", type=Path, default=Path(".venv-peers/bin/python"), help="Interpreter that has Keras."
    )
    parser.add_argument("--output", type=Path, default=Path("benchmarks/results"), help="Folder of the JSON.")
    arguments = parser.parse_args()
    device = "cuda" if arguments.measure == "gpu" else "cpu"
    if device == "cuda" and not torch.cuda.is_available():
        raise SystemExit("No CUDA device was found: bench-gpu needs one. `make bench` measures on the CPU.")
    start = time.perf_counter()
    report, measure = Report(machine(arguments.threads)), measures[arguments.measure]
    with groups.Workshop(arguments.threads, device, arguments.data, arguments.peers_python) as workshop:
        measure(workshop, report, arguments.rounds or ROUNDS[measure])
    report.facts["measuring took, s"] = round(time.perf_counter() - start)
    report.write(arguments.output / f"{arguments.measure}.json")
    print(report.markdown())


if __name__ == "__main__":
    main()
