"""``lightning_logs/<variant>[-synthetic]/version_N/``: a run's files, and how its logger writes there."""

import os
import time
import warnings
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import pytorch_lightning as pl
import yaml
from filelock import BaseFileLock, FileLock, Timeout
from pytorch_lightning.cli import SaveConfigCallback
from pytorch_lightning.loggers import TensorBoardLogger
from pytorch_lightning.utilities import rank_zero_only, rank_zero_warn
from tensorboard.compat.proto.event_pb2 import Event, SessionLog

from fmnist_pl.configuration import variant_name
from training_health.durable_file import remove_stale_temporaries, replace_durably, sync_folder
from training_health.errors import UserError

TENSORBOARD = ("RunLogger", "TensorBoardLogger")
_RUN_FILES = ("config.yaml", "summary.json", "identity.json", "predictions.csv", "checkpoints/*.ckpt", "events.out.*")


def choose(config: Any, command: str) -> None:  # noqa: ANN401
    """Give the configured TensorBoard logger the variant's name and a new version folder of its own.

    The folder is made at once: of two runs that start together each gets its own. Other loggers, or a logger with a
    name of the user's, are left as they are. An evaluation's folder has the command in its name: it is no run.
    """
    logger = config.trainer.logger
    if not _is_tensorboard(logger) or logger.init_args.name is not None:
        return
    logger.init_args.name = _name(config, command)
    if config.trainer.fast_dev_run or rank_zero_only.rank != 0:  # type: ignore[attr-defined]
        return  # no files, or the first rank made the folder
    if logger.init_args.version is None:
        logger.init_args.version = new_version(Path(logger.init_args.save_dir) / logger.init_args.name)


def runs_folder(config: Any) -> Path:  # noqa: ANN401
    """Folder with the ``version_N`` folders of a configured variant's runs."""
    logs = getattr(getattr(config.trainer.logger, "init_args", None), "save_dir", "lightning_logs")
    synthetic = "-synthetic" if config.data.dataset == "synthetic" else ""
    return Path(logs) / (variant_name(config.variant) + synthetic)


def _name(config: Any, command: str) -> str:  # noqa: ANN401
    return runs_folder(config).name + ("" if command == "fit" else f"-{command}")


def refuse_used(trainer: pl.Trainer) -> None:
    """Refuse to write into the folder of another run: its files would be replaced."""
    folders = {trainer.log_dir, *(getattr(logger, "log_dir", None) for logger in trainer.loggers)} - {None}
    if not trainer.is_global_zero or trainer.fast_dev_run:  # type: ignore[attr-defined]
        return  # the first rank asks before it launches the others
    for folder in map(Path, sorted(map(str, folders))):
        used = (file for pattern in _RUN_FILES for file in folder.glob(pattern) if file.is_file())
        if (file := next(used, None)) is not None:
            raise UserError(
                f"{folder} is the folder of another run: it has {file.name}, which this one would replace. Give "
                "--trainer.logger.init_args.version=NUMBER (without a logger --trainer.default_root_dir=FOLDER) "
                "another value or none; to continue that run, give --resume and its folder.",
                exit_code=2,
            )


def reopen(config: Any, folder: Path) -> None:  # noqa: ANN401
    """Have the configured TensorBoard logger write into the folder of a run that resumes."""
    logger = config.trainer.logger
    if not _is_tensorboard(logger):
        raise UserError(f"{folder} cannot be resumed: its logger is not TensorBoard's. Start a new run.", exit_code=2)
    if len(folder.parts) < 3 or ".." in folder.parts:  # the logger wants the names of the folders that it is in
        folder = folder.resolve()
    logger.init_args.save_dir, logger.init_args.name = str(folder.parent.parent), folder.parent.name
    number = folder.name.removeprefix("version_")
    logger.init_args.version = int(number) if number.isdigit() else folder.name


def claim(folder: Path) -> BaseFileLock:
    """Hold ``folder`` for this run while the process lives; UserError if another process does.

    What a killed process left half written there is deleted.
    """
    lock = FileLock(folder / ".lock")
    try:
        folder.mkdir(parents=True, exist_ok=True)
        lock.acquire(timeout=0)
        remove_stale_temporaries(folder)
        remove_stale_temporaries(folder / "checkpoints")
    except Timeout:
        raise UserError(f"Another process is training in {folder}. Wait for it, or stop it, then resume.") from None
    except OSError as error:
        raise UserError(f"The run's folder {folder} cannot be written: {error.strerror}.") from error
    return lock


def void_later_curves(loggers: list[Any], steps: int) -> None:
    """Tell TensorBoard that a run's earlier curves are void from a step on: those of steps that are done again.

    Every run says so, the first with step 0: one of TensorBoard's two readers ignores the first such mark it meets.
    """
    wait_for_later_names(loggers)
    for logger in loggers:
        if isinstance(logger, TensorBoardLogger):
            writer = logger.experiment.file_writer
            for mark in (Event(file_version="brain.Event:2"), Event(session_log=SessionLog(status=SessionLog.START))):
                writer.add_event(mark, steps)


def wait_for_later_names(loggers: list[Any], *, own: bool = False) -> None:
    """See to it that event files which are made from now on are read after those that are there.

    They are read in the order of their names, which begin with the second they were made in; those that a process made
    (``own``) in one second are counted, and 10 is read before 9. Where the clock was set back, the files that are there
    are renamed.
    """
    for logger in loggers:
        if not isinstance(logger, TensorBoardLogger):
            continue
        folder = Path(logger.log_dir)
        files = sorted(path for path in folder.glob("events.out.tfevents.*") if path.name.split(".")[3].isdigit())
        seconds = [int(path.name.split(".")[3]) for path in files]
        last = files[-1].name.split(".")[-1] if files else "0"
        counted = own and last.isdigit() and len(str(int(last) + 4)) == len(last)  # a run makes no more than that
        newest, until = max(seconds, default=0) - counted, time.time() + 2
        while int(time.time()) <= newest and time.time() < until:
            time.sleep(0.05)
        now = int(time.time())
        for number, (path, second) in enumerate(zip(files, seconds, strict=True), start=now - len(files)):
            if newest >= now:
                words = path.name.split(".")
                path.rename(path.with_name(".".join([*words[:3], f"{min(second, number):010}", *words[4:]])))


def sync_curves(loggers: list[Any]) -> None:
    """Have the records of all TensorBoard loggers outlast a power cut, with the folders that they are in."""
    for logger in loggers:
        logger.save()  # flushes
        if isinstance(logger, TensorBoardLogger) and Path(logger.log_dir).is_dir():
            folder = Path(logger.log_dir)
            for path in folder.glob("events.out.tfevents.*"):
                with path.open("rb" if os.name == "posix" else "r+b") as file:  # Windows syncs what may be written
                    os.fsync(file.fileno())
            for path in (folder, *folder.parents[:2]):
                sync_folder(path)


def new_version(folder: Path) -> int:
    """Make the first free ``version_N`` in ``folder`` and return N; safe against other processes doing the same."""
    try:
        folder.mkdir(parents=True, exist_ok=True)
        used = [int(path.name[8:]) for path in folder.glob("version_*") if path.name[8:].isdigit()]
        version = max(used, default=-1) + 1
        while True:
            try:
                (folder / f"version_{version}").mkdir()
            except FileExistsError:
                version += 1
            else:
                return version
    except (OSError, ValueError) as error:  # a null character
        raise UserError(
            f"The run's folder {folder} cannot be written: {getattr(error, 'strerror', error)}. Choose another with "
            "--trainer.logger.init_args.save_dir=FOLDER, or correct its permissions."
        ) from error


def write_file(path: Path, content: str) -> None:
    """Write a file that a reader, also one after a crash, finds whole or not at all; UserError if it cannot be."""
    try:
        replace_durably(path, content.encode())
    except OSError as error:
        raise UserError(f"{path} cannot be written: {error.strerror}. Make room or correct the permissions.") from error


class RunLogger(TensorBoardLogger):
    """Lightning's logger, with one record per tag and step.

    Lightning adds the number of the epoch to whatever it logs, so that the end of an epoch, logged once for validation
    and once for training, would have it twice.

    >>> RunLogger(save_dir="lightning_logs", name="baseline", version=0).log_dir
    'lightning_logs/baseline/version_0'
    """

    _epoch_logged_at: int | None = None

    @rank_zero_only
    def log_metrics(self, metrics: Mapping[str, float], step: int | None = None) -> None:
        """Write scalars; ``epoch`` only if it has not been written at this step."""
        if "epoch" in metrics:
            if step is not None and step == self._epoch_logged_at:
                metrics = {name: value for name, value in metrics.items() if name != "epoch"}
            self._epoch_logged_at = step
        super().log_metrics(metrics, step)


class SavedConfig(SaveConfigCallback):
    """Writes ``config.yaml`` whole or not at all: a resumed run is built from it.

    The folder that was chosen for this run is left out: a run with the same configuration gets one of its own.
    """

    def setup(self, trainer: pl.Trainer, pl_module: pl.LightningModule, stage: str) -> None:
        """Write it once, on one rank."""
        folder = trainer.log_dir  # every rank must ask
        if folder is not None and not self.already_saved and trainer.is_global_zero:
            config = self.config.clone()
            if _is_tensorboard(logger := config.trainer.logger):
                chosen = logger.init_args.name == _name(config, getattr(trainer.state.fn, "value", ""))
                logger.init_args.name, logger.init_args.version = None if chosen else logger.init_args.name, None
            with warnings.catch_warnings():
                warnings.filterwarnings("ignore", message=r"\s*Unable to serialize")  # said below, with its owner
                text = self.parser.dump(config, skip_none=False)
            write_file(Path(folder) / self.config_filename, text)
            if lost := sorted(set(_unreadable(yaml.safe_load(text)))):
                rank_zero_warn(
                    f"This run cannot be resumed: {', '.join(lost)} cannot be written into {self.config_filename}. "
                    "Give values that YAML can hold."
                )
        self.already_saved = True


def _unreadable(value: Any, name: str = "", owner: str = "") -> Iterator[str]:  # noqa: ANN401
    """The arguments in a saved configuration in whose stead stands that jsonargparse could not write them."""
    if isinstance(value, dict):
        owner = str(value.get("class_path", owner)).rpartition(".")[2]
        for key, item in value.items():
            yield from _unreadable(item, key, owner)
    elif isinstance(value, list):
        for item in value:
            yield from _unreadable(item, name, owner)
    elif isinstance(value, str) and value.startswith("Unable to serialize instance"):
        yield f"{name} of {owner}" if owner else name


def _is_tensorboard(logger: Any) -> bool:  # noqa: ANN401
    """Whether a configured logger is one of those whose folders this module knows."""
    return getattr(logger, "class_path", "").rsplit(".", 1)[-1] in TENSORBOARD
