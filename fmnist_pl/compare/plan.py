"""Which runs are wanted: variants times seeds, each with its identity."""

import copy
from collections.abc import Sequence

from fmnist_pl.compare.configuration import fit_configuration
from fmnist_pl.compare.wanted_run import WantedRun
from fmnist_pl.runs.identity import identity
from fmnist_pl.runs.record import versions
from fmnist_pl.variants import variant_name
from training_health.errors import UserError


def wanted_runs(variants: Sequence[str], seeds: Sequence[int], options: Sequence[str]) -> list[WantedRun]:
    """Every variant with every seed; seed by seed, so that an early look compares like with like.

    Args:
        variants: Packaged names or paths of overlays.
        seeds: Whole numbers from 0; repeats are dropped.
        options: Further options of ``fmnist fit``, the same for all.

    Raises:
        UserError: Without variants or seeds, for an unknown variant, or if the variants use different data.
    """
    variants, seeds = list(dict.fromkeys(variants)), list(dict.fromkeys(seeds))
    if not variants:
        raise UserError("No variants were given. Name at least one: --variants baseline no_dropout", exit_code=2)
    if not seeds:
        raise UserError("No seeds were given. Name at least one, better five: --seeds 0 1 2 3 4", exit_code=2)
    if min(seeds) < 0:
        raise UserError(f"A seed must be a whole number from 0, got {min(seeds)}.", exit_code=2)
    names = [variant_name(variant) for variant in variants]
    if len(set(names)) < len(names):
        raise UserError(f"Two variants have the same name: {', '.join(names)}. Rename one's file.", exit_code=2)
    by_variant = {variant: _runs_of(variant, seeds, options) for variant in variants}
    _refuse_mixed_data([runs[0] for runs in by_variant.values()])
    return [by_variant[variant][index] for index in range(len(seeds)) for variant in variants]


def _runs_of(variant: str, seeds: Sequence[int], options: Sequence[str]) -> list[WantedRun]:
    config = fit_configuration(["--variant", variant, *options])
    runs = []
    for seed in seeds:
        seeded = copy.deepcopy(config)
        seeded.seed_everything = seed
        command = ("--variant", variant, *options, f"--seed_everything={seed}")
        runs.append(
            WantedRun(
                variant,
                variant_name(variant),
                seed,
                max(0, seeded.trainer.max_epochs or 0),
                command,
                identity(seeded, versions()),
            )
        )
    return runs


def _refuse_mixed_data(runs: Sequence[WantedRun]) -> None:
    """All variants of a table must see the same images in the same split."""
    first = runs[0]
    for run in runs[1:]:
        ours, theirs = first.identity["data"], run.identity["data"]
        if ours != theirs:
            differing = "; ".join(
                f"{key}: {ours[key]} for {first.name}, {theirs[key]} for {run.name}"
                for key in ours
                if ours[key] != theirs[key]
            )
            raise UserError(
                f"{first.name} and {run.name} do not use the same data and split, so one table cannot compare them "
                f"({differing}). Compare them on one data set, with the same number of training images.",
                exit_code=2,
            )
