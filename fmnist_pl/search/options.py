"""The options of ``fmnist search``, and what is wrong with them."""

import argparse
import re
from collections.abc import Sequence

from training_health.errors import UserError

_DESCRIPTION = """\
Search for the best configuration: train one after the other what Optuna suggests, confirm the winner over further
seeds against the baseline, and report which choices mattered. Every trial is judged by its validation accuracy; test
images are seen by the confirmation alone.
Options that are not listed here are passed on to `fmnist fit` for every trial, for instance --monitors=off."""
_EPILOGUE = """\
Stopped or killed, the same command goes on where it was; with more --trials, a finished search goes on too. The same
command on other machines shares the study, if --storage is a database that all of them reach (one of them with, the
others without confirmation: --confirm_seeds without a number)."""
_SEEDS = 2**32
_EPOCHS_TO_CONFIRM = 10
# What every trial must have in common, and the option that says it.
_TAKEN = {
    "variant": "--space",
    "config": "--space",
    "seed_everything": "--seed",
    "trainer.max_epochs": "--epochs",
    "trainer.fast_dev_run": "--epochs",
    "trainer.logger": "--logdir",
    "data.dataset": "--dataset",
    "data.training_images": "--images",
    "data.batch_size": "`fixed` in --space",
    "data.augmentation": "`fixed` in --space",
    "model": "`fixed` in --space",  # else it would overrule what was suggested
    "test_checkpoint": None,
    "resume": None,
}


def parse(args: list[str]) -> tuple[argparse.Namespace, list[str]]:
    """The search's own options, and those of ``fit``.

    Raises:
        UserError: With status 2, for a value out of range or an option of ``fit`` that the search sets itself.
    """
    options, fit_options = _parser().parse_known_args(args)
    for name in ("trials", "epochs", "jobs", "images", "confirm_epochs"):
        value = getattr(options, name)
        if value is not None and value < 1:
            raise UserError(f"--{name} must be at least 1, got {value}.", exit_code=2)
    for name, seeds in (("seed", [options.seed]), ("confirm_seeds", options.confirm_seeds or [])):
        if wrong := [seed for seed in seeds if not 0 <= seed < _SEEDS]:
            raise UserError(f"--{name} must be a whole number from 0 to {_SEEDS - 1}, got {wrong[0]}.", exit_code=2)
    if options.study is not None and not re.fullmatch(r"\w[\w.-]*", options.study):
        raise UserError(
            f"--study must be letters, digits, dots, dashes and underscores, got {options.study!r}.", exit_code=2
        )
    _refuse_taken(fit_options)
    if options.confirm_seeds is None:
        options.confirm_seeds = [(options.seed + further) % _SEEDS for further in (1, 2, 3)]
    if options.confirm_epochs is None:
        options.confirm_epochs = max(_EPOCHS_TO_CONFIRM, options.epochs)
    return options, fit_options


def _refuse_taken(fit_options: Sequence[str]) -> None:
    for argument in fit_options:
        name = argument.removeprefix("--").split("=")[0]
        taken = next((key for key in _TAKEN if name == key or name.startswith(f"{key}.")), None)
        if taken is not None:
            instead = f" Use {_TAKEN[taken]}." if _TAKEN[taken] else ""
            raise UserError(f"The search sets --{taken} for every trial itself.{instead}", exit_code=2)


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        "fmnist search",
        description=_DESCRIPTION,
        epilog=_EPILOGUE,
        allow_abbrev=False,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("--trials", type=int, default=50, help="In the study at the end. Default: %(default)s.")
    parser.add_argument("--epochs", type=int, default=5, help="Of every trial. Default: %(default)s.")
    parser.add_argument("--space", help="YAML file that says what varies. Default: the packaged one.")
    parser.add_argument("--images", type=int, help="Train every trial on the first so many images. Default: all.")
    parser.add_argument("--jobs", type=int, default=1, help="Trials at a time; they share threads and GPUs.")
    parser.add_argument("--seed", type=int, default=0, help="Of the suggestions and of every trial. Default: 0.")
    parser.add_argument(
        "--storage",
        help="Where the study is kept: sqlite:///FILE, postgresql://USER@HOST/NAME, mysql://USER@HOST/NAME, or the "
        "path of a journal file. Default: study.db in the output folder.",
    )
    parser.add_argument("--study", help="Its name. Default: made of the space's name and the options.")
    parser.add_argument("--dataset", choices=["fashion_mnist", "synthetic"], default="fashion_mnist")
    parser.add_argument("--confirm_seeds", nargs="*", type=int, help="Default: the three after --seed.")
    parser.add_argument("--confirm_epochs", type=int, help="Of each. Default: 10, or --epochs if those are more.")
    parser.add_argument("--logdir", default="lightning_logs", help="Where runs leave their folders.")
    parser.add_argument("--output", help="Folder of the results. Default: LOGDIR/search/STUDY.")
    return parser
