"""Progress while training: a bar on a terminal, one line per epoch elsewhere."""

import sys
import time

import pytorch_lightning as pl
from pytorch_lightning.callbacks import TQDMProgressBar

SHOWN = ("train/loss", "train/accuracy", "val/loss", "val/accuracy")


class Progress(TQDMProgressBar):
    """Lightning's bar on a terminal; in a log file or a pipe one plain line when an epoch ends."""

    def __init__(self) -> None:
        super().__init__(refresh_rate=20, leave=False)
        self._started = 0.0

    def setup(self, trainer: pl.Trainer, pl_module: pl.LightningModule, stage: str) -> None:
        """Switch the bars off where nobody sees them move."""
        super().setup(trainer, pl_module, stage)
        if not sys.stderr.isatty():
            self.disable()

    def on_train_epoch_start(self, trainer: pl.Trainer, *args: object) -> None:
        """Note the time."""
        super().on_train_epoch_start(trainer, *args)
        self._started = time.perf_counter()

    def on_train_epoch_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Print the epoch's metrics."""
        super().on_train_epoch_end(trainer, pl_module)
        if not trainer.is_global_zero:
            return
        known = trainer.callback_metrics
        metrics = "  ".join(f"{name} {float(known[name]):.4f}" for name in SHOWN if name in known)
        seconds = time.perf_counter() - self._started
        line = f"epoch {trainer.current_epoch + 1}/{trainer.max_epochs}  {metrics}  {seconds:.1f} s"
        if self.is_enabled:
            self.print(line)
        else:
            print(line, flush=True)
