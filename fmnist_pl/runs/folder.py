"""``lightning_logs/<variant>[-synthetic]/version_N/``: where a run leaves its files."""

import time
from pathlib import Path
from typing import Any

from filelock import BaseFileLock, FileLock, Timeout
from pytorch_lightning.loggers import TensorBoardLogger
from pytorch_lightning.utilities import rank_zero_only

from fmnist_pl.variants import variant_name
from training_health.errors import UserError

TENSORBOARD = ("RunLogger", "TensorBoardLogger")


def choose(config: Any, command: str) -> None:  # noqa: ANN401
    """Give the configured TensorBoard logger the variant's name and a new version folder of its own.

    The folder is made here, at once: of two runs that start together each gets its own. Other loggers, or a logger
    with a name of the user's, are left as they are.

    Args:
        config: The subcommand's parsed configuration; changed in place.
        command: The subcommand. Other than for fit it becomes part of the name, so that evaluating a checkpoint does
            not look like a run.

    Raises:
        UserError: If the folder cannot be written.
    """
    logger = config.trainer.logger
    if not _is_tensorboard(logger) or logger.init_args.name is not None:
        return
    logger.init_args.name = runs_folder(Path(), config.variant, config.data.dataset).name + (
        "" if command == "fit" else f"-{command}"
    )
    if config.trainer.fast_dev_run or rank_zero_only.rank != 0:  # type: ignore[attr-defined]
        return  # no files, or the first rank made the folder
    if logger.init_args.version is None:
        logger.init_args.version = new_version(Path(logger.init_args.save_dir) / logger.init_args.name)


def runs_folder(logs: Path, variant: str, dataset: str) -> Path:
    """Folder with the ``version_N`` folders of a variant's runs."""
    return logs / (variant_name(variant) + ("-synthetic" if dataset == "synthetic" else ""))


def reopen(config: Any, folder: Path) -> None:  # noqa: ANN401
    """Have the configured TensorBoard logger write into the folder of a run that goes on.

    Args:
        config: The subcommand's parsed configuration; changed in place.
        folder: The run's folder.

    Raises:
        UserError: The run has another logger, of which this program does not know how it goes on.
    """
    logger = config.trainer.logger
    if not _is_tensorboard(logger):
        raise UserError(f"{folder} cannot be resumed: its logger is not TensorBoard's.", exit_code=2)
    logger.init_args.save_dir, logger.init_args.name = str(folder.parent.parent), folder.parent.name
    number = folder.name.removeprefix("version_")
    logger.init_args.version = int(number) if number.isdigit() else folder.name


def claim(folder: Path) -> BaseFileLock:
    """Hold ``folder`` for this run while the process lives.

    Raises:
        UserError: Another process is training into it.
    """
    lock = FileLock(folder / ".lock")
    try:
        folder.mkdir(parents=True, exist_ok=True)
        lock.acquire(timeout=0)
    except Timeout:
        raise UserError(
            f"Another process is training in {folder}. Wait for it, or stop it, before the run is resumed."
        ) from None
    except OSError as error:
        raise UserError(f"The run's folder {folder} cannot be written: {error.strerror}.") from error
    return lock


def follow_curves(loggers: list[Any], steps: int) -> None:
    """Tell TensorBoard from which step on a run's earlier curves are void: those of steps that are done again.

    Every run says so, the first with step 0; one of TensorBoard's two readers ignores the first such mark it meets.

    Args:
        loggers: The trainer's. Only TensorBoard's are told, before they write anything.
        steps: Optimiser steps that are done.
    """
    for logger in loggers:
        if isinstance(logger, TensorBoardLogger):
            if logger._kwargs.get("purge_step") is None:
                logger._kwargs["purge_step"] = steps
            wait_for_a_later_name(Path(logger.log_dir))


def wait_for_a_later_name(folder: Path) -> None:
    """Event files are read in the order of their names, which begin with the second they were made in."""
    made = [int(name.split(".")[3]) for path in folder.glob("events.out.tfevents.*") if _is_dated(name := path.name)]
    until = time.time() + 2  # more only if a clock was set back: do not wait for that
    while int(time.time()) <= max(made, default=0) and time.time() < until:
        time.sleep(0.05)


def _is_dated(name: str) -> bool:
    return name.split(".")[3].isdigit()


def _is_tensorboard(logger: Any) -> bool:  # noqa: ANN401
    """Whether a configured logger is one of those whose folders this module knows."""
    return getattr(logger, "class_path", "").rsplit(".", 1)[-1] in TENSORBOARD


def new_version(folder: Path) -> int:
    """Make the first free ``version_N`` in ``folder`` and return N; safe against other processes doing the same."""
    try:
        folder.mkdir(parents=True, exist_ok=True)
        taken = [int(path.name[8:]) for path in folder.glob("version_*") if path.name[8:].isdigit()]
        version = max(taken, default=-1) + 1
        while True:
            try:
                (folder / f"version_{version}").mkdir()
            except FileExistsError:
                version += 1
            else:
                return version
    except OSError as error:
        raise UserError(
            f"The run's folder {folder} cannot be written: {error.strerror}. Choose another with "
            "--trainer.logger.init_args.save_dir=FOLDER, or mend its permissions."
        ) from error
