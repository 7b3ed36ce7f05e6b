"""Which runs a comparison wants; trains those that it lacks, and compares."""

from collections.abc import Sequence
from functools import partial
from pathlib import Path

from fmnist_pl.cli import fit_configuration
from fmnist_pl.compare.log_folder import LogFolder, RunResult, WantedRun
from fmnist_pl.compare.output import write_all
from fmnist_pl.compare.results import Comparison, compare
from fmnist_pl.compare.training import TrainingPool, fit_command
from fmnist_pl.configuration import variant_name
from fmnist_pl.runs.identity import identity
from training_health.errors import UserError


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
    markdown: bool = False,
) -> Comparison:
    """Train every variant with every seed, but for runs that are finished, and compare them.

    The arguments are those of ``fmnist compare``; ``options`` are further ones of ``fmnist fit``, for all runs.
    Interrupted and called again, it repeats no finished run and resumes the interrupted ones. A run that fails is no
    error: it has a ``failure``, and the table leaves it out.

    Raises:
        UserError: For arguments that make no comparison, or if the results cannot be written.
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
    comparison = compare(results, reference, data, options)
    write_all(comparison, folder, markdown)
    return comparison


def wanted_runs(variants: Sequence[str], seeds: Sequence[int], options: Sequence[str]) -> list[WantedRun]:
    """Every variant with every seed once; seed by seed, so that an early look compares the same seeds.

    Raises:
        UserError: Without variants or seeds, for an unknown variant, or if the variants use different data.
    """
    variants, seeds = list(dict.fromkeys(variants)), list(dict.fromkeys(seeds))
    if not variants or not seeds:
        missing = "variants" if not variants else "seeds"
        raise UserError(f"No {missing} were given. Name them: --variants baseline sgd --seeds 0 1 2 3 4", exit_code=2)
    if wrong := [seed for seed in seeds if not 0 <= seed < 2**32]:
        raise UserError(f"A seed must be a whole number from 0 to {2**32 - 1}, got {wrong[0]}.", exit_code=2)
    names = [variant_name(variant) for variant in variants]
    if len(set(names)) < len(names):
        raise UserError(f"Two variants have the same name: {', '.join(names)}. Rename one's file.", exit_code=2)
    words = {name: ("--variant", variant, *options) for name, variant in zip(names, variants, strict=True)}
    configs = {name: fit_configuration(list(words[name])) for name in names}
    for name, config in configs.items():
        epochs = config.trainer.max_epochs
        if config.trainer.fast_dev_run:
            raise UserError(f"{name} has trainer.fast_dev_run, which leaves nothing to compare: leave it out.", 2)
        if epochs is not None and epochs < 1 and epochs != -1:
            raise UserError(f"{name} has trainer.max_epochs {epochs}: it must be at least 1.", 2)
    runs = []
    for seed in seeds:
        for name, config in configs.items():
            config.seed_everything = seed
            command = (*words[name], f"--seed_everything={seed}")
            runs.append(WantedRun(name, seed, command, identity(config)))
    first = runs[0]
    for run in runs[1 : len(names)]:
        ours, theirs = first.identity["data"], run.identity["data"]
        if differ := [f"{key}: {ours[key]} and {theirs[key]}" for key in ours if ours[key] != theirs[key]]:
            raise UserError(
                f"{first.name} and {run.name} do not use the same data and split, so one table cannot compare them "
                f"({'; '.join(differ)}). Compare them on one data set, with the same number of training images.",
                exit_code=2,
            )
    return runs
