"""Run a module's validation_step in isolation: nothing it does outlives the evaluation."""

from __future__ import annotations

from collections import OrderedDict, deque
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from typing import Any

import torch
from torch import Tensor, nn
from torchmetrics import Metric

from training_health import lightning as pl

_CONTAINERS = (list, dict, OrderedDict, set, deque)  # a module's own are ordered in older torch


class LoggedValues:
    """Stands in for a module's ``log``: collects values instead of logging them."""

    def __init__(self) -> None:
        self.examples = 0  # in the batch whose step is running
        self.values: dict[str, list[tuple[Tensor, int]]] = {}  # per key: value and weight of each batch
        self.metrics: dict[str, Metric] = {}

    def __call__(self, name: str, value: Any, *args: object, batch_size: int | None = None, **kwargs: object) -> None:  # noqa: ANN401
        """Stand in for ``LightningModule.log``."""
        if isinstance(value, Metric):
            self.metrics[name] = value
        elif isinstance(value, (Tensor, int, float)):
            weight = self.examples if batch_size is None else batch_size
            self.values.setdefault(name, []).append((torch.as_tensor(value).detach().reshape(()), weight))


@contextmanager
def isolated(trainer: pl.Trainer, pl_module: pl.LightningModule) -> Iterator[LoggedValues]:
    """Give the module a throw-away state: eval mode, empty metrics, loggers and ``log`` that go nowhere.

    Put back at the end, whatever happened: the random generators of torch, CUDA, NumPy and Python, every submodule's
    mode, buffers, metric states and plain attributes (the content of lists, dicts, sets and deques too), ``log`` and
    the trainer's loggers. A tensor kept as a plain attribute is put back but not copied: changes made inside it stay.
    Yields what the module logs meanwhile.
    """
    logged = LoggedValues()
    with ExitStack() as stack:
        generators = pl.isolate_rng()
        generators.__enter__()
        stack.callback(generators.__exit__, None, None, None)  # as it stands it restores nothing after an exception
        for module in pl_module.modules():
            stack.callback(_memory_of(module))
            if isinstance(module, Metric):
                module.reset()
            module.training = False
        loggers = trainer.loggers
        trainer.loggers = [pl.DummyLogger() for _ in loggers]
        stack.callback(setattr, trainer, "loggers", loggers)
        vars(pl_module)["log"] = logged
        yield logged


def _memory_of(module: nn.Module) -> Callable[[], None]:
    """Remember a module's state; the returned function puts it back."""
    attributes = vars(module)  # its dictionaries of buffers, parameters and parts too
    kept = dict(attributes)
    contents = [(value, value.copy()) for value in kept.values() if type(value) in _CONTAINERS]
    buffers = [(buffer, buffer.clone()) for buffer in module.buffers(recurse=False)]

    def restore() -> None:
        for name in attributes.keys() - kept.keys():
            del attributes[name]
        attributes.update(kept)
        for container, content in contents:
            container.clear()
            (container.extend if isinstance(container, (list, deque)) else container.update)(content)
        for buffer, values in buffers:
            buffer.copy_(values)

    return restore
