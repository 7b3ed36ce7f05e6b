"""How the weights, their gradients and their updates look, after every epoch."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from fnmatch import fnmatchcase

import torch
from torch import Tensor, nn
from torch.optim import Optimizer
from typing_extensions import override

from training_health import lightning as pl
from training_health.sinks import log_scalars, warn_without_tensorboard, write_histograms, write_metrics, write_records
from training_health.tensor_statistics import TensorStatistics, exact_dtype, packed_statistics, unpack


class WeightHistogramMonitor(pl.Callback):
    r"""Draw every parameter and its gradient, and measure how far the optimiser moves it.

    It answers: does every layer learn, at a sensible pace, with finite numbers? At the end of an epoch it logs

    =====================================  ==========================================================  =============
    key                                    meaning                                                     range
    =====================================  ==========================================================  =============
    ``update_ratio/<parameter>``           :math:`\|\Delta W\| / \|W\|` of the epoch's last            0 or more
                                           optimiser step; about 1e-3 is healthy
    ``nonfinite/<parameter>``              NaN and infinite elements of the weights                    elements
    ``nonfinite_gradients/<parameter>``    the same of the gradient, only where there are any          elements
    ``weights/<parameter>``                histogram of the finite weights
    ``gradients/<parameter>``              histogram of the gradient in the epoch's last optimiser
                                           step, as the optimiser is about to use it: averaged over
                                           ranks, unscaled, not yet clipped
    =====================================  ==========================================================  =============

    The update ratio and its healthy value follow the CS231n notes, "Neural Networks Part 3", ratio of weights to
    updates. It is 0 for a parameter that requires a gradient and was not moved, because it gets none or is in no
    optimiser; it is left out for one frozen on purpose and where the norm is 0. The records hold ratios and counts, one
    vector over all parameters each. Histograms go where the records do, and to W&B.

    Cost: nothing in training steps but a comparison; in the epoch's last one a copy of the weights and the gradients'
    buckets, computed on the device and not waited for; at the end of the epoch the weights' buckets and one transfer.
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
        >>> [key for key in sorted(trainer.callback_metrics) if "/" in key][:3]
        ['nonfinite/layer.bias', 'nonfinite/layer.weight', 'update_ratio/layer.bias']
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
        self._names: dict[nn.Parameter, str] = {}
        self._before: dict[str, Tensor] = {}  # weights before the last step
        self._copies: dict[str, Tensor] = {}  # their memory, kept: allocated each epoch it splits larger free blocks
        self._gradients: dict[str, Tensor] = {}  # packed statistics
        self._said: set[str] = set()

    @override
    def setup(self, trainer: pl.Trainer, pl_module: pl.LightningModule, stage: str) -> None:
        pl.require_only_one(trainer, WeightHistogramMonitor)
        if stage == "fit":
            self._start_again()
            warn_without_tensorboard(trainer)

    @override
    def on_fit_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        named = dict(pl_module.named_parameters())
        chosen = [name for name in named if any(fnmatchcase(name, pattern) for pattern in self.parameters)]
        if named and not chosen:
            raise pl.MisconfigurationException(
                f"`WeightHistogramMonitor(parameters={self.parameters!r})` matches no parameter. "
                f"There are: {', '.join(list(named)[:20])}{', ...' if len(named) > 20 else ''}."
            )
        self._names = {named[name]: name for name in chosen if not nn.parameter.is_lazy(named[name])}

    @override
    def on_before_optimizer_step(
        self, trainer: pl.Trainer, pl_module: pl.LightningModule, optimizer: Optimizer
    ) -> None:
        # Gradients do not live until the end of the epoch: Lightning frees them before validation.
        if not pl.is_epochs_last_batch(trainer) or not self._measures(trainer):
            return
        stepping, optimised = _parameters_of([optimizer]), _parameters_of(trainer.optimizers)
        for parameter, name in self._names.items():
            # Without a gradient, or in no optimiser, it does not move: that is to be seen. One that another optimiser
            # moves is measured in that optimiser's step.
            shown = parameter.requires_grad and (parameter in stepping or parameter not in optimised)
            if shown and name not in self._before:
                self._before[name] = self._copy(name, parameter.detach())
            if parameter in stepping and parameter.grad is not None:
                self._gradients[name] = packed_statistics(parameter.grad, self.bins)

    @override
    def on_train_epoch_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        write_metrics(trainer)
        if not self._measures(trainer) or not self._names:
            return
        if not self._gradients:
            message = "no optimiser step in the epoch's last batch: this epoch has no gradients and no update ratio."
            pl.warn_once(self._said, "missed", f"`WeightHistogramMonitor` saw {message}")
        after = {name: parameter.detach() for parameter, name in self._names.items()}
        packed = {name: packed_statistics(values, self.bins) for name, values in after.items()}
        moved = {name: _norm(after[name] - before) / _norm(before) for name, before in self._before.items()}
        ratios, *rows = _fetched({name: ratio.reshape(1) for name, ratio in moved.items()}, packed, self._gradients)
        weights, gradients = ({name: unpack(row, self.bins) for name, row in found.items()} for found in rows)
        # 0 / 0 is NaN; anything over 0 is not a ratio either.
        known = {name: ratio if math.isfinite(ratio) else math.nan for name, (ratio,) in ratios.items()}
        self._publish(trainer, pl_module, known, weights, gradients)
        self._before.clear()
        self._gradients.clear()

    @override
    def on_exception(self, trainer: pl.Trainer, pl_module: pl.LightningModule, exception: BaseException) -> None:
        self._start_again()

    @override
    def teardown(self, trainer: pl.Trainer, pl_module: pl.LightningModule, stage: str) -> None:
        self._start_again()

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
        scalars |= {f"nonfinite/{name}": count for name, count in bad_weights.items()}
        scalars |= {f"nonfinite_gradients/{name}": count for name, count in bad_gradients.items() if count}
        log_scalars(trainer, pl_module, scalars)
        histograms = {f"weights/{name}": row for name, row in weights.items()}
        histograms |= {f"gradients/{name}": row for name, row in gradients.items()}
        write_histograms(trainer, histograms)
        vectors: dict[str, Mapping[str, float]] = {
            "update_ratio": ratios, "nonfinite": bad_weights, "nonfinite_gradients": bad_gradients
        }  # fmt: skip
        for key, values in vectors.items():
            vector = [1, *(values.get(name, math.nan) for name in weights)]
            write_records(trainer, [(key, key, vector, {"parameters": list(weights)})])


def _fetched(*groups: dict[str, Tensor]) -> list[dict[str, list[float]]]:
    """Everything from the device in one transfer."""
    parts = [part for group in groups for part in group.values()]
    fetched = iter(torch.cat([part.to(parts[0]) for part in parts]).cpu().split([len(part) for part in parts]))
    return [{name: next(fetched).tolist() for name in group} for group in groups]


def _norm(tensor: Tensor) -> Tensor:
    return torch.linalg.vector_norm(tensor, dtype=exact_dtype(tensor))


def _parameters_of(optimizers: Iterable[Optimizer]) -> set[Tensor]:
    return {parameter for optimizer in optimizers for group in optimizer.param_groups for parameter in group["params"]}
