"""Run a module's validation in isolation: nothing it does outlives the evaluation."""

from __future__ import annotations

import copy
import inspect
import io
import math
import pickle
import threading
import types
import weakref
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager, suppress
from functools import cache
from operator import attrgetter
from typing import Any

import torch
from torch import Tensor, nn
from torch.optim.optimizer import register_optimizer_step_pre_hook
from torchmetrics import Metric

from training_health import lightning as pl
from training_health.batches import BatchSize
from training_health.random_generators import generators_in
from training_health.tensor_copies import are_equal, copied, load_tensors
from training_health.torch_private import ForcedEager, inner_schedulers

# What the copies share with the originals: what holds no state of the module's own, or is guarded apart.
_SHARED = (
    nn.Parameter, type, types.FunctionType, types.ModuleType, weakref.ref, inspect.Signature,
)  # fmt: skip
_PROXIES = (weakref.ProxyType, weakref.CallableProxyType)
_SHARED_PACKAGES = (
    "lightning.", "pytorch_lightning.", "lightning_fabric.", "torch.utils.data.", "torch.optim.", "torch.distributed.",
    "torch._dynamo.", "training_health.",
)  # fmt: skip
_PLAIN = {int, float, bool, str, type(None), list, dict, tuple}  # to be quick
_MODULES_OWN = vars(nn.Module()).keys()


class CannotCopyError(Exception):
    """Something in the module that cannot be copied; the message names it."""


class LoggedValues:
    """Stands in for a module's ``log``, or listens to it: keeps what is logged, batch by batch.

    Attributes:
        log: The method to pass everything on to; None to keep it from being logged.
    """

    def __init__(self) -> None:
        self.log: Callable[..., None] | None = None
        self.values: dict[str, list[tuple[Tensor, float]]] = {}  # per key: value and weight of each batch
        self.last: dict[str, Tensor] = {}  # what is logged outside of the steps
        self._ends: dict[str, tuple[Tensor, int]] = {}  # their sums, and of how many
        self.metrics: dict[str, Metric] = {}
        self.examples, self.batches = 0.0, 0
        self.begin_batch()
        self._in_step = False

    def begin_batch(self) -> None:
        """Announce a step."""
        self.batch_size: float | None = None  # as the running step gave it; NaN where it gave several
        self._running: dict[str, list[tuple[Tensor, int | None]]] = {}
        self._in_step = True

    def end_batch(self, size: BatchSize) -> None:
        """End a step: what it logged without a ``batch_size`` weighs as much as its examples, where these are known.

        Of what it logged more than once under a key, the mean counts, as it does in Lightning.
        """
        known = 1.0 if math.isnan(size.examples) else size.examples
        for name, parts in self._running.items():
            weights = [known if own is None else own for _, own in parts]
            value, weight = parts[0][0], sum(weights)
            if len(parts) > 1:
                value = value.float()  # where they may be on several devices
                shares = [part.to(value) * (w / (weight or 1)) for (part, _), w in zip(parts, weights, strict=True)]
                value = torch.stack(shares).sum()
            self.values.setdefault(name, []).append((value, weight))
        self.examples += size.counted
        self.batches += 1
        self._running, self._in_step = {}, False

    def __call__(self, name: str, value: Any, *args: Any, **kwargs: Any) -> None:  # noqa: ANN401
        """Stand in for ``LightningModule.log``."""
        size = kwargs.get("batch_size")
        if isinstance(value, Metric):
            self.metrics[name] = value
        elif isinstance(value, (Tensor, int, float)) and kwargs.get("reduce_fx", "mean") in ("mean", "avg", torch.mean):
            number = torch.as_tensor(value).detach()
            if number.numel() == 1 and self._in_step:
                self._running.setdefault(name, []).append((number.reshape(()), size))
            elif number.numel() == 1:
                total, times = self._ends.get(name, (number.new_zeros(()), 0))
                total = total + number.reshape(()).to(total.device)
                self._ends[name], self.last[name] = (total, times + 1), total / (times + 1)
        if size is not None and not isinstance(value, Metric):  # which weighs examples itself
            if self.batch_size in (None, 1, size):
                self.batch_size = size
            elif size != 1:  # which many say where it does not matter
                self.batch_size = math.nan
        if self.log is not None:
            self.log(name, value, *args, **kwargs)

    def keys(self) -> set[str]:
        """Give all keys that something is known of."""
        return {*self.values, *self.last, *self.metrics}

    def numbers(self) -> dict[str, list[tuple[float, float]]]:
        """Fetch value and weight of every batch, by key."""
        columns = {name: list(zip(*part, strict=True)) for name, part in self.values.items()}
        return {
            name: list(zip(torch.stack(values).cpu().double().tolist(), weights, strict=True))
            for name, (values, weights) in columns.items()
        }


class Copies:
    """Copies of the plain state of a module and its parts, whatever its type: all attributes, to any depth.

    Shared with the originals are parameters, the registered parts, functions, classes, the trainer with its loaders
    and callbacks, data sets and optimisers. Buffers are shared too, which `isolated` guards. Loggers go nowhere.

    Raises:
        CannotCopyError: For an open file, a lock, a generator and the like.
    """

    def __init__(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        parts = list(pl_module.modules())
        known = [*parts, *pl_module.buffers(), trainer, trainer.train_dataloader, trainer.val_dataloaders]
        self._known = {id(value): value for value in known if value is not None}
        states = [{name: value for name, value in vars(part).items() if name not in _MODULES_OWN} for part in parts]
        try:
            copies = self._copy(states)
        except Exception as error:
            raise CannotCopyError(f"{self._culprit(states)} cannot be copied: {error}") from error
        for state, part in zip(copies, parts, strict=True):
            # New tables of parameters, buffers, parts and hooks, with the same entries.
            state.update({name: copy.copy(value) for name, value in vars(part).items() if name in _MODULES_OWN})
        self.module = pl_module
        self.states: list[tuple[nn.Module, dict[str, Any]]] = list(zip(parts, copies, strict=True))

    def _copy(self, value: Any) -> Any:  # noqa: ANN401
        file = io.BytesIO()
        pickler = _Pickler(file, self._known)
        pickler.dump(value)
        file.seek(0)
        return _Unpickler(file, pickler.kept).load()

    def _culprit(self, states: list[dict[str, Any]]) -> str:
        for name, value in ((name, value) for state in states for name, value in state.items()):
            try:
                self._copy(value)
            except Exception:
                return f"the module's attribute {name!r}"
        return "the module's state"


class _Pickler(pickle.Pickler):
    """Pickles plain state; what is shared, and tensors, which are copied where they are, it hands on as they are."""

    def __init__(self, file: io.BytesIO, known: Mapping[int, Any]) -> None:
        super().__init__(file, pickle.HIGHEST_PROTOCOL)
        self.known = known
        self.kept: list[Any] = []
        self.seen: dict[int, tuple[int, Any]] = {}  # with the object, so that its id stays its own

    def persistent_id(self, value: Any) -> int | None:  # noqa: ANN401
        if type(value) in _PLAIN:
            return None
        if id(value) not in self.seen:
            if isinstance(value, pl.LOGGERS):
                copied = _SilentLogger(value)
            elif id(value) in self.known or _is_shared(value, self.known):
                copied = value
            elif isinstance(value, (Tensor, torch.Generator, Metric)):
                copied = _copy_of(value)
            else:
                return None
            self.seen[id(value)] = len(self.kept), value
            self.kept.append(copied)
        return self.seen[id(value)][0]


class _Unpickler(pickle.Unpickler):
    def __init__(self, file: io.BytesIO, kept: list[Any]) -> None:
        super().__init__(file)
        self.kept = kept

    def persistent_load(self, pid: int) -> Any:  # noqa: ANN401
        return self.kept[pid]


def _is_shared(value: Any, known: Mapping[int, Any]) -> bool:  # noqa: ANN401
    if isinstance(value, types.BuiltinFunctionType):  # not a method of a list that is copied, such as its ``append``
        owner = value.__self__
        return isinstance(owner, (types.ModuleType, type)) or getattr(owner, value.__name__, None) != value
    if isinstance(value, _SHARED) or type(value) in _PROXIES:
        return True
    if isinstance(value, types.MethodType):
        return id(value.__self__) in known
    return not isinstance(value, dict) and _is_of_a_package(type(value))  # type: ignore[arg-type]


@cache
def _is_of_a_package(kind: type) -> bool:
    return any(base.__module__.startswith(_SHARED_PACKAGES) for base in kind.__mro__)


def _copy_of(value: Tensor | torch.Generator | Metric) -> Any:  # noqa: ANN401
    if isinstance(value, Metric):  # not registered, or it would be shared
        metric = copy.deepcopy(value)
        metric.reset()
        return metric
    if isinstance(value, torch.Generator):
        generator = torch.Generator(value.device)
        generator.set_state(value.get_state())
        return generator
    tensor = value.detach().clone()
    return tensor.requires_grad_() if value.is_leaf and value.requires_grad and not tensor.is_inference() else tensor


class _SilentLogger(pl.DummyLogger):
    """Keeps nothing of what it is given, and is otherwise what another logger is: its kind, folders, name, version."""

    def __init__(self, logger: Any) -> None:  # noqa: ANN401
        super().__init__()
        self._logger = logger

    @property  # type: ignore[misc]
    def __class__(self) -> type:  # the trainer asks for it where it gives its ``log_dir``
        return type(self._logger)

    name, version, save_dir, root_dir, log_dir = (
        property(attrgetter(f"_logger.{part}")) for part in ("name", "version", "save_dir", "root_dir", "log_dir")
    )


@contextmanager
def isolated(
    trainer: pl.Trainer,
    copies: Copies,
    weights: Sequence[tuple[Tensor, Tensor]] = (),
    modes: Mapping[nn.Module, bool] | None = None,
) -> Iterator[LoggedValues]:
    """Let the module work on ``copies``: empty metrics, loggers and ``log`` that go nowhere.

    Put back at the end, whatever happened: the module's state, which nothing has touched meanwhile, and the content of
    parameters and buffers, schedulers, optimisers, the trainer's attributes and ``callback_metrics``, and the random
    generators of torch, CUDA, NumPy and Python, and those that loaders, their data sets, transforms and the module's
    code hold. Meanwhile ``torch.save`` and ``trainer.save_checkpoint`` save nothing. Not put back are other files, what
    else data sets keep, and what functions hold in their closures. Yields what the module logs.

    Args:
        trainer: The module's.
        copies: Of the module's state.
        weights: Of the module's `copied_tensors`, which save a copy where they are still up to date.
        modes: Which of its modules are in training mode; those that are not named are in eval mode.
    """
    logged = LoggedValues()
    with ExitStack() as stack:
        generators = pl.isolate_rng()
        generators.__enter__()
        stack.callback(generators.__exit__, None, None, None)  # as it stands it restores nothing after an exception
        fresh = bool(weights) and are_equal(weights)
        stack.callback(load_tensors, weights if fresh else copied_tensors(copies.module))
        kinds = {type(module) for module, _ in copies.states}  # whose code may draw from a global generator
        holders = (trainer.train_dataloader, trainer.val_dataloaders, *kinds)
        for get, put in generators_in(*holders, but=(trainer, copies.module)):
            with suppress(Exception):  # one that cannot be read draws from elsewhere
                stack.callback(put, get())
        loggers, stop = trainer.loggers, trainer.should_stop
        stack.callback(setattr, trainer, "loggers", loggers)
        stack.callback(setattr, trainer, "should_stop", stop)
        stack.enter_context(_saving_nothing())
        stack.enter_context(_optimizers_put_back())
        schedulers = [config.scheduler for config in trainer.lr_scheduler_configs]
        schedulers += [inner for outer in schedulers for inner in inner_schedulers(outer)]
        settings = [group for optimizer in trainer.optimizers for group in optimizer.param_groups]
        states = [vars(module) for module, _ in copies.states]
        for attributes in (*map(vars, schedulers), *settings, *states, trainer.callback_metrics, vars(trainer)):
            stack.callback(_put_back, attributes, dict(attributes))
        vars(trainer)["save_checkpoint"] = _save_nothing
        for module, state in copies.states:
            _put_back(vars(module), state)
        for module, _ in copies.states:  # after all are copies: a metric made of others resets these too
            if isinstance(module, Metric):
                module.reset()
            module.training = modes is not None and modes.get(module, False)
            if hasattr(module, "log_dict"):  # a LightningModule, or one within
                vars(module)["log"] = logged
        trainer.loggers = [_SilentLogger(logger) for logger in loggers]
        if "validation_step" in vars(copies.module) and ForcedEager.possible:  # a compiled one
            stack.enter_context(torch.compiler.set_stance("force_eager"))
        yield logged


def _save_nothing(*_args: object, **_options: object) -> None: ...


@contextmanager
def _saving_nothing() -> Iterator[None]:
    """A module that keeps its best weights itself would keep those that are best on training examples."""
    save, thread = torch.save, threading.get_ident()

    def save_elsewhere(*args: Any, **options: Any) -> None:  # noqa: ANN401
        if threading.get_ident() != thread:  # a checkpoint that is written in the background
            save(*args, **options)

    torch.save = save_elsewhere
    try:
        yield
    finally:
        torch.save = save


@contextmanager
def _optimizers_put_back() -> Iterator[None]:
    """Give optimisers that take a step meanwhile, in this thread, their state from before it.

    Old versions of torch (2.2 for one) call no hooks of steps once anything in the process was compiled.
    """
    kept: dict[int, tuple[torch.optim.Optimizer, Any]] = {}
    thread = threading.get_ident()

    def keep(optimizer: torch.optim.Optimizer, *_: object) -> None:
        if threading.get_ident() == thread and id(optimizer) not in kept:
            shared = {id(p): p for group in optimizer.param_groups for p in group["params"]}
            settings = [dict(group) for group in optimizer.param_groups]
            kept[id(optimizer)] = optimizer, (copy.deepcopy(dict(optimizer.state), shared), settings)

    handle = register_optimizer_step_pre_hook(keep)
    try:
        yield
    finally:
        handle.remove()
        for optimizer, (state, settings) in kept.values():
            _put_back(optimizer.state, state)
            for group, setting in zip(optimizer.param_groups, settings, strict=False):
                _put_back(group, setting)


def copied_tensors(module: nn.Module) -> list[tuple[Tensor, Tensor]]:
    """Copy a module's parameters and buffers: each with its copy, for `load_tensors`."""
    return copied((*module.parameters(), *module.buffers()))


def _put_back(attributes: dict[Any, Any], kept: dict[Any, Any]) -> None:
    for name in [name for name in attributes if name not in kept]:
        del attributes[name]
    attributes.update(kept)  # not cleared before: another thread may look
