"""The evaluation of a sample of training examples: once per epoch, however many monitors look on."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any, NamedTuple
from weakref import WeakKeyDictionary

from training_health import lightning as pl
from training_health.batches import BatchSize, count_examples, size_of
from training_health.training_sample.isolation import LoggedValues, isolated
from training_health.training_sample.sample import NoTrainingSampleError, training_sample


class SampleRequest(NamedTuple):
    """Which sample an observer asks for."""

    examples: int | None = None  # over all ranks; None: as many as validation has
    seed: int = 0


class SampleObserver:
    """What a monitor implements to watch the evaluation; each method does nothing unless it is overridden."""

    def on_sample_start(self, pl_module: pl.LightningModule) -> None:
        """Called before the first batch."""

    def on_sample_batch_start(self, size: BatchSize) -> None:
        """Called before the ``validation_step`` of a batch."""

    def on_sample_batch_end(self, outputs: Any, size: BatchSize) -> None:  # noqa: ANN401
        """Called with what ``validation_step`` returned."""

    def on_sample_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule, logged: LoggedValues | None) -> None:
        """Called on every rank after the last batch, still in isolation; ``logged`` is None where it failed."""


class TrainingSampleEvaluation:
    """Runs the module's ``validation_step`` on a fixed sample of training examples, right after validation.

    A trainer has one, `of`, which the monitors hold. Those that watch the evaluation `register`. Each monitor calls the
    methods named after Lightning's hooks from its own hook of that name; whichever comes first has the work done, and
    the others find it done. So a validation batch is counted once and the sample evaluated once: after the epoch's
    last validation, with the same weights, mode and precision, in isolation. Only within ``fit``, not in its sanity
    check.
    """

    def __init__(self) -> None:
        self._observers: dict[SampleObserver, SampleRequest | None] = {}
        self._failed = False
        self.on_validation_start()

    @classmethod
    def of(cls, trainer: pl.Trainer) -> TrainingSampleEvaluation:
        """Give the trainer's evaluation, a new one if it has none yet."""
        return _BY_TRAINER.setdefault(trainer, cls())

    def register(self, observer: SampleObserver, request: SampleRequest | None = None) -> None:
        """Let ``observer``, a callback of the trainer, watch; called in its ``setup``, in each of them.

        The first observer with a request decides which sample; without one it is `SampleRequest()`.
        """
        self._observers[observer] = request
        self._failed = False

    def is_due(self, trainer: pl.Trainer) -> bool:
        """Whether the running validation is one that the evaluation follows."""
        return trainer.state.fn == "fit" and not trainer.sanity_checking and pl.is_epochs_last_validation(trainer)

    def on_validation_start(self) -> None:
        """Start to count the validation's examples."""
        self._examples = 0  # counted in this validation, on this rank
        self._batch: tuple[int, int] | None = None  # the one counted last, and its size
        self._size = BatchSize(0, 0)
        self._done = False

    def validation_batch(self, trainer: pl.Trainer, batch: Any, batch_idx: int, dataloader_idx: int) -> BatchSize:  # noqa: ANN401
        """Count a validation batch's examples; asked again for the same batch, give the same answer."""
        if self._batch != (batch_idx, dataloader_idx):
            self._batch = batch_idx, dataloader_idx
            self._size = size_of(batch, pl.loader_at(trainer.val_dataloaders, dataloader_idx), batch_idx)
            self._examples += self._size.counted
        return self._size

    def on_validation_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Evaluate the sample, if it is time to."""
        if self._done or self._failed or not self.is_due(trainer):
            return
        self._done = True
        callbacks = trainer.callbacks  # type: ignore[attr-defined] # set by a connector
        # A callback may have been taken away since it registered.
        observers = {o: request for o, request in self._observers.items() if o in callbacks}
        request = next((request for request in observers.values() if request is not None), SampleRequest())
        count = request.examples or sum(pl.every_rank(trainer, self._examples))
        failure = None
        with isolated(trainer, pl_module) as logged:
            try:
                _evaluate(trainer, pl_module, observers, training_sample(trainer, count, request.seed), logged)
            except NoTrainingSampleError as error:
                failure = f"No sample of training examples can be evaluated: {error}."
            except Exception as error:  # a monitor never ends a run
                failure = f"`validation_step` failed on a sample of training examples, left out from now on: {error!r}"
            # Every rank must take part in what the observers exchange, so all must know.
            failures = [text for text in pl.every_rank(trainer, failure) if text is not None]
            for observer in observers:
                observer.on_sample_end(trainer, pl_module, None if failures else logged)
        self._failed = bool(failures)
        if failures:
            pl.rank_zero_warn(failures[0])


# Weak: it lives as long as its trainer.
_BY_TRAINER: WeakKeyDictionary[pl.Trainer, TrainingSampleEvaluation] = WeakKeyDictionary()


def _evaluate(
    trainer: pl.Trainer,
    pl_module: pl.LightningModule,
    observers: Iterable[SampleObserver],
    batches: Iterable[Any],
    logged: LoggedValues,
) -> None:
    for observer in observers:
        observer.on_sample_start(pl_module)
    for batch_idx, batch in enumerate(batches):
        batch = pl.to_device(trainer, pl_module, batch)
        logged.examples = count_examples(batch)
        size = BatchSize(logged.examples, logged.examples)
        for observer in observers:
            observer.on_sample_batch_start(size)
        outputs = pl.validation_step(trainer, pl_module, batch, batch_idx)
        for observer in observers:
            observer.on_sample_batch_end(outputs, size)
        del batch, outputs  # or the next batch's activations would have to be laid around them
