"""Which runs are wanted: variants times seeds, each with its identity."""

from collections.abc import Sequence

from fmnist_pl.compare.configuration import fit_configuration
from fmnist_pl.compare.log_folder import WantedRun
from fmnist_pl.runs.identity import identity
from fmnist_pl.runs.record import versions
from fmnist_pl.variants import variant_name
from training_health.errors import UserError


def wanted_runs(variants: Sequence[str], seeds: Sequence[int], options: Sequence[str]) -> list[WantedRun]:
    """Every variant with every seed once; seed by seed, so that an early look compares the same seeds.

    Raises:
        UserError: Without variants or seeds, for an unknown variant, or if the variants use different data.
    """
    variants, seeds = list(dict.fromkeys(variants)), list(dict.fromkeys(seeds))
    if not variants or not seeds:
        missing = "variants" if not variants else "seeds"
        raise UserError(f"No {missing} were given. Name them: --variants baseline sgd --seeds 0 1 2 3 4", exit_code=2)
    if min(seeds) < 0:
        raise UserError(f"A seed must be a whole number from 0, got {min(seeds)}.", exit_code=2)
    names = [variant_name(variant) for variant in variants]
    if len(set(names)) < len(names):
        raise UserError(f"Two variants have the same name: {', '.join(names)}. Rename one's file.", exit_code=2)
    by_variant = [_runs_of(variant, seeds, options) for variant in variants]
    _check_same_data([runs[0] for runs in by_variant])
    return [run for runs_of_seed in zip(*by_variant, strict=True) for run in runs_of_seed]


def _runs_of(variant: str, seeds: Sequence[int], options: Sequence[str]) -> list[WantedRun]:
    words, runs = ("--variant", variant, *options), []
    config = fit_configuration(list(words))
    for seed in seeds:
        config.seed_everything = seed
        command = (*words, f"--seed_everything={seed}")
        runs.append(WantedRun(variant_name(variant), seed, command, identity(config, versions())))
    return runs


def _check_same_data(runs: Sequence[WantedRun]) -> None:
    """All variants of a table must see the same images in the same split."""
    first, ours = runs[0], runs[0].identity["data"]
    for run in runs[1:]:
        theirs = run.identity["data"]
        differ = [
            f"{key}: {ours[key]} for {first.name}, {theirs[key]} for {run.name}"
            for key in ours
            if ours[key] != theirs[key]
        ]
        if differ:
            raise UserError(
                f"{first.name} and {run.name} do not use the same data and split, so one table cannot compare them "
                f"({'; '.join(differ)}). Compare them on one data set, with the same number of training images.",
                exit_code=2,
            )
