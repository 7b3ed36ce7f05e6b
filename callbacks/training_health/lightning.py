"""The one module that knows Lightning: what the monitors import from it, its loops' state and its private parts.

Lightning comes in two packages, `lightning` and `pytorch_lightning`, whose classes know nothing of each other. What is
inherited or raised here is of each package that is installed, so that a monitor fits into the trainer of either.

Four things have no public way. Each is used in one function and has a substitute, with a warning, should it disappear:
``_batches_that_stepped`` in `epoch_end_step`, ``_on_before_batch_transfer`` in `to_device`, ``_results`` in
`is_of_an_epoch` and ``_is_sequential`` in `joins_validation_loaders`. Without a warning, `torch_private` does without
the mark of a module that was compiled before it reached the trainer, and `sinks` without the prefix of a logger's keys
and what is private of TensorBoard's writers; `record_writer` knows the latter too.
"""

from __future__ import annotations

import inspect
import itertools
import math
from collections.abc import Iterable, Iterator, Mapping
from importlib import import_module
from typing import TYPE_CHECKING, Any, TypeVar

import torch
from torch import distributed
from torch.nn.parallel import DistributedDataParallel

from training_health.torch_private import warn_renamed


def _installed_packages() -> list[str]:
    """Import what is installed of Lightning's two packages."""
    found = []
    for package in ("lightning.pytorch", "pytorch_lightning"):
        try:
            import_module(package)
        except ModuleNotFoundError as error:
            if error.name not in (package, package.split(".")[0]):
                raise  # the package is there, and something that it needs is not
        else:
            found.append(package)
    if not found:
        raise ModuleNotFoundError("The monitors need Lightning: `pip install lightning` or `pytorch-lightning`.")
    return found


if TYPE_CHECKING:
    from pytorch_lightning import Callback, LightningModule, Trainer
    from pytorch_lightning.loggers.logger import DummyLogger, Logger
    from pytorch_lightning.utilities import rank_zero_info, rank_zero_warn
    from pytorch_lightning.utilities.exceptions import MisconfigurationException
    from pytorch_lightning.utilities.seed import isolate_rng
    from pytorch_lightning.utilities.signature_utils import is_param_in_hook_signature

    LIGHTNING_MODULES: tuple[type[LightningModule], ...]
    LOGGERS: tuple[type[Logger], ...]
else:
    from lightning_utilities.core.rank_zero import rank_zero_info, rank_zero_warn  # both packages' own

    def _of_each(module: str, name: str) -> list[Any]:
        return [getattr(import_module(f"{package}.{module}"), name) for package in _PACKAGES]

    _PACKAGES = _installed_packages()
    LIGHTNING_MODULES = tuple(_of_each("core", "LightningModule"))
    LOGGERS = tuple(_of_each("loggers.logger", "Logger"))
    isolate_rng = _of_each("utilities.seed", "isolate_rng")[0]
    is_param_in_hook_signature = _of_each("utilities.signature_utils", "is_param_in_hook_signature")[0]
    DummyLogger = _of_each("loggers.logger", "DummyLogger")[0]

    class Callback(*_of_each("callbacks", "Callback")):
        """A callback for the trainer and the command line of every installed package."""

    class MisconfigurationException(*_of_each("utilities.exceptions", "MisconfigurationException")):
        """A wrong argument; caught as the exception of either package."""


__all__ = ["Callback", "DummyLogger", "MisconfigurationException", "isolate_rng", "rank_zero_info", "rank_zero_warn"]

T = TypeVar("T")


# ---- epochs and steps


def epoch_end_step(trainer: Trainer) -> int:
    """Give the step at which Lightning logs the running epoch's end values: batches that stepped, minus one.

    Valid in validation hooks and in ``on_train_epoch_end`` alike.
    """
    stepped = getattr(trainer.fit_loop.epoch_loop, "_batches_that_stepped", None)
    if stepped is None:
        warn_renamed("_batches_that_stepped", "records are written at the number of optimiser steps")
        return max(trainer.global_step - 1, 0)
    # The counter moves on between the epoch's last validation and `on_train_epoch_end`.
    return stepped if trainer.validating else max(stepped - 1, 0)


def is_epochs_last_validation(trainer: Trainer) -> bool:
    """Tell whether no further validation follows in this epoch; True where that cannot be known."""
    batches, interval = trainer.num_training_batches, getattr(trainer, "val_check_batch", None)
    if trainer.check_val_every_n_epoch is None or math.isinf(batches) or interval is None or math.isinf(interval):
        return True
    done = trainer.fit_loop.epoch_loop.batch_idx + 1
    return done + interval > batches or _batches_left(trainer, done) < interval


def is_epochs_last_batch(trainer: Trainer) -> bool:
    """Tell whether the running training batch is this epoch's last; valid until its optimiser step."""
    before = trainer.fit_loop.epoch_loop.batch_idx
    return trainer.is_last_batch or before + 1 >= trainer.num_training_batches or _batches_left(trainer, before) <= 1


def _batches_left(trainer: Trainer, done: int) -> float:
    """Count the batches before ``max_steps`` ends the fit; ``done`` of this epoch's may be part of the next step."""
    if trainer.max_steps == -1:
        return math.inf
    per_step = trainer.accumulate_grad_batches
    return (trainer.max_steps - trainer.global_step) * per_step - done % per_step


# ---- ranks, loaders, callbacks


def every_rank(trainer: Trainer, payload: T, group: Any = None) -> list[T]:  # noqa: ANN401
    """Give every rank, or those of a process ``group``, the payload of all of them, in order: small, on the host.

    Collective: every rank must call it, whatever it has seen. Objects rather than one packed tensor, so that ranks
    may have seen different things (a site that only some batches reach, a rank without any example).
    """
    if trainer.world_size == 1 or not (distributed.is_available() and distributed.is_initialized()):
        return [payload]
    gathered: list[Any] = [None] * distributed.get_world_size(group)
    distributed.all_gather_object(gathered, payload, group)
    return gathered


def loader_at(loaders: Any, index: int = 0) -> Any:  # noqa: ANN401
    """Pick the evaluation loader with this ``dataloader_idx`` from what ``trainer.val_dataloaders`` holds, or None."""
    return next(itertools.islice(_flat(loaders), index, None), None)


def _flat(loaders: Any) -> Iterator[Any]:  # noqa: ANN401
    """The loaders in dictionaries and lists of them, to any depth, in the order in which Lightning numbers them."""
    if isinstance(loaders, (dict, list, tuple)):
        for part in loaders.values() if isinstance(loaders, dict) else loaders:
            yield from _flat(part)
    else:
        yield loaders


def joins_validation_loaders(trainer: Trainer) -> bool:
    """Whether each validation batch holds one of every loader, as under ``CombinedLoader(..., mode="max_size")``."""
    loop = trainer.validate_loop if trainer.state.fn == "validate" else trainer.fit_loop.epoch_loop.val_loop
    in_turn = getattr(loop, "_is_sequential", None)
    if in_turn is None:
        warn_renamed("_is_sequential", "validation loaders are taken to run one after the other")
    return in_turn is False


def require_only_one(trainer: Trainer, kind: type[Callback]) -> None:
    """Raise `MisconfigurationException` for two callbacks of a kind whose instances would log the same keys."""
    callbacks = trainer.callbacks  # type: ignore[attr-defined] # set by a connector
    if sum(isinstance(callback, kind) for callback in callbacks) > 1:
        raise MisconfigurationException(f"Use one `{kind.__name__}` per trainer: two would log the same keys.")


# ---- one evaluation step outside of the evaluation loop


def to_device(trainer: Trainer, pl_module: LightningModule, batch: Any, loader_idx: int = 0) -> Any:  # noqa: ANN401
    """Prepare a batch as the validation loop does: precision, the module's or datamodule's transfer hooks, device."""
    batch = trainer.precision_plugin.convert_input(batch)
    # The private method chooses between the module's hook and the datamodule's; the public one is the module's.
    before = getattr(pl_module, "_on_before_batch_transfer", None)
    if before is None:
        warn_renamed("_on_before_batch_transfer", "the datamodule's own `on_before_batch_transfer` is not called")
        before = pl_module.on_before_batch_transfer
    return trainer.strategy.batch_to_device(before(batch, loader_idx), dataloader_idx=loader_idx)


def validation_step(
    trainer: Trainer,
    pl_module: LightningModule,
    batch: Any,  # noqa: ANN401
    batch_idx: int,
    loader_idx: int = 0,
) -> Any:  # noqa: ANN401
    """Run the module's ``validation_step`` at the trainer's precision and return what it returns."""
    step = pl_module.validation_step
    extra = [batch_idx] if is_param_in_hook_signature(step, "batch_idx", min_args=2) else []  # as Lightning decides it
    if "dataloader_idx" in inspect.signature(step).parameters:
        extra.append(loader_idx)
    if not isinstance(trainer.strategy.model, DistributedDataParallel):
        return trainer.strategy.validation_step(batch, *extra)
    # A DDP wrapper's forward broadcasts buffers: ranks with unequal numbers of batches would wait for each other for
    # ever. The validation just run has made the buffers equal.
    with trainer.precision_plugin.val_step_context():
        return step(batch, *extra)


def share_buffers(trainer: Trainer, copies: Iterable[tuple[torch.Tensor, torch.Tensor]]) -> None:
    """Give copies of buffers the values that a DDP wrapper gives the buffers themselves at its next forward."""
    model = trainer.strategy.model
    if isinstance(model, DistributedDataParallel) and model.will_sync_module_buffers():
        buffers = {id(buffer) for buffer in trainer.lightning_module.buffers()}
        for buffer, copy in copies:
            if id(buffer) in buffers:
                distributed.broadcast(copy, 0, model.process_group)


def training_loss(trainer: Trainer, pl_module: LightningModule, batch: Any, batch_idx: int) -> torch.Tensor:  # noqa: ANN401
    """Run the module's ``training_step`` at the trainer's precision, past a DDP wrapper, and return its loss."""
    step = pl_module.training_step
    extra = [batch_idx] if is_param_in_hook_signature(step, "batch_idx", min_args=2) else []  # as Lightning decides it
    with trainer.precision_plugin.train_step_context():
        output: Any = step(batch, *extra)
    return output["loss"] if isinstance(output, Mapping) else output


def is_of_an_epoch(trainer: Trainer, key: str) -> bool:
    """Whether the training metric in ``callback_metrics`` is over the epoch; else it is the last step's."""
    results = getattr(trainer, "_results", None)  # no public property tells them apart
    if results is None:
        warn_renamed("_results", "a running value may be that of the last step")
        return True
    return all(result.meta.on_epoch for result in results.values() if result.meta.name == key)


# ---- what the user is told


def log_scalars(trainer: Trainer, pl_module: LightningModule, values: Mapping[str, float]) -> None:
    """Log values that are the same on every rank, all of them numbers. All ranks must call."""
    # Equal values keep all their bits under a maximum, not under a mean; without sync Lightning warns on many ranks.
    # By Lightning's own method: the module's may take other arguments, or change the keys.
    log = next(kind.log for kind in type(pl_module).__mro__ if kind in LIGHTNING_MODULES)
    sync = trainer.world_size > 1
    for key, value in values.items():
        log(pl_module, key, value, on_step=False, on_epoch=True, reduce_fx=torch.max, sync_dist=sync, batch_size=1)


def warn_once(said: set[str], topic: str, message: str) -> None:
    """Warn on the first rank, unless ``said`` holds the topic already."""
    if topic not in said:
        said.add(topic)
        rank_zero_warn(message)
