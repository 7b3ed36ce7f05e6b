"""Trains what a comparison lacks, and compares."""

from collections.abc import Sequence
from functools import partial
from pathlib import Path

from fmnist_pl.compare.log_folder import LogFolder, RunResult
from fmnist_pl.compare.output import write_all
from fmnist_pl.compare.plan import wanted_runs
from fmnist_pl.compare.results import Comparison, compare
from fmnist_pl.compare.training import TrainingPool, fit_command
from fmnist_pl.variants import variant_name
from training_health.errors import UserError

__all__ = ["Comparison", "train_and_compare"]


def train_and_compare(
    variants: Sequence[str],
    seeds: Sequence[int],
    *,
    reference: str,
    options: Sequence[str] = (),
    jobs: int = 1,
    logdir: Path,
    output: Path | None = None,
    any_code: bool = False,
) -> Comparison:
    """Train every variant with every seed, but for runs that are finished, and compare them.

    Interrupted and called again, it repeats no finished run and resumes the interrupted ones.

    Args:
        variants: Packaged names or paths of YAML overlays.
        seeds: Of the runs.
        reference: The variant that the others are compared to, one of ``variants``.
        options: Further options of ``fmnist fit``, the same for all runs.
        jobs: How many runs train at a time; threads and CUDA devices are divided among them.
        logdir: Where runs leave and find their folders.
        output: Folder of the tables and of the runs' output. Default: ``LOGDIR/compare[-synthetic]``.
        any_code: Accept finished runs of other versions of the code and its libraries.

    Returns:
        All results. A run that fails is no error: it has a ``failure``, and the table leaves it out.

    Raises:
        UserError: If runs cannot be planned or the results cannot be written.
    """
    if jobs < 1:
        raise UserError(f"--jobs must be at least 1, got {jobs}.", exit_code=2)
    runs = wanted_runs(variants, seeds, options)
    reference = variant_name(reference)
    if reference not in {run.name for run in runs}:
        raise UserError(f"The reference {reference!r} is not among the variants. Add it to --variants.", exit_code=2)
    logs, data = LogFolder(logdir, any_code=any_code), runs[0].identity["data"]
    folder = output or logdir / f"compare{'-synthetic' if data['dataset'] == 'synthetic' else ''}"
    failures = TrainingPool(logs, folder / "output", jobs, partial(fit_command, logdir)).train(runs)
    results = [
        logs.finished(run) or RunResult(run.name, run.seed, failures.get(run.digest, "not trained")) for run in runs
    ]
    comparison = compare(results, reference, data)
    write_all(comparison, folder)
    return comparison
