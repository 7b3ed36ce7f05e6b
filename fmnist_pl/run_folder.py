"""``lightning_logs/<variant>[-synthetic]/version_N/``: where a run leaves its files."""

from pathlib import Path
from typing import Any

from pytorch_lightning.utilities import rank_zero_only

from fmnist_pl.errors import UserError
from fmnist_pl.variants import variant_name

TENSORBOARD = "pytorch_lightning.loggers.TensorBoardLogger"


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
    if getattr(logger, "class_path", "").rsplit(".", 1)[-1] != "TensorBoardLogger" or logger.init_args.name is not None:
        return
    synthetic = "-synthetic" if config.data.dataset == "synthetic" else ""
    logger.init_args.name = variant_name(config.variant) + synthetic + ("" if command == "fit" else f"-{command}")
    if config.trainer.fast_dev_run or rank_zero_only.rank != 0:
        return  # no files, or the first rank made the folder
    if logger.init_args.version is None:
        logger.init_args.version = new_version(Path(logger.init_args.save_dir) / logger.init_args.name)


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
