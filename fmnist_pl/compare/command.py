"""The command ``fmnist compare``."""

import argparse
import signal
import sys
from pathlib import Path
from types import FrameType

from fmnist_pl.variants import overlay_path, variant_name
from training_health.errors import UserError

_DESCRIPTION = """\
Train every variant with every seed, skip what is finished already, and compare.
Options that are not listed here are passed on to `fmnist fit`, for instance --data.batch_size=128."""
_EPILOGUE = (
    "Stopped or killed, the same command goes on where it was. Status 1: a run failed; the table shows the others."
)


def main(args: list[str]) -> int:
    """Run ``fmnist compare`` with ``args``.

    Prints the comparison on standard output and its progress on standard error; writes ``compare.md``,
    ``compare.csv``, ``compare.json`` and TensorBoard records.

    Returns:
        The exit status: 0, or 1 if a run failed.

    Raises:
        UserError: For a wrong call, or if the results cannot be written.
    """
    options, fit_options = _parser().parse_known_args(args)
    if options.jobs < 1:
        raise UserError(f"--jobs must be at least 1, got {options.jobs}.", exit_code=2)
    for variant in options.variants:
        overlay_path(variant)  # refuses one that is not there
    if options.epochs is not None:
        fit_options = [f"--trainer.max_epochs={options.epochs}", *fit_options]
    if options.dataset is not None:
        fit_options = [f"--data.dataset={options.dataset}", *fit_options]

    # Imported here: torch takes seconds, and a wrong call needs no torch.
    from fmnist_pl.compare.comparison import compare, run_result
    from fmnist_pl.compare.display import Display
    from fmnist_pl.compare.finished import LogFolder
    from fmnist_pl.compare.output import write_all
    from fmnist_pl.compare.plan import wanted_runs
    from fmnist_pl.compare.runner import Runner, fit_command

    signal.signal(signal.SIGTERM, _stop)
    runs = wanted_runs(options.variants, options.seeds, fit_options)
    reference = variant_name(options.reference) if options.reference else runs[0].name
    if reference not in {run.name for run in runs}:
        raise UserError(f"The reference {reference!r} is not among the variants. Add it to --variants.", exit_code=2)
    logs = LogFolder(Path(options.logdir), any_code=options.any_code)
    data = runs[0].identity["data"]
    folder = Path(options.output or logs.path / f"compare{'-synthetic' if data['dataset'] == 'synthetic' else ''}")
    failures = Runner(logs, folder / "output", options.jobs, Display(), fit_command(logs.path)).train(runs)
    results = [run_result(run, logs.finished(run), failures.get(run.digest)) for run in runs]
    write_all(compare(results, reference, data), folder)
    return 1 if any(result.failure is not None for result in results) else 0


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        "fmnist compare",
        description=_DESCRIPTION,
        epilog=_EPILOGUE,
        allow_abbrev=False,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument(
        "--variants", nargs="*", default=["baseline", "no_dropout", "sgd"], help="Packaged names or YAML overlays."
    )
    parser.add_argument("--seeds", nargs="*", type=int, default=[0, 1, 2, 3, 4])
    parser.add_argument("--epochs", type=int, help="Of every run. Default: each variant's own.")
    parser.add_argument("--dataset", choices=["fashion_mnist", "synthetic"], help="Default: the variants' own.")
    parser.add_argument("--reference", help="Variant that the others are compared to. Default: the first.")
    parser.add_argument("--jobs", type=int, default=1, help="Runs at a time; threads and GPUs are divided among them.")
    parser.add_argument("--logdir", default="lightning_logs", help="Where runs leave and find their folders.")
    parser.add_argument("--output", help="Folder of the results. Default: LOGDIR/compare.")
    parser.add_argument(
        "--any_code",
        action="store_true",
        help="Accept finished runs of other versions of the code and its libraries; the table says so.",
    )
    return parser


def _stop(number: int, frame: FrameType | None) -> None:
    sys.exit(128 + number)
