"""How the weights, their gradients and their updates look, after every epoch."""

from __future__ import annotations

import math
from collections import deque
from collections.abc import Iterable, Mapping, Sequence
from fnmatch import fnmatchcase
from typing import Any

import torch
from torch import Tensor, nn
from torch.optim import Optimizer
from typing_extensions import override

from training_health import lightning as pl
from training_health.sinks import log_scalars, warn_without_tensorboard, write_histograms, write_metrics, write_records
from training_health.tensor_statistics import TensorStatistics, packed_statistics, relative_change, unpack


class WeightHistogramMonitor(pl.Callback):
    r"""Draw every parameter and its gradient, and measure how far the optimiser moves it.

    It answers: does every layer learn, at a sensible pace, with finite numbers? At the end of an epoch it logs

    =====================================  ==========================================================  =============
    key                                    meaning                                                     range
    =====================================  ==========================================================  =============
    ``update_ratio/<parameter>``           :math:`\|\Delta W\| / \|W\|` of the last step that its       0 or more
                                           optimiser makes in the epoch; about 1e-3 is healthy
    ``nonfinite/<parameter>``              NaN and infinite elements of the weights, where there       elements
                                           are any
    ``nonfinite_gradients/<parameter>``    the same of the gradient                                    elements
    ``weights/<parameter>``                histogram of the finite weights
    ``gradients/<parameter>``              histogram of the gradient in the same step, as the
                                           optimiser is about to use it: averaged over ranks,
                                           unscaled, not yet clipped
    =====================================  ==========================================================  =============

    The update ratio and its healthy value follow the CS231n notes, "Neural Networks Part 3", ratio of weights to
    updates. It is 0 for a parameter that requires a gradient and was not moved, because it gets none or is in no
    optimiser; it is left out for one frozen on purpose and where the norm is 0. The records hold ratios, counts and the
    root mean square of each gradient's finite elements, one vector over all parameters each. Histograms go where the
    records do, and to W&B. Every number under a key is in ``trainer.callback_metrics``.

    Several optimisers, or one that does not step in every batch: which step is its last in an epoch is foreseen from
    how far apart its steps are and from the epoch before. An optimiser whose last step came as a surprise, or that made
    none, has no gradients and no update ratio in that epoch; a warning says so once.

    Cost: nothing in training steps but a few comparisons; in the one that may be the last, and in the first of all, a
    copy of the weights and, on a CPU, of the gradients, elsewhere the gradients' buckets, computed on the device and
    not waited for; at the end of the epoch the buckets, on a CPU about 0.1 s for 20 million elements, and one transfer.
    Parameters must be whole on every rank, as under DDP; sharded ones would show a rank's own part.

    Args:
        parameters: Which parameters, as a shell pattern or several over their qualified names.
        every_n_epochs: Measure every so many epochs.
        bins: Buckets per histogram.
        event_file: Without a `TensorBoardLogger`, write the records to an event file in the run's folder. False on any
            monitor turns it off for the run.

    Raises:
        pl.MisconfigurationException: For numbers below 1, patterns that match nothing, or two of these in one trainer.

    Example::

        >>> from pytorch_lightning import Trainer
        >>> from pytorch_lightning.demos.boring_classes import BoringModel
        >>> quiet = {f"enable_{part}": False for part in ("checkpointing", "progress_bar", "model_summary")}
        >>> callbacks = [WeightHistogramMonitor()]
        >>> trainer = Trainer(max_epochs=1, accelerator="cpu", callbacks=callbacks, logger=False, **quiet)
        >>> trainer.fit(BoringModel())
        >>> [key for key in sorted(trainer.callback_metrics) if "/" in key]
        ['update_ratio/layer.bias', 'update_ratio/layer.weight']
    """

    def __init__(
        self,
        parameters: str | Sequence[str] = "*",
        every_n_epochs: int = 1,
        bins: int = 64,
        event_file: bool = True,
    ) -> None:
        if every_n_epochs < 1 or bins < 1:
            raise pl.MisconfigurationException(
                f"`every_n_epochs` and `bins` must be at least 1, not {every_n_epochs!r} and {bins!r}."
            )
        self.parameters = [parameters] if isinstance(parameters, str) else list(parameters)
        self.every_n_epochs, self.bins, self.event_file = every_n_epochs, bins, event_file
        self._start_again()

    def _start_again(self) -> None:
        self._steps: dict[Optimizer, _Steps] = {}
        self._copies: dict[str, Tensor] = {}  # their memory, kept: allocated each epoch it splits larger free blocks
        self._said: set[str] = set()

    @override
    def setup(self, trainer: pl.Trainer, pl_module: pl.LightningModule, stage: str) -> None:
        pl.require_only_one(trainer, WeightHistogramMonitor)
        if stage == "fit":
            self._start_again()
            warn_without_tensorboard(trainer)

    @override
    def on_fit_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        named = [name for name, _ in pl_module.named_parameters()]
        if named and not any(map(self._is_chosen, named)):
            raise pl.MisconfigurationException(
                f"`WeightHistogramMonitor(parameters={self.parameters!r})` matches no parameter. "
                f"There are: {', '.join(named[:20])}{', ...' if len(named) > 20 else ''}."
            )

    @override
    def on_before_optimizer_step(
        self, trainer: pl.Trainer, pl_module: pl.LightningModule, optimizer: Optimizer
    ) -> None:
        # Gradients do not live until the end of the epoch: Lightning frees them before validation.
        steps = self._steps.setdefault(optimizer, _Steps())
        at = trainer.fit_loop.epoch_loop.batch_idx, trainer.global_step
        end = trainer.num_training_batches, math.inf if trainer.max_steps == -1 else trainer.max_steps
        may_be_last = steps.may_be_last(at, end) or pl.is_epochs_last_batch(trainer)
        if not may_be_last or not self._measures(trainer):
            return
        stepping, optimised = _parameters_of([optimizer]), _parameters_of(trainer.optimizers)
        for name, parameter in self._chosen(pl_module).items():
            # Without a gradient, or in no optimiser, it does not move: that is to be seen. One that another optimiser
            # moves is measured in that optimiser's step.
            shown = parameter.requires_grad and (parameter in stepping or parameter not in optimised)
            if shown and name not in steps.before:
                steps.before[name] = self._copy(name, parameter.detach())
            if parameter in stepping and (gradient := parameter.grad) is not None:
                dense = gradient.detach() if gradient.layout == torch.strided else gradient.to_dense()
                steps.gradients[name] = (
                    self._copy(f"gradients/{name}", dense) if dense.is_cpu else packed_statistics(dense, self.bins)
                )

    @override
    def on_train_batch_end(
        self,
        trainer: pl.Trainer,
        pl_module: pl.LightningModule,
        outputs: Any,
        batch: Any,
        batch_idx: int,
    ) -> None:
        # Not at the epoch's end: until then validation, or another callback, may change weights.
        self._measure_changes(pl_module)

    @override
    def on_train_epoch_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        write_metrics(trainer)
        self._measure_changes(pl_module)  # of a step that was made after the batch
        chosen = self._chosen(pl_module)
        measured = self._measures(trainer) and bool(chosen)
        if measured:
            self._warn_of_missed(trainer, set(chosen.values()))
        after = {name: parameter.detach() for name, parameter in chosen.items()}
        moved = {name: change for steps in self._steps.values() for name, change in steps.moved.items()}
        of_last_step = {name: values for steps in self._steps.values() for name, values in steps.gradients.items()}
        for steps in self._steps.values():
            steps.end_epoch()
        if not measured:
            return
        packed = {name: row for name, values in after.items() if (row := self._packed(name, values)) is not None}
        packed_gradients = {
            name: packed_statistics(values, self.bins) if values.is_cpu else values
            for name, values in of_last_step.items()
        }
        ratios, *rows = _fetched({name: ratio.reshape(1) for name, ratio in moved.items()}, packed, packed_gradients)
        weights, gradients = ({name: unpack(row, self.bins) for name, row in found.items()} for found in rows)
        # 0 / 0 is NaN; anything over 0 is not a ratio either.
        known = {name: ratio if math.isfinite(ratio) else math.nan for name, (ratio,) in ratios.items()}
        self._publish(trainer, pl_module, known, weights, gradients)

    @override
    def on_exception(self, trainer: pl.Trainer, pl_module: pl.LightningModule, exception: BaseException) -> None:
        self._start_again()

    @override
    def teardown(self, trainer: pl.Trainer, pl_module: pl.LightningModule, stage: str) -> None:
        self._start_again()

    def _measure_changes(self, pl_module: pl.LightningModule) -> None:
        for steps in self._steps.values():
            if steps.before and not steps.moved:
                after = {name: p.detach() for name, p in self._chosen(pl_module).items() if name in steps.before}
                same = [name for name, values in after.items() if values.shape == steps.before[name].shape]
                steps.moved = {name: relative_change(steps.before[name], after[name]) for name in same}

    def _is_chosen(self, name: str) -> bool:
        return any(fnmatchcase(name, pattern) for pattern in self.parameters)

    def _chosen(self, pl_module: pl.LightningModule) -> dict[str, nn.Parameter]:
        """The chosen parameters as they are now: a lazy one has values from its first batch on."""
        named = pl_module.named_parameters()
        return {name: p for name, p in named if self._is_chosen(name) and not nn.parameter.is_lazy(p)}

    def _warn_of_missed(self, trainer: pl.Trainer, chosen: set[Tensor]) -> None:
        for index, optimizer in enumerate(trainer.optimizers):
            steps = self._steps.get(optimizer, _Steps())
            if steps.before or not any(p.requires_grad for p in _parameters_of([optimizer]) & chosen):
                continue
            what = "made its last step earlier than foreseen" if steps.at else "made no step that Lightning knows of"
            pl.warn_once(
                self._said,
                f"{index} {what}",
                f"Optimiser {index} ({type(optimizer).__name__}) {what} in epoch {trainer.current_epoch}: "
                "`WeightHistogramMonitor` has no gradients and no update ratio of its parameters for such an epoch.",
            )

    def _packed(self, name: str, values: Tensor) -> Tensor | None:
        try:
            return packed_statistics(values, self.bins)
        except Exception as error:  # a tensor of a kind that lacks an operation must not end the run
            reason = str(error).split("\n", 1)[0]
            pl.warn_once(self._said, name, f"`WeightHistogramMonitor` has no histogram of {name}: {reason}")
            return None

    def _copy(self, name: str, values: Tensor) -> Tensor:
        copy = self._copies.get(name)
        if copy is None or copy.shape != values.shape or copy.dtype != values.dtype or copy.device != values.device:
            copy = self._copies[name] = torch.empty_like(values)
        return copy.copy_(values)

    def _measures(self, trainer: pl.Trainer) -> bool:
        return (trainer.current_epoch + 1) % self.every_n_epochs == 0

    def _publish(
        self,
        trainer: pl.Trainer,
        pl_module: pl.LightningModule,
        ratios: dict[str, float],
        weights: dict[str, TensorStatistics],
        gradients: dict[str, TensorStatistics],
    ) -> None:
        bad_weights = {name: row.nonfinite for name, row in weights.items()}
        bad_gradients = {name: row.nonfinite for name, row in gradients.items()}
        scalars = {f"update_ratio/{name}": ratio for name, ratio in ratios.items()}
        scalars |= {f"nonfinite/{name}": count for name, count in bad_weights.items() if count}
        scalars |= {f"nonfinite_gradients/{name}": count for name, count in bad_gradients.items() if count}
        log_scalars(trainer, pl_module, {}, scalars)
        histograms = {f"weights/{name}": row for name, row in weights.items()}
        histograms |= {f"gradients/{name}": row for name, row in gradients.items()}
        write_histograms(trainer, histograms)
        scales = {name: math.sqrt(row.squares / row.finite) for name, row in gradients.items() if row.finite}
        vectors: dict[str, Mapping[str, float]] = {
            "update_ratio": ratios,
            "nonfinite": bad_weights,
            "nonfinite_gradients": bad_gradients,
            "gradient_scale": scales,
        }
        content = {"parameters": list(weights)}
        records = [
            (key, key, [1, *(values.get(name, math.nan) for name in weights)], content)
            for key, values in vectors.items()
        ]
        write_records(trainer, records)


def _fetched(*groups: dict[str, Tensor]) -> list[dict[str, list[float]]]:
    """Everything from the device in one transfer."""
    parts = [part for group in groups for part in group.values()]
    fetched = iter(torch.cat([part.to(parts[0]) for part in parts]).cpu().split([len(part) for part in parts]))
    return [{name: next(fetched).tolist() for name in group} for group in groups]


class _Steps:
    """When one optimiser steps, and what was measured in a step that may be its last of the epoch."""

    def __init__(self) -> None:
        self.at: tuple[int, int] | None = None  # this epoch's latest step: its batch, and the fit's steps before it
        self.before: dict[str, Tensor] = {}  # the weights before that step; empty where it was not measured
        self.gradients: dict[str, Tensor] = {}  # copies on a CPU, packed statistics on other devices
        self.moved: dict[str, Tensor] = {}  # relative changes in that step
        self._gaps: deque[tuple[int, int]] = deque(maxlen=8)  # from step to step, in batches and in the fit's steps
        self._last_batch = 0  # where the epoch before had its last step

    def may_be_last(self, at: tuple[int, int], end: tuple[float, float]) -> bool:
        """Note a step; tell whether none may follow before the ``end``, or it is where the epoch before had its last.

        Of the first epoch that is the very first step. Called again for the same step, as LBFGS does, nothing changes.
        """
        if at == self.at:
            return bool(self.before or self.gradients)
        at_last_batch = at[0] >= self._last_batch and (self.at is None or self.at[0] < self._last_batch)
        if self.at is not None:
            self._gaps.append((at[0] - self.at[0], at[1] - self.at[1]))
        self.at = at
        self.before.clear()
        self.gradients.clear()
        self.moved.clear()
        longest = map(max, zip(*self._gaps, strict=True))
        return at_last_batch or any(now + gap >= last for now, gap, last in zip(at, longest, end, strict=False))

    def end_epoch(self) -> None:
        """Forget the epoch's steps but for where the last one was."""
        self._last_batch = self._last_batch if self.at is None else self.at[0]
        self.at, self.before, self.gradients, self.moved = None, {}, {}, {}


def _parameters_of(optimizers: Iterable[Optimizer]) -> set[Tensor]:
    return {parameter for optimizer in optimizers for group in optimizer.param_groups for parameter in group["params"]}
