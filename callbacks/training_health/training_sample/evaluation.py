"""The evaluation of a sample of training examples: once per epoch, however many monitors look on."""

from __future__ import annotations

import math
from collections.abc import Callable
from contextlib import suppress
from textwrap import shorten
from typing import Any, NamedTuple, TypeVar
from weakref import WeakKeyDictionary

from torch import distributed

from training_health import lightning as pl
from training_health.batches import BatchSize, ExampleCounter, size_of
from training_health.tensor_copies import load_tensors
from training_health.training_sample.isolation import (
    CannotCopyError,
    Copies,
    LoggedValues,
    copied_tensors,
    isolated,
)
from training_health.training_sample.sample import NoTrainingSampleError, training_sample
from training_health.training_sample.validation import Validation

T = TypeVar("T")
_NO_VALIDATION = (
    "Neither dead units nor the gap are measured: this fit has no validation. That takes a `validation_step`, a "
    "validation loader and `limit_val_batches` above 0."
)


class SampleRequest(NamedTuple):
    """Which sample an observer asks for."""

    examples: int | None = None  # over all ranks; None: as many as validation has
    seed: int = 0
    loader_idx: int = 0  # of the validation loader that it is compared with


class SampleObserver:
    """What a monitor implements to watch the evaluation; each method does nothing unless it is overridden."""

    def on_sample_start(self, pl_module: pl.LightningModule) -> None:
        """Called before the first batch."""

    def on_sample_batch_start(self, size: BatchSize) -> None:
        """Called before the ``validation_step`` of a batch."""

    def on_sample_batch_end(self, outputs: Any, size: BatchSize) -> None:  # noqa: ANN401
        """Called with what ``validation_step`` returned."""

    def wants_epoch_end(self, trainer: pl.Trainer, logged: LoggedValues) -> bool:
        """Whether it needs what the module does at the validation epoch's end; asked after the last batch."""
        return False

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
        self.count_examples: ExampleCounter | None = None  # the user's own
        # Weak, or neither they nor the module whose `log` Lightning gives them, and its trainer, are ever freed.
        self._observers: WeakKeyDictionary[SampleObserver, SampleRequest | None] = WeakKeyDictionary()
        self._failed = False
        self._said: set[str] = set()
        self._group: Any = None  # the processes that validate, where these are not all,
        self._part: tuple[int, int] | None = None  # this one's number among them, and how many they are
        self.validation = Validation()
        self._done = False
        self.obstacle = ""  # why the last evaluation failed, in words

    def __getstate__(self) -> dict[str, Any]:
        """Keep, for a pickled monitor, what is not of a running fit."""
        return {"count_examples": self.count_examples, "obstacle": self.obstacle}

    def __setstate__(self, state: dict[str, Any]) -> None:
        """Start anew: the trainer's own takes its place in ``setup``."""
        TrainingSampleEvaluation.__init__(self)
        vars(self).update(state)

    @classmethod
    def of(cls, trainer: pl.Trainer) -> TrainingSampleEvaluation:
        """Give the trainer's evaluation, a new one if it has none yet."""
        return _BY_TRAINER.setdefault(trainer, cls())

    def register(self, observer: SampleObserver, request: SampleRequest | None = None) -> None:
        """Let ``observer``, a callback of the trainer, watch; called in its ``setup``, in each of them.

        The first observer with a request decides which sample; without one it is `SampleRequest()`.
        """
        self._observers[observer] = request
        self._failed, self.obstacle = False, ""

    def is_due(self, trainer: pl.Trainer) -> bool:
        """Whether the running validation is one that the evaluation follows."""
        return trainer.state.fn == "fit" and not trainer.sanity_checking and pl.is_epochs_last_validation(trainer)

    def on_train_epoch_start(self, trainer: pl.Trainer) -> None:
        """Find out which processes validate: one without a batch reaches no hook of the validation. Collective."""
        if not trainer.enable_validation:
            pl.warn_once(self._said, "none", _NO_VALIDATION)
        counts = pl.every_rank(trainer, sum(trainer.num_val_batches))
        if all(counts) or not any(counts):  # or not known yet
            self._group = self._part = None
        elif self._part is None:
            ranks = [rank for rank, count in enumerate(counts) if count]
            self._group = distributed.new_group(ranks)
            self._part = ranks.index(trainer.global_rank) if counts[trainer.global_rank] else 0, len(ranks)

    @property
    def some_do_not_validate(self) -> bool:
        """Whether there are processes without a validation batch, beside others that have some."""
        return self._part is not None

    def everyone(self, trainer: pl.Trainer, payload: T) -> list[T]:
        """Give the payloads of all processes that validate; for the hooks of the validation. Collective."""
        return pl.every_rank(trainer, payload, self._group)

    def on_validation_start(self) -> None:
        """Start to count the validation's examples."""
        self.validation.stop_listening()
        self.validation = Validation(self.count_examples)
        self._done = False

    def validation_batch(self, trainer: pl.Trainer, batch: Any, batch_idx: int, dataloader_idx: int) -> BatchSize:  # noqa: ANN401
        """Count a validation batch's examples before its step; asked again for the same batch, give the same answer."""
        if self._observers and not self._failed and not self.validation.weights and self.is_due(trainer):
            self.validation.modes.update((module, module.training) for module in trainer.lightning_module.modules())
            with suppress(Exception):  # what cannot be copied is named when the sample is evaluated
                self.validation.weights = copied_tensors(trainer.lightning_module)
                pl.share_buffers(trainer, self.validation.weights)
        return self.validation.batch_start(trainer, batch, batch_idx, dataloader_idx)

    def on_validation_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Evaluate the sample, if it is time to."""
        self.validation.stop_listening()
        if self._done or self._failed or not self.is_due(trainer):
            return
        self._done = True
        callbacks = trainer.callbacks  # type: ignore[attr-defined] # set by a connector
        # A callback may have been taken away since it registered.
        observers = {o: request for o, request in self._observers.items() if o in callbacks}
        request = next((request for request in observers.values() if request is not None), SampleRequest())
        copies, obstacle = None, None
        try:
            copies = Copies(trainer, pl_module)
        except CannotCopyError as error:
            obstacle = f"Training examples cannot be evaluated without a trace: {error}"
        seen = self.validation.logged.get(request.loader_idx, LoggedValues())
        parts = self.everyone(trainer, (seen.examples, seen.batches, obstacle))
        failures = [text for _, _, text in parts if text]
        if copies is not None and not failures:
            count = request.examples or _total(trainer, [part[:2] for part in parts])
            try:
                with isolated(trainer, copies, self.validation.weights, self.validation.modes) as logged:
                    failures = self._evaluate(trainer, pl_module, list(observers), request, count, logged)
                    for observer in observers if not failures else ():
                        observer.on_sample_end(trainer, pl_module, logged)
            except Exception as error:
                reason = shorten(f"{type(error).__name__}: {error}", 300)
                failures = [f"Training examples could not be evaluated: {reason}"]
        self.validation.weights = []  # their memory is needed elsewhere
        self.obstacle = failures[0] if failures else ""
        if failures:
            self._failed = True
            for observer in observers:
                observer.on_sample_end(trainer, pl_module, None)
            pl.rank_zero_warn(failures[0])

    def _evaluate(
        self,
        trainer: pl.Trainer,
        pl_module: pl.LightningModule,
        observers: list[SampleObserver],
        request: SampleRequest,
        count: int,
        logged: LoggedValues,
    ) -> list[str]:
        """Play a validation epoch on the sample, from the end of validation's own, where modules empty what they keep.

        Returns what went wrong, on whichever process.
        """
        loader_idx = request.loader_idx

        def steps() -> None:
            batches = training_sample(trainer, count, request.seed, loader_idx, self._part)
            pl_module.on_validation_end()
            pl_module.on_validation_start()
            pl_module.on_validation_epoch_start()
            load_tensors(self.validation.weights)  # which a callback may have put away since, such as averages
            for observer in observers:
                observer.on_sample_start(pl_module)
            for batch_idx, batch in enumerate(batches):
                batch = pl.to_device(trainer, pl_module, batch, loader_idx)
                if hasattr(batch, "train_mask") and hasattr(batch, "val_mask"):
                    raise NoTrainingSampleError(
                        "Masks tell training from validation within a batch: there is no sample of training examples."
                    )
                logged.begin_batch()
                size = size_of(batch, batches, batch_idx, self.count_examples)
                for observer in observers:
                    observer.on_sample_batch_start(size)
                pl_module.on_validation_batch_start(batch, batch_idx, loader_idx)
                outputs = pl.validation_step(trainer, pl_module, batch, batch_idx, loader_idx)
                pl_module.on_validation_batch_end(outputs, batch, batch_idx, loader_idx)
                size = size_of(batch, batches, batch_idx, self.count_examples, logged.batch_size)
                logged.end_batch(size)
                for observer in observers:
                    observer.on_sample_batch_end(outputs, size)
                del batch, outputs  # or the next batch's activations would have to be laid around them

        # Every process must take part in what follows, so all must know how it went.
        if failures := [text for text in self.everyone(trainer, _failure_of(steps)) if text]:
            return failures
        # There modules print, write files and decide which weights are their best: not without need.
        wanted = any(observer.wants_epoch_end(trainer, logged) for observer in observers)
        if not any(self.everyone(trainer, wanted)):
            return []
        return [text for text in self.everyone(trainer, _failure_of(pl_module.on_validation_epoch_end)) if text]


# Weak: it lives as long as its trainer.
_BY_TRAINER: WeakKeyDictionary[pl.Trainer, TrainingSampleEvaluation] = WeakKeyDictionary()


def _failure_of(part: Callable[[], None]) -> str | None:
    """Run a part of the evaluation; a monitor never ends a run."""
    try:
        part()
    except NoTrainingSampleError as error:
        return str(error)
    except Exception as error:
        return f"The module's validation failed on a sample of training examples, left out from now on: {error!r}"
    return None


def _total(trainer: pl.Trainer, parts: list[tuple[float, int]]) -> int:
    """Validation's examples over all processes; where they are unknown, what as many training batches hold."""
    examples = sum(count for count, _ in parts)
    if not math.isnan(examples):
        return int(examples)
    return sum(batches for _, batches in parts) * (getattr(trainer.train_dataloader, "batch_size", None) or 1)
