"""The dead ReLU units of any PyTorch model, counted once, without a Trainer."""

from __future__ import annotations

import copy
import math
import random
import time
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from fnmatch import fnmatchcase
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import nn
from torch.nn.parameter import is_lazy

from training_health.batches import BatchSize, count_examples, size_of
from training_health.errors import UserError
from training_health.log_format import tensor_record
from training_health.relu.sites import ReLUSites
from training_health.relu.unit_counts import UnitCounter
from training_health.relu.window import DeadReLUReport, WindowPart, table
from training_health.tensor_copies import copied, load_tensors


@dataclass(frozen=True)
class Inspection:
    """What `inspect` found; printed, it is a sentence and a table with a line per site."""

    report: DeadReLUReport
    assumed: Mapping[str, int]  # sites whose unit dimension was a guess, and which it was

    def __str__(self) -> str:
        """Lay it out as a table."""
        guesses = ", ".join(f"{site}: {dim}" for site, dim in self.assumed.items())
        note = f"\nUnits assumed, since not known, in this dimension (name it with unit_dims): {guesses}."
        return table(self.report) + (note if guesses else "")

    def to_dict(self) -> dict[str, Any]:
        """Plain values: n, the numbers of units and dead units, and all of it per site."""
        return self.report.as_dict()

    def write(self, folder: str | Path) -> None:
        """Write a TensorBoard event file into ``folder``, as epoch 0 of a run in the tab *Training Health*.

        Raises:
            ModuleNotFoundError: Without TensorBoard (``pip install "tensorboard>=2.20"``).
        """
        from tensorboard.compat.proto.event_pb2 import Event
        from tensorboard.summary.writer.event_file_writer import EventFileWriter

        writer = EventFileWriter(str(folder))
        for tag, kind, vector, content in (*self.report.records(), *self.report.coverage_records()):
            record = tensor_record(tag, kind, [0, *vector], **content)
            writer.add_event(Event(wall_time=time.time(), step=0, summary=record))
        writer.close()


def inspect(
    model: nn.Module,
    batches: Iterable[Any],
    *,
    forward: Callable[[nn.Module, Any], Any] | None = None,
    count: Callable[[Any], int | None] = count_examples,
    rare_below: float = 0.01,
    unit_dims: Mapping[str, int] | None = None,
    eager: bool = True,
) -> Inspection:
    """Count the dead ReLU units of a model over some batches, in eval mode and without gradients.

    The counts, causes, names and words are `DeadReLUMonitor`'s; one window cannot tell which units were killed. The
    model's modes and buffers and the random generators of Python, NumPy and torch are put back at the end, also after
    an exception.

    Args:
        model: Any module, on any device.
        batches: Any iterable, such as a DataLoader. A batch is moved to the model's device.
        forward: How to run a batch, as ``forward(model, batch)``. Default: ``model(**batch)`` for a mapping, else
            ``model(batch)``, for a tuple or list with its first item only.
        count: How many examples a batch holds; None for unknown. Default: what a DataLoader draws, or else what
            its tensors show.
        rare_below: Activity below which a unit that is not dead is rare.
        unit_dims: As for `DeadReLUMonitor`.
        eager: As for `DeadReLUMonitor`.

    Returns:
        An `Inspection`: printed a table; ``to_dict()`` gives plain values; ``write(folder)`` an event file.

    Raises:
        UserError: There is no example; ``rare_below`` is no such fraction; ``unit_dims`` has a pattern that matches no
            ReLU site.

    Example::

        >>> import torch
        >>> from torch import nn
        >>> from training_health import inspect
        >>> net = nn.Sequential(nn.Linear(3, 2), nn.ReLU(), nn.Linear(2, 2))
        >>> _ = nn.init.constant_(net[0].bias, -99.0)
        >>> for line in str(inspect(net, [torch.zeros(20, 3)])).splitlines()[1:]:  # the first is a sentence
        ...     print(line)
        site    units  dead  rare  not a number  depth  cause        dead units
        relu.1      2     2     0             0         2 any input  0, 1
    """
    if not 0 < rare_below <= 1:
        raise UserError(f"`rare_below` is a fraction above 0 and up to 1, not {rare_below!r}.", exit_code=2)
    counter = UnitCounter(dict(unit_dims or {}))
    sites = ReLUSites(counter.add, eager)
    with untouched(model) as device, torch.no_grad():
        sites.attach(model)
        try:
            for batch_idx, batch in enumerate(batches):
                shown: Any = count(batch)
                if count is count_examples and shown != 0:
                    size = size_of(batch, batches, batch_idx)
                else:
                    size = BatchSize(*[math.nan if shown is None else shown] * 2)
                counter.begin_batch(size)
                sites.begin_pass()
                (forward or run_batch)(model, to_device(batch, device))
                sites.end_pass()
                counter.end_batch(size)
        finally:
            sites.detach()
    part = WindowPart(counter.take(), sites.never_zero, sites.unwatched)
    if part.counts.examples == 0:
        raise UserError("There is no example to look at. Give batches that hold some.", exit_code=2)
    names = dict.fromkeys([*part.counts.sites, *part.never_zero, *part.unwatched])
    for pattern in unit_dims or {}:
        if not any(fnmatchcase(name, pattern) for name in names):
            found = f"name one of {', '.join(names)}" if names else "the model calls none"
            raise UserError(f"`unit_dims` has {pattern!r}, which matches no ReLU site: {found}.", exit_code=2)
    assumed = {site: dim for site, dim in counter.assumed.items() if site not in sites.unwatched}
    return Inspection(DeadReLUReport.of([part], {}, "given", rare_below, {}), assumed)


def run_batch(model: nn.Module, batch: Any) -> Any:  # noqa: ANN401
    """Call the model with a mapping's items, or with the first item of a tuple or list."""
    if isinstance(batch, Mapping):
        return model(**batch)
    return model(batch[0] if isinstance(batch, (tuple, list)) else batch)


def to_device(batch: Any, device: torch.device | None) -> Any:  # noqa: ANN401
    """Move all that is in a batch; nothing if there is no device."""
    if device is None:
        return batch
    if isinstance(batch, Mapping):
        moved = {key: to_device(value, device) for key, value in batch.items()}
        if type(batch) is dict or not hasattr(batch, "__copy__"):  # a copy may share what it holds with the original
            return moved
        like: Any = copy.copy(batch)
        like.update(moved)
        return like
    if hasattr(batch, "to"):
        return batch.to(device)
    if not isinstance(batch, (tuple, list)):
        return batch
    values = [to_device(value, device) for value in batch]
    return values if isinstance(batch, list) else getattr(type(batch), "_make", tuple)(values)


@contextmanager
def untouched(model: nn.Module) -> Iterator[torch.device | None]:
    """Evaluate the model and give its device, if any; put its modes and buffers and all random generators back."""
    device = next((tensor.device for tensors in (model.parameters(), model.buffers()) for tensor in tensors), None)
    modules = list(model.modules())
    modes = [module.training for module in modules]
    buffers = [(m, name, buffer) for m in modules for name, buffer in m.named_buffers(recurse=False)]
    with ExitStack() as stack:
        stack.enter_context(torch.random.fork_rng([device] if device is not None and device.type == "cuda" else []))
        stack.callback(random.setstate, random.getstate())
        stack.callback(np.random.set_state, np.random.get_state())
        stack.callback(load_tensors, copied(buffer for _, _, buffer in buffers))
        for module, name, buffer in buffers:
            if not is_lazy(buffer):
                stack.callback(setattr, module, name, buffer)
        for module, training in zip(modules, modes, strict=True):
            stack.callback(setattr, module, "training", training)
            module.training = False
        yield device
