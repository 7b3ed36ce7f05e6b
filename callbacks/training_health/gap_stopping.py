"""Stop a fit that overfits: the gap is beyond noise, and validation no longer improves."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any, Literal

from typing_extensions import override

from training_health import lightning as pl
from training_health.train_val_gap import TrainValGapMonitor

Metric = Literal["accuracy", "loss"]


@dataclass
class Overfitting:
    """Counts the epochs in a row that show overfitting.

    Attributes:
        best: Best validation value so far; smaller is better.
        best_epoch: Its epoch; -1 before the first.
        in_a_row: Epochs, up to the last one, whose gap was beyond noise and whose validation set no new best.

    >>> overfitting = Overfitting()
    >>> epochs = [(0.01, 0.5), (0.03, 0.4), (0.05, 0.45), (0.06, 0.41)]  # gap and validation loss
    >>> [overfitting.update(epoch, gap, 0.02, loss) for epoch, (gap, loss) in enumerate(epochs)]
    [0, 0, 1, 2]
    """

    best: float = math.inf
    best_epoch: int = -1
    in_a_row: int = 0

    def update(self, epoch: int, gap: float, margin: float, value: float) -> int:
        """Add an epoch: its gap, half of that one's 95 % interval, and its validation value; NaN where unknown.

        Returns:
            The epochs in a row.
        """
        improved = value < self.best
        if improved:
            self.best, self.best_epoch = value, epoch
        known = not math.isnan(value) and self.best_epoch >= 0
        self.in_a_row = self.in_a_row + 1 if gap > margin and known and not improved else 0
        return self.in_a_row


class GapStopping(pl.Callback):
    """Stop the fit when it overfits, by what a `TrainValGapMonitor` in the same trainer measures.

    It stops after ``patience`` epochs in a row in each of which both hold:

    * The gap between training and validation, both in eval mode with the same weights, is beyond noise: its 95 %
      interval lies above 0. What dropout, augmentation or averaging hide (the mode effect) has no part in it.
    * Validation sets no new best: its loss is not below, or without a loss its accuracy not above, that of all epochs
      before.

    The second alone is `EarlyStopping`'s rule, which also ends runs whose validation only hesitates; the first alone
    holds in most good fits. Epochs without validation are passed over; a value that is not a number never stops a run,
    nor does a gap whose interval is unknown, as from a single batch: the first such epoch is named in a warning.

    It sets ``trainer.should_stop``, so `Trainer`'s ``min_epochs`` holds, and says why in one line. It logs nothing.
    Every process decides the same, from sums over all. The count is part of the checkpoint, so that a resumed run
    stops where it would have. Lightning 2.2, resumed from a checkpoint between validation and the epoch's end,
    validates again, on the last batch alone, and the count goes by that. The cost is the monitor's alone.

    Args:
        patience: Epochs in a row.
        metric: Of the gap; "accuracy" falls back to the loss where the monitor finds no accuracy.

    Raises:
        pl.MisconfigurationException: If ``patience`` is no whole number from 1 on, ``metric`` is none of the two, or no
            `TrainValGapMonitor` stands before this callback in the trainer's list.

    Example::

        >>> import torch
        >>> from pytorch_lightning import Trainer
        >>> from pytorch_lightning.demos.boring_classes import BoringModel
        >>> from training_health import GapStopping, TrainValGapMonitor
        >>> class Model(BoringModel):
        ...     def validation_step(self, batch, batch_idx):
        ...         return {"losses": self(batch).square().mean(dim=1)}
        >>> quiet = {f"enable_{part}": False for part in ("checkpointing", "progress_bar", "model_summary")}
        >>> train, val = (torch.utils.data.DataLoader(torch.ones(64, 32), batch_size=16) for _ in range(2))
        >>> stopping = GapStopping(patience=3)
        >>> callbacks = [TrainValGapMonitor(), stopping]
        >>> trainer = Trainer(max_epochs=2, accelerator="cpu", callbacks=callbacks, logger=False, **quiet)
        >>> trainer.fit(Model(), train, val)  # training and validation are alike
        >>> stopping.stopped_epoch is None
        True
    """

    def __init__(self, patience: int = 3, metric: Metric = "accuracy") -> None:
        if not isinstance(patience, int) or patience < 1:
            raise pl.MisconfigurationException(f"`GapStopping(patience={patience!r})`: whole epochs, at least 1.")
        if metric not in ("accuracy", "loss"):
            raise pl.MisconfigurationException(f'`GapStopping(metric={metric!r})`: "accuracy" or "loss".')
        self.patience, self.metric = patience, metric
        self.stopped_epoch: int | None = None
        self._overfitting = Overfitting()
        self._monitor: TrainValGapMonitor | None = None
        self._sentence = ""
        self._said: set[str] = set()

    def summary(self) -> dict[str, Any]:
        """When it stopped the run (``stopped_epoch``, from 0; None if it has not), and the epochs in a row so far."""
        return {"stopped_epoch": self.stopped_epoch, "epochs_in_a_row": self._overfitting.in_a_row}

    def sentence(self) -> str:
        """Why it stopped the run; empty if it has not."""
        return self._sentence

    @override
    def setup(self, trainer: pl.Trainer, pl_module: pl.LightningModule, stage: str) -> None:
        if stage != "fit":
            return
        callbacks: list[pl.Callback] = trainer.callbacks  # type: ignore[attr-defined] # set by a connector
        before = callbacks[: callbacks.index(self)]
        self._monitor = next((each for each in before if isinstance(each, TrainValGapMonitor)), None)
        if self._monitor is None:
            raise pl.MisconfigurationException(
                "`GapStopping` decides by what `TrainValGapMonitor` measures, and there is none before it: use "
                "`Trainer(callbacks=[..., TrainValGapMonitor(), GapStopping()])`."
            )
        self._overfitting, self.stopped_epoch, self._sentence = Overfitting(), None, ""
        self._said.clear()

    @override
    def on_train_epoch_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        assert self._monitor is not None
        epoch = trainer.current_epoch
        if self._monitor.measured_epoch != epoch:
            return
        found = {name: math.nan if value is None else value for name, value in self._monitor.summary().items()}
        metric = "loss" if math.isnan(found["accuracy_gap_margin"]) else self.metric
        by_loss = not math.isnan(found["val_loss"])
        value = found["val_loss"] if by_loss else -found["val_accuracy"]
        gap, margin, best = found[f"{metric}_gap"], found[f"{metric}_gap_margin"], self._overfitting
        if math.isnan(gap + margin) and not math.isnan(value):
            message = f"`GapStopping` cannot judge epoch {epoch + 1}, and passes over all such epochs."
            pl.warn_once(self._said, "unknown", f"{message} {self._monitor.sentence()}")
        if best.update(epoch, gap, margin, value) < self.patience:
            return
        trainer.should_stop, self.stopped_epoch = True, epoch
        size = f"{gap:.4g} ± {margin:.2g}" if metric == "loss" else f"{100 * gap:.1f} ± {100 * margin:.1f} points"
        values = f"loss {value:.4g}, {best.best:.4g}" if by_loss else f"accuracy {-value:.4g}, {-best.best:.4g}"
        self._sentence = (
            f"GapStopping ends the fit after epoch {epoch + 1}: in {best.in_a_row} epochs in a row the gap was beyond "
            f"noise (now {size}, 95 %) and validation set no new best ({values} in epoch {best.best_epoch + 1})."
        )
        pl.rank_zero_info(self._sentence)

    @override
    def on_fit_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        if self._monitor is not None and self._overfitting.best_epoch < 0:
            pl.rank_zero_warn(f"`GapStopping` had nothing to decide by. {self._monitor.sentence()}")

    @override
    def state_dict(self) -> dict[str, Any]:
        return vars(self._overfitting).copy()

    @override
    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        self._overfitting = Overfitting(**state_dict)
