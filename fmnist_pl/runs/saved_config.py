"""The run's configuration, kept in its folder so that it can be resumed and repeated."""

from pathlib import Path

import pytorch_lightning as pl
from pytorch_lightning.cli import SaveConfigCallback

from fmnist_pl.runs.folder import write_file


class SavedConfig(SaveConfigCallback):
    """Writes ``config.yaml`` whole or not at all: a resumed run is built from it."""

    def setup(self, trainer: pl.Trainer, pl_module: pl.LightningModule, stage: str) -> None:
        """Write it once, on one rank."""
        folder = trainer.log_dir  # every rank must ask
        if folder is not None and not self.already_saved and trainer.is_global_zero:
            write_file(Path(folder) / self.config_filename, self.parser.dump(self.config, skip_none=False))
        self.already_saved = True
