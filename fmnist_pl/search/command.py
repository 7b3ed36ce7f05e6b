"""The command ``fmnist search``."""

import argparse
import importlib.util
import re
import shlex
import signal
import sys
from pathlib import Path
from typing import TYPE_CHECKING

from training_health.errors import UserError

if TYPE_CHECKING:
    from optuna.study import Study

    from fmnist_pl.search.worker import Objective, Search

_DESCRIPTION = """\
Search for the best configuration: train one after the other what Optuna suggests, confirm the winner over further
seeds against the baseline, and report which choices mattered. Every trial is judged by its validation accuracy; test
images are seen by the confirmation alone.
Options that are not listed here are passed on to `fmnist fit` for every trial, for instance --monitors=off."""
_EPILOG = """\
Stopped or killed, the same command resumes; with more --trials, it continues a finished search. The same command on
other machines shares the study, if --storage is a database that all of them reach (one of them with, the others
without confirmation: --confirm_seeds without a number)."""
_SEEDS = 2**32
_EPOCHS_TO_CONFIRM = 10
_GRID = 100  # configurations; a space of no more is tried as a whole
# What every trial must have in common, by the option that says it.
_TAKEN = {
    "--space": ("variant", "config"),
    "--seed": ("seed_everything",),
    "--epochs": ("trainer.max_epochs", "trainer.fast_dev_run"),
    "--logdir": ("trainer.logger",),
    "--jobs": ("trainer.devices", "trainer.num_nodes"),  # a trial trains on one device
    "--dataset": ("data.dataset",),
    "--images": ("data.training_images",),
    "`fixed` in --space": ("data.batch_size", "data.augmentation", "model"),  # else it would overrule suggestions
    "`fmnist fit` alone for that": ("test_checkpoint", "resume"),
}


def main(args: list[str]) -> int:
    """Run ``fmnist search`` with ``args``.

    Returns:
        The exit status: 0; 1 if a run of the confirmation failed; 130 after Ctrl-C and 143 after SIGTERM, having said
        how to resume.

    Raises:
        UserError: For a wrong call, a missing extra, a storage that fails, or trials that cannot be trained.
    """
    options, fit_options = parse(args)
    for package in ("optuna", "sqlalchemy", "scipy", "markdown_it"):
        if importlib.util.find_spec(package) is None:
            raise UserError(
                f"fmnist search needs {package}, which is not installed: pip install 'fmnist_pl[search]'", exit_code=2
            )
    signal.signal(signal.SIGTERM, lambda number, _: sys.exit(128 + number))
    try:
        search = _prepare(options, fit_options)
        from fmnist_pl.search.worker import run_workers

        run_workers(search, _objective)
        with search.open() as (study, _):
            confirmed = _conclude(study, options, search.folder)
    except (KeyboardInterrupt, SystemExit) as stop:
        if isinstance(stop, SystemExit) and stop.code != 128 + signal.SIGTERM:
            raise
        command = "the same command" if "@" in (options.storage or "") else f"fmnist search {shlex.join(args)}"
        print(f"\nStopped. Finished trials are kept. Resume with: {command}", file=sys.stderr)
        return 130 if isinstance(stop, KeyboardInterrupt) else 143
    return 0 if confirmed else 1


def _objective(search: "Search") -> "Objective":
    """What a worker does with a trial; imported there, once its number of threads is set."""
    from fmnist_pl.search.trial import FitObjective

    return FitObjective(search)


def _prepare(options: argparse.Namespace, fit_options: list[str]) -> "Search":
    """Check what is asked for, and open or create the study with the trials that come first."""
    # Imported here: torch takes seconds, and a wrong call needs no torch.
    from fmnist_pl.cli import fit_configuration
    from fmnist_pl.runs.identity import identity
    from fmnist_pl.search.space import DEFAULT, read_space
    from fmnist_pl.search.storage import shown
    from fmnist_pl.search.study import Settings, counts, quiet_optuna
    from fmnist_pl.search.worker import Search

    quiet_optuna()
    space_file = Path(options.space or DEFAULT)
    space = read_space(space_file)
    first = space.first
    grid = space.trainable(at_most=_GRID)
    if grid is not None and len(grid) <= options.trials:
        print(f"The space holds {len(grid)} configurations, so there will be {len(grid)} trials.", file=sys.stderr)
        options.trials, first = len(grid), [*first, *grid]
    made_of = identity(fit_configuration(["--variant", "baseline", *fit_options]))
    code = {"code": made_of["code"], "versions": made_of["versions"]}
    settings = Settings(options.dataset, options.epochs, options.seed, options.images, fit_options, code, space.content)
    parts = [re.sub(r"[^\w.-]", "_", space_file.stem), f"{options.epochs}_epochs"]
    parts += [f"{options.images}_images"] if options.images else []
    parts += ["synthetic"] if options.dataset == "synthetic" else []
    parts += [f"seed_{options.seed}"] if options.seed else []
    name = options.study or "-".join(parts)  # studies whose trials cannot be compared get different names
    folder = Path(options.output or Path(options.logdir) / "search" / name)
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise UserError(f"The folder {folder} cannot be written: {error.strerror}. Choose one: --output.") from error
    storage = options.storage or f"sqlite:///{folder / 'study.db'}"
    search = Search(name, settings, storage, folder, options.trials, options.jobs)
    with search.open() as (study, _):
        for params in first:
            study.enqueue_trial(params, skip_if_exists=True)
        finished = sum(map(counts, study.get_trials(deepcopy=False)))
        lines = [f"Study {name}: {finished} of {options.trials} trials finished. Storage: {shown(storage)}"]
        lines += [f"Runs, and the report at the end: {folder}"]
        if study.user_attrs["code"] != code:
            lines += ["Note: the code or its libraries changed since this study began."]
    print(*lines, sep="\n", file=sys.stderr)
    return search


def _conclude(study: "Study", options: argparse.Namespace, folder: Path) -> bool:
    """Write the winner and the report, confirm the winner, and report again with that.

    Returns:
        Whether every run of the confirmation was trained.
    """
    from fmnist_pl.search.confirmation import confirm, write_winner
    from fmnist_pl.search.report import write_report

    write_report(study, folder, None)
    winner = write_winner(study, folder)
    confirmed = True
    if options.confirm_seeds:
        logdir = Path(options.logdir)
        confirmation = confirm(
            study, winner, folder, options.confirm_seeds, options.confirm_epochs, options.jobs, logdir
        )
        write_report(study, folder, confirmation)
        print(confirmation.sentence)
        confirmed = all(run.failure is None for run in confirmation.comparison.runs)
    print(f"Winner: {winner}\nReport: {folder / 'report.md'}, report.html, trials.csv")
    print(f"Train it: fmnist fit --variant {shlex.quote(str(winner))}")
    return confirmed


def parse(args: list[str]) -> tuple[argparse.Namespace, list[str]]:
    """The search's own options, and those of ``fmnist fit``.

    Raises:
        UserError: With status 2, for a value out of range or an option of ``fit`` that the search sets itself.
    """
    parser = argparse.ArgumentParser(
        "fmnist search",
        description=_DESCRIPTION,
        epilog=_EPILOG,
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
        help="Where the study is kept: sqlite:///FILE, postgresql://USER@HOST/NAME or mysql://USER@HOST/NAME. "
        "Default: study.db in the output folder.",
    )
    parser.add_argument("--study", help="Its name. Default: made of the space's name and the options.")
    parser.add_argument("--dataset", choices=["fashion_mnist", "synthetic"], default="fashion_mnist")
    parser.add_argument("--confirm_seeds", nargs="*", type=int, help="Default: the three after --seed.")
    parser.add_argument("--confirm_epochs", type=int, help="Of each. Default: 10, or --epochs if those are more.")
    parser.add_argument("--logdir", default="lightning_logs", help="Where runs leave their folders.")
    parser.add_argument("--output", help="Folder of the results. Default: LOGDIR/search/STUDY.")
    options, fit_options = parser.parse_known_args(args)
    for name in ("trials", "epochs", "jobs", "images", "confirm_epochs"):
        value = getattr(options, name)
        if value is not None and value < 1:
            raise UserError(f"--{name} must be at least 1, got {value}.", exit_code=2)
    if options.confirm_seeds is None:
        options.confirm_seeds = [(options.seed + further) % _SEEDS for further in (1, 2, 3)]
    for seed in (options.seed, *options.confirm_seeds):
        if not 0 <= seed < _SEEDS:
            raise UserError(f"A seed must be a whole number from 0 to {_SEEDS - 1}, got {seed}.", exit_code=2)
    if options.study is not None and not re.fullmatch(r"\w[\w.-]*", options.study):
        raise UserError(
            f"--study must be letters, digits, dots, dashes and underscores, got {options.study!r}.", exit_code=2
        )
    for argument in fit_options:
        name = argument.removeprefix("--").split("=")[0]
        for instead, taken in _TAKEN.items():
            if any(f"{name}.".startswith(f"{option}.") for option in taken):
                raise UserError(f"The search sets --{name} for every trial itself. Use {instead}.", exit_code=2)
    options.confirm_epochs = options.confirm_epochs or max(_EPOCHS_TO_CONFIRM, options.epochs)
    return options, fit_options
