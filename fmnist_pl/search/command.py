"""The command ``fmnist search``."""

import argparse
import re
import shlex
import signal
import sys
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING

import yaml

from fmnist_pl.configuration import refuse_taken
from training_health.errors import UserError

if TYPE_CHECKING:
    from optuna.study import Study

    from fmnist_pl.search.worker import Search

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
        UserError: For a wrong call, a storage that fails, or trials that cannot be trained.
        ModuleNotFoundError: If a package of the extra is missing, before anything is trained.
    """
    options, fit_options = parse(args)
    signal.signal(signal.SIGTERM, lambda number, _: sys.exit(128 + number))
    try:
        search = _prepare(options, fit_options)
        from fmnist_pl.search.worker import run_workers

        run_workers(search, "fmnist_pl.search.trial:FitObjective")
        with search.open() as (study, _):
            return conclude(study, options, search.folder)
    except (KeyboardInterrupt, SystemExit) as stop:
        if isinstance(stop, SystemExit) and stop.code != 128 + signal.SIGTERM:
            raise
        command = "the same command" if "@" in (options.storage or "") else f"fmnist search {shlex.join(args)}"
        print(f"\nStopped. Finished trials are kept. Resume with: {command}", file=sys.stderr)
        return 130 if isinstance(stop, KeyboardInterrupt) else 143


def _prepare(options: argparse.Namespace, fit_options: list[str]) -> "Search":
    """Check what is asked for, and open or create the study with the trials that come first."""
    # Imported here: torch takes seconds, and a wrong call needs no torch. The report is needed hours later, but a
    # package that it lacks is to be known now.
    import fmnist_pl.search.report  # noqa: F401
    from fmnist_pl.cli import fit_configuration
    from fmnist_pl.configuration import load_yaml
    from fmnist_pl.runs.identity import identity
    from fmnist_pl.search.space import DEFAULT, Space
    from fmnist_pl.search.storage import file_url, shown
    from fmnist_pl.search.study import Settings, counts
    from fmnist_pl.search.worker import Search

    space_file = Path(options.space or DEFAULT)
    space = Space(load_yaml(space_file), str(space_file))
    first = space.first
    grid = space.trainable(at_most=_GRID)
    if grid is not None and len(grid) <= options.trials:
        print(f"The space holds {len(grid)} configurations, so there will be {len(grid)} trials.", file=sys.stderr)
        options.trials, first = len(grid), [*first, *grid]
    made_of = identity(fit_configuration(["--variant", "baseline", *fit_options]))
    code = {"code": made_of["code"], "versions": made_of["versions"]}
    settings = Settings(options.dataset, options.epochs, options.seed, options.images, fit_options, code, space.content)
    parts = [space_file.stem, f"{options.epochs}_epochs"]
    parts += [f"{options.images}_images"] if options.images else []
    parts += ["synthetic"] if options.dataset == "synthetic" else []
    parts += [f"seed_{options.seed}"] if options.seed else []
    # Studies whose trials cannot be compared get different names; a name is that of a folder too.
    name = re.sub(r"[^\w.-]", "_", options.study or "-".join(parts))
    folder = options.output or options.logdir / "search" / name
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise UserError(f"The folder {folder} cannot be written: {error.strerror}. Choose one: --output.") from error
    storage = options.storage or file_url(folder / "study.db")
    search = Search(name, settings, storage, folder, options.trials, options.jobs)
    with search.open() as (study, _):
        for params in first:
            study.enqueue_trial(params, skip_if_exists=True)
        finished = sum(map(counts, study.get_trials(deepcopy=False)))
        if study.user_attrs["code"] != code:
            print("Note: the code or its libraries changed since this study began.", file=sys.stderr)
    print(f"Study {name}: {finished} of {options.trials} trials finished. Storage: {shown(storage)}", file=sys.stderr)
    print(f"Runs, and the report at the end: {folder}", file=sys.stderr)
    return search


def conclude(study: "Study", options: argparse.Namespace, folder: Path) -> int:
    """Write the report and the winner; train it and the baseline with further seeds; the exit status.

    Only these runs see the test images.

    Raises:
        UserError: If no trial was completed, or a file cannot be written.
    """
    from fmnist_pl.compare.comparison import train_and_compare
    from fmnist_pl.process import printable
    from fmnist_pl.runs.folder import write_file
    from fmnist_pl.search.report import write_report
    from fmnist_pl.search.space import Space
    from fmnist_pl.search.study import best_of

    write_report(study, folder, None)
    best, settings = best_of(study.get_trials(deepcopy=False)), study.user_attrs
    if best is None:
        why = f"The report in {folder} says why; search with more trials, or a space that trains"
        raise UserError(f"No trial of the study {study.study_name!r} was completed: it has no winner. {why}.")
    winner = folder / "winner.yaml"
    overlay = {**Space(settings["space"]).overlay(best.params), "variant": "winner"}
    head = f"# The best trial of the search {study.study_name!r}, number {best.number}.\n"
    write_file(winner, head + yaml.safe_dump(overlay, sort_keys=False))
    failed = False
    if options.confirm_seeds:
        same = [f"--data.dataset={settings['data']}", f"--trainer.max_epochs={options.confirm_epochs}"]
        comparison = train_and_compare(
            ["baseline", str(winner)],
            options.confirm_seeds,
            reference="baseline",
            options=[*same, *settings["options"]],
            jobs=options.jobs,
            logdir=options.logdir,
            output=folder / "confirmation",
        )
        write_report(study, folder, comparison)
        failed = any(run.failure is not None for run in comparison.runs)
    said = f"Winner: {winner}\nReport: {folder / 'report.md'}, report.html, trials.csv"
    print(printable(f"{said}\nTrain it: fmnist fit --variant {shlex.quote(str(winner))}"))
    return int(failed)


def parse(args: list[str]) -> tuple[argparse.Namespace, list[str]]:
    """The search's own options, and those of ``fmnist fit``.

    Raises:
        SystemExit: With status 2, for a value out of range.
        UserError: With status 2, for an option of ``fit`` that the search sets itself.
    """
    parser = argparse.ArgumentParser(
        "fmnist search",
        description="Train one after the other what Optuna suggests, confirm the winner over further seeds against the "
        "baseline, and report which choices mattered. Options that are not listed here are passed on to `fmnist fit` "
        "for every trial, for instance --monitors=off.",
        epilog="Stopped or killed, the same command resumes; with more --trials, it continues a finished search. On "
        "other machines with the same --storage, a database, it shares the study; give one alone the --confirm_seeds.",
        allow_abbrev=False,
    )
    add, count, seed = parser.add_argument, _number(1, 10**9), _number(0, _SEEDS - 1)
    add("--trials", type=count, default=50, help="In the study at the end. Default: %(default)s.")
    add("--epochs", type=count, default=5, help="Of every trial. Default: %(default)s.")
    add("--space", help="YAML file that says what varies. Default: the packaged one.")
    add("--images", type=count, help="Train every trial on the first so many images. Default: all.")
    add("--jobs", type=count, default=1, help="Trials at a time; they share threads and GPUs.")
    add("--seed", type=seed, default=0, help="Of the suggestions and of every trial. Default: 0.")
    forms = "sqlite:///FILE, postgresql://USER@HOST/NAME or mysql://USER@HOST/NAME"
    add("--storage", help=f"Where the study is kept: {forms}. Default: study.db in the output folder.")
    add("--study", help="Its name, and its folder's. Default: made of the space's name and the options.")
    add("--dataset", choices=["fashion_mnist", "synthetic"], default="fashion_mnist")
    add("--confirm_seeds", nargs="*", type=seed, help="Default: the three after --seed.")
    add(
        "--confirm_epochs",
        type=count,
        help="Epochs of each confirming run. Default: 10, or --epochs if those are more.",
    )
    add("--logdir", type=Path, default=Path("lightning_logs"), help="Where runs leave their folders.")
    add("--output", type=Path, help="Folder of the results. Default: LOGDIR/search/STUDY.")
    options, fit_options = parser.parse_known_args(args)
    refuse_taken(fit_options, _TAKEN, "search")
    if options.confirm_seeds is None:
        options.confirm_seeds = [(options.seed + further) % _SEEDS for further in (1, 2, 3)]
    options.confirm_epochs = options.confirm_epochs or max(_EPOCHS_TO_CONFIRM, options.epochs)
    return options, fit_options


def _number(low: int, high: int) -> Callable[[str], int]:
    def number(text: str) -> int:
        if not low <= int(text) <= high:
            raise argparse.ArgumentTypeError(f"must be a whole number from {low} to {high}, got {text}")
        return int(text)

    return number
