"""Is the gap between training and validation real?"""

from __future__ import annotations

import math
import re
from collections.abc import Collection
from dataclasses import asdict
from typing import Any

from typing_extensions import override

from training_health import lightning as pl
from training_health.batches import BatchSize, ExampleCounter
from training_health.gap.results import Mean, StepResults, final_value, logged_means, validated_value
from training_health.gap.statistics import NAN, Evaluation, Gap, sentence, total
from training_health.sinks import log_scalars, warn_without_tensorboard, write_metrics, write_records
from training_health.training_sample.evaluation import SampleObserver, SampleRequest, TrainingSampleEvaluation
from training_health.training_sample.isolation import LoggedValues

_LOADER = re.compile(r"/dataloader_idx_(\d+)$")


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
    :math:`\sqrt{p_t(1-p_t)/n_t + p_v(1-p_v)/n_v}` (two independent binomial proportions; to each side one right and one
    wrong example are added, after Agresti and Caffo 2000, so that few are never certain); that of the loss gap is
    :math:`\sqrt{s_t^2/n_t + s_v^2/n_v}` with the sample variances :math:`s^2` of the examples' losses. A gap is beyond
    noise where 0 lies outside of its 95 % interval, by Student's t. The record holds all values, and half of the
    intervals.

    **Results.** If ``validation_step`` returns a mapping with ``losses`` (N,) and ``correct`` (N,), all values are
    exact sums over examples, on any number of processes. Otherwise the monitor reads what the module logs under
    ``loss_key`` and ``accuracy_key``, in the step or at the epoch's end: numbers of the steps are averaged with the
    batch sizes, metric objects are computed on the sample. Where a default key is not logged, other usual spellings
    stand for it, such as ``val_loss``, ``valid/loss``, ``validation_loss`` and ``val_acc``. An accuracy that is
    a whole number of right examples of a known n keeps its binomial error; one over classes (macro), pixels or tokens
    is none. Other standard errors are then each side's own, from its batch means: with one batch, for a metric
    object, or where the whole LightningModule is compiled, there is none, and they depend on the number of processes.

    **Sample.** A training loader or datamodule may offer ``evaluation_sample(count, seed, rank, world_size)``, which
    returns batches. Otherwise examples are drawn from those that the training loader draws, with the validation set's
    ``transform``. The sample depends on ``seed`` only. Where none can be drawn, one warning says why: a stream, several
    training loaders, ``limit_train_batches`` of a shuffled one, training and validation from the same examples.

    Training is not touched. The module's validation epoch, with its hooks for the epoch and the batch, runs on copies
    of all that it holds, with validation's weights and modes; random generators, buffers, schedules, optimisers and the
    trainer are put back. Its loggers log nothing meanwhile, ``torch.save`` and ``trainer.save_checkpoint`` save
    nothing. ``on_validation_epoch_end`` runs only where the steps do not give both values. What hooks print, or write
    to files in other ways, they do twice. What cannot be copied makes the monitor stand aside, with one warning. With
    ``val_check_interval`` below an epoch, only the last validation of the epoch counts. An epoch without validation
    logs nothing. Outside of ``fit`` the monitor does nothing.

    Cost: one forward pass over the sample per epoch, nothing in training steps; one transfer per epoch; a copy of the
    weights during validation, two where it runs with others than training.

    Args:
        examples: Size of the sample; None for as many as validation has.
        seed: Of the sample.
        accuracy_key: What ``validation_step`` logs its accuracy under, a fraction from 0 to 1.
        loss_key: What ``validation_step`` logs its loss under.
        train_accuracy_key: The running accuracy's key, or the part before Lightning's ``_epoch``. What is logged for
            each step alone, as ``self.log`` does by default in ``training_step``, is not the epoch's and left out.
        train_loss_key: The same for the running loss.
        dataloader_idx: Which of several validation loaders training is compared with.
        count_examples: Gives the number of examples in a batch, where neither the loader nor the batch shows it.
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
        >>> train, val = (torch.utils.data.DataLoader(torch.ones(64, 32), batch_size=16) for _ in range(2))
        >>> monitor = TrainValGapMonitor()
        >>> trainer = Trainer(max_epochs=1, accelerator="cpu", callbacks=[monitor], logger=False, **quiet)
        >>> trainer.fit(Model(), train, val)  # training and validation are alike
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
        dataloader_idx: int = 0,
        count_examples: ExampleCounter | None = None,
        event_file: bool = True,
    ) -> None:
        if examples is not None and examples < 1:
            raise pl.MisconfigurationException(f"`TrainValGapMonitor(examples={examples!r})`: at least 1, or None.")
        self.examples, self.seed = examples, seed
        loaders = {int(n) for key in (accuracy_key, loss_key) for n in _LOADER.findall(key)}
        self.dataloader_idx = loaders.pop() if len(loaders) == 1 else dataloader_idx
        self.accuracy_key, self.loss_key = _LOADER.sub("", accuracy_key), _LOADER.sub("", loss_key)
        self.train_accuracy_key, self.train_loss_key = train_accuracy_key, train_loss_key
        self.count_examples, self.event_file = count_examples, event_file
        self._evaluation = TrainingSampleEvaluation()
        self._start_again()

    def _start_again(self) -> None:
        self._validation, self._sample = StepResults(), StepResults()
        self._pending: tuple[Evaluation, Evaluation, str, int] | None = None  # the last: of which epoch
        self._gap: Gap | None = None
        self._logged: list[str] = []  # in the module's validation
        self.measured_epoch: int | None = None  # that of the last gap
        self._said: set[str] = set()

    def summary(self) -> dict[str, Any]:
        """The last gap in plain values; empty before the first."""
        return {} if self._gap is None else self._gap.as_dict()

    def sentence(self) -> str:
        """The last gap in words."""
        return sentence(self._gap, self._evaluation.obstacle)

    @override
    def setup(self, trainer: pl.Trainer, pl_module: pl.LightningModule, stage: str) -> None:
        pl.require_only_one(trainer, TrainValGapMonitor)
        self._evaluation = TrainingSampleEvaluation.of(trainer)
        self._evaluation.register(self, SampleRequest(self.examples, self.seed, self.dataloader_idx))
        self._evaluation.count_examples = self.count_examples or self._evaluation.count_examples
        if stage == "fit":
            self._start_again()
            warn_without_tensorboard(trainer)

    @override
    def on_train_epoch_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        self._evaluation.on_train_epoch_start(trainer)

    @override
    def on_validation_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        self._evaluation.on_validation_start()
        self._validation, self._sample = StepResults(), StepResults()

    @override
    def on_validation_batch_start(
        self, trainer: pl.Trainer, pl_module: pl.LightningModule, batch: Any, batch_idx: int, dataloader_idx: int = 0
    ) -> None:
        if self._evaluation.is_due(trainer):
            self._evaluation.validation_batch(trainer, batch, batch_idx, dataloader_idx)

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
            size = self._evaluation.validation.batch_end(trainer, batch)
            if dataloader_idx == self.dataloader_idx:
                self._validation.add(outputs, size)

    @override
    def on_validation_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        self._evaluation.on_validation_end(trainer, pl_module)

    @override
    def on_exception(self, trainer: pl.Trainer, pl_module: pl.LightningModule, exception: BaseException) -> None:
        self._evaluation.validation.stop_listening()

    @override
    def on_sample_batch_end(self, outputs: Any, size: BatchSize) -> None:
        self._sample.add(outputs, size)

    @override
    def wants_epoch_end(self, trainer: pl.Trainer, logged: LoggedValues) -> bool:
        stepped, known = logged.keys(), {*logged.keys(), *trainer.callback_metrics}
        wanted = [
            _spelled(key, known)
            for key, results in ((self.accuracy_key, "correct"), (self.loss_key, "losses"))
            if not self._sample.has(results)
        ]
        missing = [key for key in wanted if key not in stepped]
        return len(missing) == 2 or any(key in known for key in missing)

    @override
    def on_sample_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule, logged: LoggedValues | None) -> None:
        self._pending = None
        if logged is None:
            return
        everyone = self._evaluation.everyone
        # No keys on a process without a batch.
        parts = everyone(trainer, (self._sample.take(), self._validation.take(), logged.keys()))
        training = total(part for part, *_ in parts).evaluation()
        validation = total(part for _, part, _ in parts).evaluation()
        self._logged = sorted(set().union(*(keys for *_, keys in parts)))
        sides = logged, self._evaluation.validation.logged.get(self.dataloader_idx, LoggedValues())
        methods, both = [], (training, validation)
        for name, default in (("accuracy", self.accuracy_key), ("loss", self.loss_key)):
            key = _spelled(default, self._logged)
            method = "per-example losses"
            if any(math.isnan(getattr(side, name)) for side in both):
                means = logged_means(trainer, everyone, key, sides)
                if math.isnan(means[0].value):
                    means[0] = Mean(final_value(trainer, everyone, pl_module, logged, key))
                if math.isnan(means[1].value):
                    mine = self._validation.examples
                    means[1] = Mean(validated_value(trainer, everyone, key, self.dataloader_idx, mine))
                if math.isnan(means[0].value) or math.isnan(means[1].value):
                    continue
                if name == "accuracy" and not all(0 <= mean.value <= 1 for mean in means):
                    values = " and ".join(f"{mean.value:.4g}" for mean in means)
                    message = f"{key!r} is no fraction from 0 to 1 ({values} in training and validation)"
                    pl.warn_once(self._said, "range", f"{message}: `TrainValGapMonitor` leaves the accuracy out.")
                    continue
                for side, mean in zip(both, means, strict=True):
                    side.set(name, *mean)
                method = "batch means"
            if name == "accuracy" and all(side.is_binomial for side in both):
                method = "binomial"
            elif any(math.isnan(getattr(side, f"{name}_se")) for side in both):
                method = "unknown"
            methods.append(method)
        self._pending = training, validation, "; ".join(methods), trainer.current_epoch

    # Not `state_dict`: with that, Lightning refuses a second of these in its own words, which say less.

    @override
    def on_save_checkpoint(
        self, trainer: pl.Trainer, pl_module: pl.LightningModule, checkpoint: dict[str, Any]
    ) -> None:
        if self._pending is not None:  # a checkpoint between validation and the epoch's end
            checkpoint[self.state_key] = [*map(asdict, self._pending[:2]), *self._pending[2:]]

    @override
    def on_load_checkpoint(
        self, trainer: pl.Trainer, pl_module: pl.LightningModule, checkpoint: dict[str, Any]
    ) -> None:
        if self.state_key in checkpoint:
            training, validation, method, epoch = checkpoint[self.state_key]
            self._pending = Evaluation(**training), Evaluation(**validation), method, epoch

    @override
    def on_train_epoch_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        write_metrics(trainer)
        # Here, not after validation: only now is the running accuracy known, and may a callback log.
        # On every process: one without a validation batch has come by no other hook.
        found = next((each for each in pl.every_rank(trainer, self._pending) if each is not None), None)
        self._pending = None
        if found is None or found[-1] != trainer.current_epoch:
            return
        training, validation, method, _ = found
        there = [key.removesuffix("_epoch") for key in trainer.callback_metrics]
        running_accuracy = self._running(trainer, _spelled(self.train_accuracy_key, there))
        running_loss = self._running(trainer, _spelled(self.train_loss_key, there))
        self._gap = Gap(training, validation, running_accuracy, running_loss, method, self._notes(trainer, method))
        self.measured_epoch = trainer.current_epoch
        if math.isnan(self._gap.accuracy) and math.isnan(self._gap.loss):
            message = f"`TrainValGapMonitor` has nothing to compare: {self._why_nothing(trainer)}"
            pl.warn_once(self._said, "missing", message)
            return
        log_scalars(trainer, pl_module, self._gap.scalars())
        tag, kind, vector, content = self._gap.record()
        names = {"val_accuracy": _spelled(self.accuracy_key, there), "val_loss": _spelled(self.loss_key, there)}
        metrics = {column: key for column, key in names.items() if key in trainer.callback_metrics}
        write_records(trainer, [(tag, kind, vector, content | {"metrics": metrics})])

    def _why_nothing(self, trainer: pl.Trainer) -> str:
        """Say why neither accuracy nor loss is known of both sides."""
        wanted, mine, loaders = (self.accuracy_key, self.loss_key), self.dataloader_idx, len(trainer.num_val_batches)

        def found(logged: Collection[str]) -> list[str]:
            return [key for key in (_spelled(key, logged) for key in wanted) if key in logged]

        if mine >= loaders:
            return f"`dataloader_idx={mine}` counts from 0, and there are {loaders} validation loaders."
        logs = self._evaluation.validation.logged.items()
        elsewhere = [loader for loader, logged in logs if loader != mine and found(logged.keys())]
        if elsewhere and not found(self._logged):
            what = f"neither {wanted[0]!r} nor {wanted[1]!r}" if self._logged else "no loss and no accuracy"
            return (
                f"validation loader {mine} logs {what}, and loader {elsewhere[0]} does: "
                f"`TrainValGapMonitor(dataloader_idx={elsewhere[0]})` compares training with that one."
            )
        if known := found({*trainer.callback_metrics, *self._logged}):
            return (
                f"{' and '.join(known)}, as logged, is NaN or no mean (`reduce_fx`), or what logs it is not the "
                "module's own validation but, for example, a callback."
            )
        return (
            "`validation_step` neither returns a mapping with `losses` and `correct` nor logs "
            f"{wanted[0]!r} or {wanted[1]!r}. It logs: {', '.join(self._logged) or 'nothing'}. "
            "`TrainValGapMonitor(accuracy_key=..., loss_key=...)` says under which keys."
        )

    def _notes(self, trainer: pl.Trainer, method: str) -> dict[str, str]:
        notes, loaders, processes = {}, len(trainer.num_val_batches), trainer.world_size
        if loaders > 1:
            notes["loader"] = f"Of {loaders} validation loaders this is number {self.dataloader_idx}."
        if any(self._evaluation.validation.modes.values()):
            notes["mode"] = "Validation left modules of the network in training mode; so did the training side."
        if processes > 1:
            exact = "per-example losses" in method  # and `correct` with them
            depends = "" if exact else "means of what the steps log, where examples do not divide evenly, "
            depends += "standard errors of batch means and running" if "batch means" in method else "running"
            notes["processes"] = f"On {processes} processes; {depends} values depend on their number."
        return notes

    def _running(self, trainer: pl.Trainer, key: str) -> float:
        """The epoch's mean of a training metric; ``on_step=True`` makes Lightning call it ``<key>_epoch``.

        The mean over the ranks, which train on as many examples each: without ``sync_dist`` a value is a rank's own.
        """
        metrics = trainer.callback_metrics
        value = metrics.get(f"{key}_epoch")
        if value is None and pl.is_of_an_epoch(trainer, key):
            value = metrics.get(key)
        values = pl.every_rank(trainer, NAN if value is None else float(value))
        return sum(values) / len(values)


_USUAL = {
    "train": ("train", "training"),
    "val": ("val", "valid", "validation"),
    "accuracy": ("accuracy", "acc"),
    "loss": ("loss",),
}


def _spelled(key: str, logged: Collection[str]) -> str:
    """Give ``key``, or where it is a default that is not logged, another usual spelling of it that is."""
    side, _, what = key.partition("/")
    if key in logged or side not in _USUAL or what not in _USUAL:
        return key
    usual = (f"{first}{mark}{second}" for first in _USUAL[side] for mark in "/_" for second in _USUAL[what])
    return next((other for other in usual if other in logged), key)
