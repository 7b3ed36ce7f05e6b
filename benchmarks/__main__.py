"""`python -m benchmarks [quick | monitors | ...]`: measure, print a table, write JSON. `--help` lists the measures."""

import argparse
import statistics
import time
from pathlib import Path

import torch

from benchmarks import groups
from benchmarks.machine import machine
from benchmarks.report import Report


def quick(arguments: argparse.Namespace) -> Report:
    """Ours only, in under five minutes."""
    from benchmarks.start_up import seconds_to_first_step

    report = Report(machine(arguments.threads))
    with groups.Workshop(arguments.threads, data=arguments.data) as workshop:
        starts = [seconds_to_first_step(workshop) for _ in range(3)]
        report.facts["start of `fmnist fit` to the first step, s"] = f"{statistics.median(starts):.1f} (median of 3)"
        groups.against_plain_pipelines(workshop, report, arguments.rounds or 7, steps=50)
        groups.through_lightning(workshop, report, arguments.rounds or 7, steps=300)
    return report


def monitors(arguments: argparse.Namespace) -> Report:
    """What the monitors add to an epoch, in rounds enough for a claim of one percent."""
    report = Report(machine(arguments.threads))
    with groups.Workshop(arguments.threads, data=arguments.data) as workshop:
        groups.sgemm_alone(workshop, report)
        groups.what_monitors_add(workshop, report, arguments.rounds or 40)
    return report


def profile(arguments: argparse.Namespace) -> Report:
    """Where a training step's time goes, and how much Lightning adds."""
    from benchmarks.step_profile import profile_step

    report = Report(machine(arguments.threads))
    torch.set_num_threads(arguments.threads)
    with groups.Workshop(arguments.threads, data=arguments.data) as workshop:
        groups.sgemm_alone(workshop, report)
        groups.lightning_alone(workshop, report)  # before: children inherit the peak memory of this process
        profile_step(report, workshop.data)
    return report


def peers(arguments: argparse.Namespace) -> Report:
    """Keras beside ours."""
    from benchmarks.peers import against_keras

    report = Report(machine(arguments.threads))
    with groups.Workshop(arguments.threads, data=arguments.data) as workshop:
        groups.sgemm_alone(workshop, report)
        against_keras(workshop, report, arguments.rounds or 10, str(arguments.peers_python.absolute()))
    return report


def gpu(arguments: argparse.Namespace) -> Report:
    """On a CUDA device."""
    from benchmarks.gpu import on_gpu

    return on_gpu(arguments.data, arguments.threads, arguments.rounds or 10)


def growth(arguments: argparse.Namespace) -> Report:
    """How costs grow."""
    from benchmarks.growth import grow

    report = Report(machine(arguments.threads))
    with groups.Workshop(arguments.threads, data=arguments.data) as workshop:
        groups.sgemm_alone(workshop, report)
        grow(workshop, report, arguments.rounds or 5)
    return report


def variants(arguments: argparse.Namespace) -> Report:
    """What larger variants cost."""
    from benchmarks.variants import steps_of_variants

    report = Report(machine(arguments.threads))
    with groups.Workshop(arguments.threads, data=arguments.data) as workshop:
        steps_of_variants(workshop, report, arguments.rounds or 7)
    return report


def main() -> None:
    """See the module."""
    measures = {function.__name__: function for function in (quick, monitors, profile, peers, gpu, growth, variants)}
    parser = argparse.ArgumentParser(prog="python -m benchmarks", description=__doc__)
    parser.add_argument("measure", nargs="?", default="quick", choices=measures)
    parser.add_argument("--rounds", type=int, help="Interleaved rounds; more narrow the intervals.")
    parser.add_argument("--threads", type=int, default=torch.get_num_threads())
    parser.add_argument("--data", type=Path, help="Folder that holds FashionMNIST/raw. Default: DATA_DIR, else data.")
    parser.add_argument(
        "--peers-python", type=Path, default=Path(".venv-peers/bin/python"), help="Interpreter that has Keras."
    )
    parser.add_argument("--output", type=Path, default=Path("benchmarks/results"), help="Folder of the JSON.")
    arguments = parser.parse_args()
    start = time.perf_counter()
    report = measures[arguments.measure](arguments)
    report.facts["measuring took, s"] = round(time.perf_counter() - start)
    report.write(arguments.output / f"{arguments.measure}.json")
    print(report.markdown())


if __name__ == "__main__":
    main()
