"""Keeps the weights of the best epoch."""

import warnings
from pathlib import Path
from typing import Any

import pytorch_lightning as pl
from pytorch_lightning.callbacks import ModelCheckpoint


class BestCheckpoint(ModelCheckpoint):
    """Writes ``checkpoints/best.ckpt`` whenever the monitored value is the lowest so far.

    Lightning's callback with a fixed file name, and with a memory of the best value that survives when the run's
    folder was moved, or named in another way, before the run is resumed.

    Args:
        monitor: Logged value that is to be low.
    """

    def __init__(self, monitor: str = "val/loss") -> None:
        super().__init__(monitor=monitor, filename="best", enable_version_counter=False)

    def setup(self, trainer: pl.Trainer, pl_module: pl.LightningModule, stage: str) -> None:
        """Find the folder; that a resumed run's folder is not empty is no reason to warn."""
        with warnings.catch_warnings():
            warnings.filterwarnings("ignore", message="Checkpoint directory .* exists and is not empty")
            super().setup(trainer, pl_module, stage)

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Restore the best value, with every path put into the present folder."""

        def here(path: str) -> str:
            return str(Path(str(self.dirpath)) / Path(path).name) if path else path

        self.current_score = state_dict["current_score"]
        super().load_state_dict(
            {
                **state_dict,
                "dirpath": self.dirpath,
                "best_k_models": {here(path): score for path, score in state_dict["best_k_models"].items()},
                **{key: here(state_dict[key]) for key in ("best_model_path", "kth_best_model_path", "last_model_path")},
            }
        )
