"""Is the gap between training and validation real?"""

from __future__ import annotations

import math
from typing import Any

from typing_extensions import override

from training_health import lightning as pl
from training_health.batches import BatchSize
from training_health.gap.results import StepResults, logged_mean, validated_mean
from training_health.gap.statistics import NAN, Evaluation, Gap, sentence, total
from training_health.sinks import log_scalars, warn_without_tensorboard, write_metrics, write_records
from training_health.training_sample.evaluation import SampleObserver, SampleRequest, TrainingSampleEvaluation
from training_health.training_sample.isolation import LoggedValues


class TrainValGapMonitor(pl.Callback, SampleObserver):
    r"""Compare training with validation at the same weights and in the same mode, after every epoch that validates.

    It answers: does the network do better on what it was trained on than on new data, by more than chance? The running
    training accuracy cannot tell: it is measured in train mode (dropout, augmentation) and averaged while the weights
    change. Right after the epoch's last validation this monitor runs the module's own ``validation_step`` on a fixed,
    seeded sample of training examples, as many as validation has, without augmentation.

    Logged at the end of each epoch that validated; a value that is unknown is left out:

    ============================  =================================================================  ================
    key                           meaning                                                            range
    ============================  =================================================================  ================
    ``gap/accuracy``              training minus validation accuracy, both in eval mode              -1 to 1
    ``gap/accuracy_se``           its standard error                                                 0 or more
    ``gap/loss``                  validation minus training loss                                     the loss's unit
    ``gap/loss_se``               its standard error                                                 the loss's unit
    ``gap/train_eval_accuracy``   the sample's accuracy                                              0 to 1
    ``gap/train_eval_loss``       the sample's mean loss                                             the loss's unit
    ``gap/mode_effect``           ``gap/train_eval_accuracy`` minus the running accuracy: what       -1 to 1
                                  dropout, augmentation and averaging hid. It is not overfitting
    ============================  =================================================================  ================

    With n examples on each side and accuracy p, the standard error of the accuracy gap is
    :math:`\sqrt{p_t(1-p_t)/n_t + p_v(1-p_v)/n_v}` (two independent binomial proportions); that of the loss gap is
    :math:`\sqrt{s_t^2/n_t + s_v^2/n_v}` with the sample variances :math:`s^2` of the examples' losses.
    The record holds all values.

    **Results.** If ``validation_step`` returns a mapping with ``losses`` (N,) and ``correct`` (N,), all values are
    exact sums over examples, on any number of processes. Otherwise the monitor reads what the step logs under
    ``loss_key`` and ``accuracy_key``: numbers are averaged with the batch sizes, metric objects are computed on the
    sample; the loss's standard error is then an estimate from the sample's batch means, for both sides.

    **Sample.** A training loader or datamodule may offer ``evaluation_sample(count, seed, rank, world_size)``, which
    returns batches. Otherwise examples are drawn from the training loader's data set, with the validation set's
    ``transform``. The sample depends on ``seed`` only. Where none can be drawn, one warning says why.

    Training is not touched: random generators, modes, buffers, metric states and logs are put back. With
    ``val_check_interval`` below an epoch, only the last validation of the epoch counts. An epoch without validation
    logs nothing. Outside of ``fit`` the monitor does nothing.

    Cost: one forward pass over the sample per epoch, nothing in training steps; one transfer per epoch.

    Args:
        examples: Size of the sample; None for as many as validation has.
        seed: Of the sample.
        accuracy_key: What ``validation_step`` logs its accuracy under.
        loss_key: What ``validation_step`` logs its loss under.
        train_accuracy_key: The running accuracy's key, or the part before Lightning's ``_epoch``.
        train_loss_key: The same for the running loss.
        event_file: Without a `TensorBoardLogger`, write the records to an event file in the run's folder. False on any
            monitor turns it off for the run.

    Raises:
        pl.MisconfigurationException: If ``examples`` is not positive, or there are two of these in one trainer.

    Example::

        >>> import torch
        >>> from pytorch_lightning import Trainer
        >>> from pytorch_lightning.demos.boring_classes import BoringModel
        >>> class Model(BoringModel):
        ...     def validation_step(self, batch, batch_idx):
        ...         return {"losses": self(batch).square().mean(dim=1)}
        >>> quiet = {f"enable_{part}": False for part in ("checkpointing", "progress_bar", "model_summary")}
        >>> loader = torch.utils.data.DataLoader(torch.randn(64, 32), batch_size=16)
        >>> monitor = TrainValGapMonitor()
        >>> trainer = Trainer(max_epochs=1, accelerator="cpu", callbacks=[monitor], logger=False, **quiet)
        >>> trainer.fit(Model(), loader, loader)  # training and validation are the same examples
        >>> round(monitor.summary()["loss_gap"], 5), monitor.summary()["n_train"], monitor.summary()["n_val"]
        (0.0, 64, 64)
    """

    def __init__(
        self,
        examples: int | None = None,
        seed: int = 0,
        accuracy_key: str = "val/accuracy",
        loss_key: str = "val/loss",
        train_accuracy_key: str = "train/accuracy",
        train_loss_key: str = "train/loss",
        event_file: bool = True,
    ) -> None:
        if examples is not None and examples < 1:
            raise pl.MisconfigurationException(f"`TrainValGapMonitor(examples={examples!r})`: at least 1, or None.")
        self.examples, self.seed = examples, seed
        self.accuracy_key, self.loss_key = accuracy_key, loss_key
        self.train_accuracy_key, self.train_loss_key = train_accuracy_key, train_loss_key
        self.event_file = event_file
        self._evaluation = TrainingSampleEvaluation()
        self._start_again()

    def _start_again(self) -> None:
        self._validation, self._sample = StepResults(), StepResults()
        self._pending: tuple[Evaluation, Evaluation, str] | None = None
        self._gap: Gap | None = None
        self._said: set[str] = set()

    def summary(self) -> dict[str, Any]:
        """The last gap in plain values; empty before the first."""
        return {} if self._gap is None else self._gap.as_dict()

    def sentence(self) -> str:
        """The last gap in words."""
        return sentence(self._gap)

    @override
    def setup(self, trainer: pl.Trainer, pl_module: pl.LightningModule, stage: str) -> None:
        pl.require_only_one(trainer, TrainValGapMonitor)
        self._evaluation = TrainingSampleEvaluation.of(trainer)
        self._evaluation.register(self, SampleRequest(self.examples, self.seed))
        if stage == "fit":
            self._start_again()
            warn_without_tensorboard(trainer)

    @override
    def on_validation_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        self._evaluation.on_validation_start()
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
        if self._evaluation.is_due(trainer):
            size = self._evaluation.validation_batch(trainer, batch, batch_idx, dataloader_idx)
            self._validation.add(outputs, size.counted)

    @override
    def on_validation_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        self._evaluation.on_validation_end(trainer, pl_module)

    @override
    def on_sample_batch_end(self, outputs: Any, size: BatchSize) -> None:
        self._sample.add(outputs, size.counted)

    @override
    def on_sample_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule, logged: LoggedValues | None) -> None:
        self._pending = None
        if logged is None:
            return
        parts = pl.every_rank(trainer, (self._sample.take(), self._validation.take()))
        training = total(part for part, _ in parts).evaluation()
        validation = total(part for _, part in parts).evaluation()
        mine = self._validation.examples
        method = "binomial; per-example losses"
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
        write_metrics(trainer)
        # Here, not after validation: only now is the running accuracy known, and may a callback log.
        if self._pending is None:
            return
        (training, validation, method), self._pending = self._pending, None
        running_accuracy = self._running(trainer, self.train_accuracy_key)
        running_loss = self._running(trainer, self.train_loss_key)
        self._gap = Gap(training, validation, running_accuracy, running_loss, method)
        if math.isnan(self._gap.accuracy) and math.isnan(self._gap.loss):
            pl.warn_once(
                self._said,
                "missing",
                "`TrainValGapMonitor` has nothing to compare: `validation_step` neither returns a mapping with "
                f"`losses` and `correct` nor logs {self.accuracy_key!r} or {self.loss_key!r}. "
                f"Logged are: {', '.join(sorted(trainer.callback_metrics)) or 'no metrics'}.",
            )
            return
        log_scalars(trainer, pl_module, self._gap.scalars())
        tag, kind, vector, content = self._gap.record()
        names = {"val_accuracy": self.accuracy_key, "val_loss": self.loss_key}
        logged = {column: key for column, key in names.items() if key in trainer.callback_metrics}
        write_records(trainer, [(tag, kind, vector, content | {"metrics": logged})])

    def _running(self, trainer: pl.Trainer, key: str) -> float:
        """The epoch's mean of a training metric; ``on_step=True`` makes Lightning call it ``<key>_epoch``.

        The mean over the ranks, which train on as many examples each: without ``sync_dist`` a value is a rank's own.
        """
        metrics = trainer.callback_metrics
        value = metrics.get(f"{key}_epoch", metrics.get(key))
        values = pl.every_rank(trainer, NAN if value is None else float(value))
        return sum(values) / len(values)
