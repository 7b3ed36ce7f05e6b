"""How Lightning's Trainer writes and reads checkpoints in this package."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

from lightning_fabric.plugins import CheckpointIO

from fmnist_pl.checkpoints.checkpoint_file import load_checked, sealed_bytes
from training_health.durable_file import replace_durably
from training_health.errors import UserError

KEEP_AS = "keep_as"  # storage option: name under which the checkpoint that is being replaced stays available


class DurableCheckpointIO(CheckpointIO):
    """Writes checkpoints whole or not at all, and loads only what is proven intact and free of code.

    A plugin of the Trainer: ``Trainer(plugins=[DurableCheckpointIO()])``. Writing costs a copy of the checkpoint in
    memory, its SHA-256 (about 1 s per GB) and two fsyncs.
    """

    def __init__(self) -> None:
        self._whole: set[Path] = set()  # files that this process has written or checked

    def save_checkpoint(
        self, checkpoint: dict[str, Any], path: str | Path, storage_options: dict[str, str] | None = None
    ) -> None:
        """Write a checkpoint, see `replace_durably`.

        Args:
            checkpoint: Tensors and plain values.
            path: Its file.
            storage_options: ``{"keep_as": NAME}`` keeps the replaced checkpoint as NAME in the same folder, unless it
                is not known to be whole.

        Raises:
            UserError: It cannot be written; the file that was there is as before.
        """
        path = Path(path)
        kept = (storage_options or {}).get(KEEP_AS)
        content = sealed_bytes(checkpoint)
        try:
            replace_durably(path, content, path.with_name(kept) if kept and path.resolve() in self._whole else None)
        except OSError as error:
            left = f" The last good one is still there: {path}" if path.exists() else ""
            raise UserError(
                f"The checkpoint {path} cannot be written: {error.strerror}. The run ends here rather than go on "
                f"without one; make room or mend the permissions, then go on with --resume.{left}"
            ) from error
        self._whole.add(path.resolve())

    def load_checkpoint(
        self,
        path: str | Path,
        map_location: Callable | None = None,
        weights_only: bool | None = None,
    ) -> dict[str, Any]:
        """Load a checkpoint, see `load_checked`; ``weights_only`` is on whatever is asked for."""
        checkpoint = load_checked(path, map_location or "cpu")
        self._whole.add(Path(path).resolve())
        return checkpoint

    def remove_checkpoint(self, path: str | Path) -> None:
        """Delete a checkpoint if it is there."""
        Path(path).unlink(missing_ok=True)
        self._whole.discard(Path(path).resolve())
