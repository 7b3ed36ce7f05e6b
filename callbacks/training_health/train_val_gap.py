"""Is the gap between training and validation real?"""

from __future__ import annotations

import math
import re
from typing import Any

import pytorch_lightning as pl
from pytorch_lightning.utilities import rank_zero_warn
from pytorch_lightning.utilities.exceptions import MisconfigurationException
from typing_extensions import override

from training_health.gap import records as gap_report
from training_health.gap.logged_fallback import logged_mean, validated_mean
from training_health.gap.statistics import NAN, Evaluation, Gap, total
from training_health.gap.step_results import StepResults
from training_health.ranks import count_images, ends_in_a_repeat, every_rank, loader_at
from training_health.scalars import log_scalars
from training_health.sinks import tensorboard_writers, write_records
from training_health.training_sample.evaluation import TrainingSampleObserver, require_only_one
from training_health.training_sample.isolation import LoggedValues


class TrainValGapMonitor(TrainingSampleObserver):
    r"""Compare training with validation at the same weights and in the same mode, after every epoch that validates.

    The running training accuracy is measured in train mode (dropout, augmentation) and averaged while the weights
    change, so its distance from the validation accuracy is not the gap. Right after the epoch's last validation this
    monitor runs the module's own ``validation_step`` on a fixed, seeded sample of training images, as many as the
    validation set has, without augmentation, and logs

    * ``gap/accuracy``: training minus validation accuracy, ``gap/accuracy_se`` its standard error
      :math:`\sqrt{p_t(1-p_t)/n_t + p_v(1-p_v)/n_v}`, and ``gap/accuracy_lower``, ``gap/accuracy_upper`` two of them
      away;
    * ``gap/loss``: validation minus training loss, ``gap/loss_se`` from the variance of the per-image losses,
      ``gap/loss_lower``, ``gap/loss_upper``;
    * ``gap/train_eval_accuracy``, ``gap/train_eval_loss``: the sample's figures;
    * ``gap/mode_effect``: eval-mode training accuracy minus running accuracy. It is not overfitting.

    All of it goes to TensorBoard as a tensor summary too, with a custom-scalars layout that puts training, validation
    and the gap side by side.

    **How it learns the results.** If ``validation_step`` returns a mapping with ``losses`` (N,) and ``correct`` (N,),
    the figures are exact sums over images, on any number of processes. Otherwise it reads what ``validation_step`` logs
    under ``loss_key`` and ``accuracy_key``: numbers are averaged with the batch sizes, metric objects computed anew;
    the loss's standard error is then an estimate from the sample's batch means, for both sides.

    **Which images.** See `training_sample`: a training loader or datamodule may offer
    ``evaluation_sample(count, seed, rank, world_size)``; otherwise they are drawn from the training loader's data set,
    with the validation set's ``transform``. The sample depends on ``seed`` only.

    Training is not touched: random generators, modes, buffers, metric states and logs are put back. With
    ``val_check_interval`` below an epoch, only the last validation of the epoch counts. An epoch without validation
    logs nothing: no stale pairs. Outside ``fit`` the monitor rests.

    Cost: one forward pass over the sample per epoch, nothing in training steps; one transfer per epoch.

    Args:
        images: Size of the sample; None for as many as validation has.
        seed: Of the sample.
        accuracy_key: What ``validation_step`` logs its accuracy under.
        loss_key: What ``validation_step`` logs its loss under.
        train_accuracy_key: The running accuracy's key, or the part before Lightning's ``_epoch``.
        train_loss_key: The running loss's key, likewise.

    Raises:
        MisconfigurationException: If ``images`` is not positive, or there are two of these in one trainer.
    """

    def __init__(
        self,
        images: int | None = None,
        seed: int = 0,
        accuracy_key: str = "val/accuracy",
        loss_key: str = "val/loss",
        train_accuracy_key: str = "train/accuracy",
        train_loss_key: str = "train/loss",
    ) -> None:
        if images is not None and images < 1:
            raise MisconfigurationException(f"`TrainValGapMonitor(images={images!r})`: at least 1, or None.")
        self.sample_images, self.sample_seed = images, seed
        self.accuracy_key, self.loss_key = accuracy_key, loss_key
        self.train_accuracy_key, self.train_loss_key = train_accuracy_key, train_loss_key
        self._validation, self._sample = StepResults(), StepResults()
        self._pending: tuple[Evaluation, Evaluation, str] | None = None
        self._gap: Gap | None = None
        self._said_missing = False

    def summary(self) -> dict[str, Any]:
        """The last gap in plain values; empty before the first."""
        return {} if self._gap is None else gap_report.as_dict(self._gap)

    def sentence(self) -> str:
        """The last gap in words."""
        return gap_report.sentence(self._gap)

    @override
    def setup(self, trainer: pl.Trainer, pl_module: pl.LightningModule, stage: str) -> None:
        require_only_one(trainer, TrainValGapMonitor)

    @override
    def on_fit_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        self._sample_failed = False
        self._pending = None
        for writer in tensorboard_writers(trainer):
            writer.add_custom_scalars(self._layout())

    @override
    def on_validation_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        super().on_validation_start(trainer, pl_module)
        self._validation, self._sample = StepResults(), StepResults()

    @override
    def on_validation_batch_end(
        self,
        trainer: pl.Trainer,
        pl_module: pl.LightningModule,
        outputs: Any,
        batch: Any,
        batch_idx: int,
        dataloader_idx: int = 0,
    ) -> None:
        super().on_validation_batch_end(trainer, pl_module, outputs, batch, batch_idx, dataloader_idx)
        if self.measures_this_validation(trainer):
            loader = loader_at(trainer.val_dataloaders, dataloader_idx)
            self._validation.add(outputs, count_images(batch) - ends_in_a_repeat(loader, batch_idx))

    @override
    def on_sample_batch_end(self, outputs: Any, images: int) -> None:
        self._sample.add(outputs, images)

    @override
    def on_sample_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule, logged: LoggedValues | None) -> None:
        self._pending = None
        if logged is None:
            return
        parts = every_rank(trainer, (self._sample.take(), self._validation.take()))
        training = total(part for part, _ in parts).evaluation()
        validation = total(part for _, part in parts).evaluation()
        mine = self._validation.images
        method = "binomial; per-image losses"
        if math.isnan(training.loss) or math.isnan(validation.loss):
            training.loss, training.loss_variance = logged_mean(trainer, pl_module, logged, self.loss_key)
            validation.loss = validated_mean(trainer, self.loss_key, mine)
            validation.loss_variance = training.loss_variance
            method = "binomial; batch means of the training sample's loss, for both sides"
        if math.isnan(training.accuracy) or math.isnan(validation.accuracy):
            training.accuracy, _ = logged_mean(trainer, pl_module, logged, self.accuracy_key)
            validation.accuracy = validated_mean(trainer, self.accuracy_key, mine)
        self._pending = training, validation, method

    @override
    def on_train_epoch_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        # Here, not after validation: only now is the running accuracy known, and may a callback log.
        if self._pending is None:
            return
        (training, validation, method), self._pending = self._pending, None
        running_accuracy, running_loss = (
            self._running(trainer, key) for key in (self.train_accuracy_key, self.train_loss_key)
        )
        self._gap = Gap(training, validation, running_accuracy, running_loss, method)
        if math.isnan(self._gap.accuracy) and math.isnan(self._gap.loss):
            self._say_missing(trainer)
            return
        log_scalars(trainer, pl_module, gap_report.scalars(self._gap))
        write_records(trainer, [gap_report.record(self._gap)])

    def _running(self, trainer: pl.Trainer, key: str) -> float:
        """The epoch's mean of a training metric; ``on_step=True`` makes Lightning call it ``<key>_epoch``.

        The mean over the ranks, which train on as many images each: without ``sync_dist`` a value is a rank's own.
        """
        metrics = trainer.callback_metrics
        value = metrics.get(f"{key}_epoch", metrics.get(key))
        values = every_rank(trainer, NAN if value is None else float(value))
        return sum(values) / len(values)

    def _say_missing(self, trainer: pl.Trainer) -> None:
        if not self._said_missing:
            self._said_missing = True
            rank_zero_warn(
                "`TrainValGapMonitor` has nothing to compare: `validation_step` neither returns a mapping with "
                f"`losses` and `correct` nor logs {self.accuracy_key!r} or {self.loss_key!r}. "
                f"Logged are: {', '.join(sorted(trainer.callback_metrics)) or 'no metrics'}."
            )

    def _layout(self) -> dict[str, dict[str, list[Any]]]:
        """TensorBoard's custom-scalars page: lines are chosen by regular expression, margins by tag."""

        def lines(*keys: str) -> list[Any]:
            return ["Multiline", [f"^{re.escape(key)}$" for key in keys]]

        def margin(key: str) -> list[Any]:
            return ["Margin", [key, f"{key}_lower", f"{key}_upper"]]

        return {
            "Training and validation": {
                "accuracy": lines(self.train_accuracy_key, "gap/train_eval_accuracy", self.accuracy_key),
                "loss": lines(self.train_loss_key, "gap/train_eval_loss", self.loss_key),
            },
            "Gap, with two standard errors": {"accuracy": margin("gap/accuracy"), "loss": margin("gap/loss")},
        }
