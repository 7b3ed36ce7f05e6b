"""The run's configuration, kept in its folder so that it can be resumed and repeated."""

from pathlib import Path

import pytorch_lightning as pl
from pytorch_lightning.cli import SaveConfigCallback

from training_health.durable_file import replace_durably
from training_health.errors import UserError


class SavedConfig(SaveConfigCallback):
    """Writes ``config.yaml`` whole or not at all: a resumed run is built from it."""

    def setup(self, trainer: pl.Trainer, pl_module: pl.LightningModule, stage: str) -> None:
        """Write it once, on one rank."""
        folder = trainer.log_dir  # every rank must ask
        if self.already_saved or folder is None:
            return
        self.already_saved = True
        if trainer.is_global_zero:
            path = Path(folder) / self.config_filename
            try:
                replace_durably(path, self.parser.dump(self.config, skip_none=False).encode())
            except OSError as error:
                raise UserError(f"The configuration {path} cannot be written: {error.strerror}.") from error
