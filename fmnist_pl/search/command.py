"""The command ``fmnist search``."""

import argparse
import contextlib
import re
import shlex
import signal
import sys
from pathlib import Path
from types import FrameType
from typing import TYPE_CHECKING, Any

from fmnist_pl.search.options import parse
from training_health.errors import UserError

if TYPE_CHECKING:
    from optuna.study import Study

    from fmnist_pl.search.study import Settings


def main(args: list[str]) -> int:
    """Run ``fmnist search`` with ``args``.

    Returns:
        The exit status: 0; 1 if a run of the confirmation failed; 130 after Ctrl-C, having said how to go on.

    Raises:
        UserError: For a wrong call, a storage that fails, or trials that cannot be trained.
    """
    options, fit_options = parse(args)

    # Imported here: torch takes seconds, and a wrong call needs no torch.
    from fmnist_pl.search.small_space import count_configurations
    from fmnist_pl.search.space import DEFAULT, read_space

    space = read_space(Path(options.space or DEFAULT))
    count = count_configurations(space)
    if count == 0:
        raise UserError(
            f"The space {options.space} holds no configuration that may be trained. "
            "Widen it, or raise parameters_at_most or multiplications_at_most.",
            exit_code=2,
        )
    if count is not None and count < options.trials:
        print(f"The space holds {count} configurations, so there will be {count} trials at most.", file=sys.stderr)
        options.trials = count
    settings = _settings(options, space, fit_options)
    name = options.study or _study_name(settings)
    folder = Path(options.output or Path(options.logdir) / "search" / name)
    signal.signal(signal.SIGTERM, _stop)
    try:
        with contextlib.ExitStack() as cleanup:
            study = _search(options, settings, name, folder, cleanup)
            confirmed = _conclude(study, options, folder)
    except (KeyboardInterrupt, SystemExit) as stop:
        command = "the same command" if "@" in (options.storage or "") else f"fmnist search {shlex.join(args)}"
        print(f"\nStopped. Finished trials are kept. Go on with: {command}", file=sys.stderr)
        return 130 if isinstance(stop, KeyboardInterrupt) else int(stop.code or 0)
    return 0 if confirmed else 1


def _search(
    options: argparse.Namespace, settings: "Settings", name: str, folder: Path, cleanup: contextlib.ExitStack
) -> "Study":
    """Have the study's trials trained."""
    from fmnist_pl.compare.display import Display
    from fmnist_pl.search.ledger import Ledger
    from fmnist_pl.search.presence import Presence
    from fmnist_pl.search.storage import StudyStorage
    from fmnist_pl.search.study import open_study
    from fmnist_pl.search.workers.crew import worker_starter
    from fmnist_pl.search.workers.supervisor import Supervisor

    try:
        folder.mkdir(parents=True, exist_ok=True)
        storage = StudyStorage(options.storage or f"sqlite:///{folder / 'study.db'}")
        cleanup.callback(storage.close)
        study = open_study(storage, name, settings)
        ledger = Ledger(study, storage, settings.space, settings.seed, Presence(folder))
        cleanup.callback(ledger.close)
    except OSError as error:
        raise UserError(f"The folder {folder} cannot be written: {error.strerror}. Choose one: --output.") from error
    display = Display()
    finished = ledger.tally().finished
    display.line(f"Study {name}: {finished} of {options.trials} trials finished. Storage: {storage.shown}")
    display.line(f"Runs, and the report at the end: {folder}")
    if study.user_attrs["code"] != settings.code:
        display.line("Note: the code or its libraries changed since this study began; its trials are of both.")
    start = worker_starter(options.jobs, [sys.executable, "-m", "fmnist_pl.search.workers.worker"])
    Supervisor(ledger, settings, folder, options.jobs, options.trials, display, start).run()
    return study


def _conclude(study: "Study", options: argparse.Namespace, folder: Path) -> bool:
    """Write the winner and the report, confirm the winner, and report again with that.

    Returns:
        Whether every run of the confirmation was trained.
    """
    from fmnist_pl.search.confirmation import confirm
    from fmnist_pl.search.report import write_report
    from fmnist_pl.search.result import write_winner

    write_report(study, folder, None)
    winner = write_winner(study, folder)
    confirmed = True
    if seeds := options.confirm_seeds:
        logs = Path(options.logdir)
        confirmation = confirm(study, winner, folder, seeds, options.confirm_epochs, options.jobs, logdir=logs)
        write_report(study, folder, confirmation)
        print(confirmation.sentence)
        confirmed = all(run.failure is None for run in confirmation.comparison.runs)
    print(f"Winner: {winner}\nReport: {folder / 'report.md'}, report.html, trials.csv")
    print(f"Train it: fmnist fit --variant {shlex.quote(str(winner))}")
    return confirmed


def _settings(options: argparse.Namespace, space: Any, fit_options: list[str]) -> "Settings":  # noqa: ANN401
    """What the trials have in common; refuses options that ``fit`` does not take."""
    from fmnist_pl.compare.configuration import fit_configuration
    from fmnist_pl.runs.identity import content_hash, identity
    from fmnist_pl.runs.record import versions
    from fmnist_pl.search.study import Settings

    config = fit_configuration(["--variant", "baseline", f"--data.dataset={options.dataset}", *fit_options])
    if str(config.trainer.devices) != "1" or config.trainer.num_nodes != 1:
        raise UserError("A trial trains on one device. Train several at a time with --jobs instead.", exit_code=2)
    made_of = identity(config, versions())
    code = content_hash([made_of["code"], made_of["versions"]])
    return Settings(space, options.dataset, options.epochs, options.seed, options.images, tuple(fit_options), code)


def _study_name(settings: "Settings") -> str:
    """Studies whose trials cannot be compared get different names."""
    parts = [re.sub(r"[^\w.-]", "_", settings.space.name), f"{settings.epochs}_epochs"]
    parts += [] if settings.subset is None else [f"{settings.subset}_images"]
    parts += ["synthetic"] if settings.data == "synthetic" else []
    parts += [] if settings.seed == 0 else [f"seed_{settings.seed}"]
    return "-".join(parts)


def _stop(number: int, frame: FrameType | None) -> None:
    sys.exit(128 + number)
