"""Keeps the weights of the best epoch."""

from pathlib import Path
from typing import Any

from pytorch_lightning.callbacks import ModelCheckpoint

from fmnist_pl.checkpoints.names import BEST


class BestCheckpoint(ModelCheckpoint):
    """Writes ``checkpoints/best.ckpt`` whenever the monitored value is the lowest so far.

    Lightning's callback with a fixed file name, whose best value is still known when the run's folder was moved, or
    named in another way, before the run is resumed.

    Args:
        monitor: Logged value that is to be low.

    >>> BestCheckpoint().filename
    'best'
    """

    def __init__(self, monitor: str = "val/loss") -> None:
        super().__init__(monitor=monitor, filename=Path(BEST).stem, enable_version_counter=False)

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Restore the best value, with the path that the file has now."""
        path = str(Path(str(self.dirpath)) / BEST) if state_dict["best_model_path"] else ""
        scores = list(state_dict["best_k_models"].values())  # at most one
        self.current_score = state_dict["current_score"]
        super().load_state_dict(
            {
                **state_dict,
                "dirpath": self.dirpath,
                "best_k_models": dict(zip([path], scores, strict=False)),
                "best_model_path": path,
                "kth_best_model_path": path,
            }
        )
