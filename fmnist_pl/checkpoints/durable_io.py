"""How Lightning's Trainer writes and reads checkpoints in this package."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

from lightning_fabric.plugins import CheckpointIO

from fmnist_pl.checkpoints.checkpoint_file import checkpoint_bytes, load_checked, write_checkpoint
from fmnist_pl.checkpoints.names import PREVIOUS

HOLD = {"hold": True}  # storage options


class DurableCheckpointIO(CheckpointIO):
    """Plugin of the Trainer that writes checkpoints whole or not at all, and loads none that is damaged or holds code.

    Writing costs a copy of the checkpoint in memory and two fsyncs.

    >>> from pytorch_lightning import Trainer
    >>> trainer = Trainer(plugins=[DurableCheckpointIO()], logger=False, accelerator="cpu")
    """

    def __init__(self) -> None:
        self._held: tuple[Path, bytes] | None = None

    def save_checkpoint(
        self, checkpoint: dict[str, Any], path: str | Path, storage_options: dict[str, Any] | None = None
    ) -> None:
        """Write a checkpoint.

        Args:
            checkpoint: Tensors and plain values.
            path: Its file.
            storage_options: `HOLD` keeps the checkpoint in memory until `write_held`.

        Raises:
            UserError: It cannot be written; what was there is still there.
        """
        content = checkpoint_bytes(checkpoint)
        if storage_options == HOLD:
            self._held = Path(path), content
        else:
            write_checkpoint(Path(path), content)

    def write_held(self) -> None:
        """Write the checkpoint that is held, if any; the one that it replaces becomes ``previous.ckpt``."""
        if self._held is not None:
            write_checkpoint(*self._held, keep_as=PREVIOUS)
            self._held = None

    def load_checkpoint(
        self,
        path: str | Path,
        map_location: Callable | None = None,
        weights_only: bool | None = None,
    ) -> dict[str, Any]:
        """Load a checkpoint with `load_checked`, whatever ``weights_only`` asks for."""
        return load_checked(path, map_location or "cpu")

    def remove_checkpoint(self, path: str | Path) -> None:
        """Delete a checkpoint if it is there."""
        Path(path).unlink(missing_ok=True)
