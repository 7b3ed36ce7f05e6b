"""The eval-mode pass over a sample of training images that several monitors share."""

from __future__ import annotations

import inspect
from typing import Any, TypeVar

import pytorch_lightning as pl
from pytorch_lightning.callbacks import Callback
from pytorch_lightning.utilities import rank_zero_warn
from pytorch_lightning.utilities.exceptions import MisconfigurationException
from torch.nn.parallel import DistributedDataParallel
from typing_extensions import override

from training_health.epoch_clock import is_epochs_last_validation
from training_health.ranks import count_images, ends_in_a_repeat, every_rank, loader_at
from training_health.training_sample.isolation import LoggedValues, quarantine
from training_health.training_sample.sample import NoTrainingSampleError, training_sample

C = TypeVar("C", bound=Callback)


class TrainingSampleObserver(Callback):
    """A callback that watches the module's ``validation_step`` on a fixed sample of training images.

    The pass runs once per epoch however many observers there are, right after the epoch's last validation: at the same
    weights, in the same mode and precision, in `quarantine`. The first observer among the trainer's callbacks runs it
    for all. Not during sanity checking, and only within ``fit``.
    """

    sample_images: int | None = None  # None: as many as validation has
    sample_seed: int | None = None  # None: no say in it

    _validation_images: int = 0  # on this rank
    _sample_failed: bool = False

    @property
    def observes_training_sample(self) -> bool:
        """Whether this observer wants the pass."""
        return True

    def on_sample_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Called before the first batch."""

    def on_sample_batch_start(self, images: int) -> None:
        """Called before the ``validation_step`` of a batch of ``images``."""

    def on_sample_batch_end(self, outputs: Any, images: int) -> None:  # noqa: ANN401
        """Called with what ``validation_step`` returned."""

    def on_sample_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule, logged: LoggedValues | None) -> None:
        """Called on every rank after the last batch, in quarantine; ``logged`` is None where the pass failed."""

    def measures_this_validation(self, trainer: pl.Trainer) -> bool:
        """Whether the running validation is one after which the pass runs."""
        fitting = trainer.state.fn == "fit" and not trainer.sanity_checking
        return fitting and self.observes_training_sample and is_epochs_last_validation(trainer)

    @override
    def on_validation_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        self._validation_images = 0

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
        loader = loader_at(trainer.val_dataloaders, dataloader_idx)
        self._validation_images += count_images(batch) - ends_in_a_repeat(loader, batch_idx)

    @override
    def on_validation_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        if not self.measures_this_validation(trainer):
            return
        observers = [c for c in _of_type(trainer, TrainingSampleObserver) if c.observes_training_sample]
        if observers[0] is self and not self._sample_failed:
            self._sample_failed = not _run(trainer, pl_module, observers, self._validation_images)


def require_only_one(trainer: pl.Trainer, kind: type[Callback]) -> None:
    """Refuse a second callback of a kind whose instances would log the same keys.

    Raises:
        MisconfigurationException: If the trainer has more than one.
    """
    if len(_of_type(trainer, kind)) > 1:
        raise MisconfigurationException(f"Use one `{kind.__name__}` per trainer: two would log the same keys.")


def _of_type(trainer: pl.Trainer, kind: type[C]) -> list[C]:
    callbacks: list[Callback] = trainer.callbacks  # type: ignore[attr-defined] # set by a connector
    return [callback for callback in callbacks if isinstance(callback, kind)]


def _run(
    trainer: pl.Trainer, pl_module: pl.LightningModule, observers: list[TrainingSampleObserver], images: int
) -> bool:
    """Run the pass for all observers; False, after one warning, if that is not possible in this project."""
    asking = next((o for o in observers if o.sample_seed is not None), observers[0])
    count = asking.sample_images or sum(every_rank(trainer, images))
    failure = None
    with quarantine(trainer, pl_module) as logged:
        try:
            _observe(trainer, pl_module, observers, training_sample(trainer, count, asking.sample_seed or 0), logged)
        except NoTrainingSampleError as error:
            failure = f"No sample of training images can be evaluated: {error}."
        except Exception as error:  # a monitor never ends a run
            failure = (
                f"`validation_step` failed on a sample of training images, which is left out from now on: {error!r}"
            )
        # Every rank must take part in what the observers exchange, so all must know.
        failed = any(every_rank(trainer, failure is not None))
        for observer in observers:
            observer.on_sample_end(trainer, pl_module, None if failed else logged)
    if failure is not None:
        rank_zero_warn(failure)
    return not failed


def _observe(
    trainer: pl.Trainer,
    pl_module: pl.LightningModule,
    observers: list[TrainingSampleObserver],
    batches: Any,  # noqa: ANN401
    logged: LoggedValues,
) -> None:
    extra = [0] if "dataloader_idx" in inspect.signature(pl_module.validation_step).parameters else []
    # A DDP wrapper's forward broadcasts buffers: ranks with unequal numbers of batches would wait for each other for
    # ever. The validation just run has made the buffers equal.
    direct = isinstance(trainer.strategy.model, DistributedDataParallel)
    for observer in observers:
        observer.on_sample_start(trainer, pl_module)
    for batch_idx, batch in enumerate(batches):
        # The road of a validation batch: Lightning's transfer hooks, then the strategy's step with its precision.
        batch = trainer.precision_plugin.convert_input(batch)
        batch = pl_module._on_before_batch_transfer(batch, dataloader_idx=0)
        batch = trainer.strategy.batch_to_device(batch, dataloader_idx=0)
        images = logged.images = count_images(batch)
        for observer in observers:
            observer.on_sample_batch_start(images)
        if direct:
            with trainer.precision_plugin.val_step_context():
                outputs = pl_module.validation_step(batch, batch_idx, *extra)
        else:
            outputs = trainer.strategy.validation_step(batch, batch_idx, *extra)
        for observer in observers:
            observer.on_sample_batch_end(outputs, images)
        del batch, outputs  # or the next batch's activations would have to be laid around them
