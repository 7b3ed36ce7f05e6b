"""What the running validation has: examples, logged values, and the weights it runs with."""

from __future__ import annotations

from typing import Any
from weakref import WeakKeyDictionary

from torch import Tensor, nn

from training_health import lightning as pl
from training_health.batches import BatchSize, ExampleCounter, size_of
from training_health.training_sample.isolation import LoggedValues


class Validation:
    """Counts the examples of one validation, and listens to what the module logs in its steps.

    Args:
        count_examples: The user's own way to count a batch's.
    """

    def __init__(self, count_examples: ExampleCounter | None = None) -> None:
        self.count_examples = count_examples
        self.logged: dict[int, LoggedValues] = {}  # by validation loader
        self.weights: list[tuple[Tensor, Tensor]] = []  # parameters and buffers, each with a copy
        self.modes: WeakKeyDictionary[nn.Module, bool] = WeakKeyDictionary()  # whether it ran in training mode
        self._batch: tuple[int, int] | None = None  # of the batch counted last: its number, and its loader's
        self._size = BatchSize(0, 0)
        self._module: pl.LightningModule | None = None
        self._own_log: Any = None  # a user's, in the place of the class's method

    def batch_start(self, trainer: pl.Trainer, batch: Any, batch_idx: int, loader_idx: int) -> BatchSize:  # noqa: ANN401
        """Count a batch's examples as far as they are known before its step, and listen to that."""
        if self._batch != (batch_idx, loader_idx):
            self.stop_listening()
            self._batch, self._module = (batch_idx, loader_idx), trainer.lightning_module
            logged = self.logged.setdefault(loader_idx, LoggedValues())
            logged.begin_batch()
            if "validation_step" not in vars(self._module):  # not a compiled one, which would be compiled again
                self._own_log, logged.log = vars(self._module).get("log"), self._module.log
                vars(self._module)["log"] = logged
            self._size = self._count(trainer, batch, None)
        return self._size

    def batch_end(self, trainer: pl.Trainer, batch: Any) -> BatchSize:  # noqa: ANN401
        """Count the same batch's examples after its step, which may have logged how many they are."""
        if self._module is not None and self._batch is not None:
            self.stop_listening()
            logged = self.logged[self._batch[1]]
            self._size = self._count(trainer, batch, logged.batch_size)
            logged.end_batch(self._size)
        return self._size

    def _count(self, trainer: pl.Trainer, batch: Any, logged: float | None) -> BatchSize:  # noqa: ANN401
        assert self._batch is not None
        batch_idx, loader_idx = self._batch
        own = self.count_examples
        if pl.joins_validation_loaders(trainer):  # neither a loader nor such a batch shows how many
            return size_of(None, None, batch_idx, own and (lambda _: own(batch)), logged)
        return size_of(batch, pl.loader_at(trainer.val_dataloaders, loader_idx), batch_idx, own, logged)

    def stop_listening(self) -> None:
        """Give the module its ``log`` back; at any time."""
        if self._module is None or self._batch is None:
            return
        logged, attributes = self.logged[self._batch[1]], vars(self._module)
        if attributes.get("log") is logged:
            del attributes["log"]
            if self._own_log is not None:
                attributes["log"] = self._own_log
        # The method holds module and trainer, which would never be freed.
        logged.log = self._own_log = self._module = None
