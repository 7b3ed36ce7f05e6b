"""How the weights, their gradients and their updates look, after every epoch."""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from fnmatch import fnmatchcase
from typing import Any

import pytorch_lightning as pl
import torch
from pytorch_lightning.callbacks import Callback
from pytorch_lightning.utilities import rank_zero_warn
from pytorch_lightning.utilities.exceptions import MisconfigurationException
from torch import Tensor, nn
from torch.optim import Optimizer
from typing_extensions import override

from training_health.epoch_clock import epoch_end_step, is_epochs_last_batch
from training_health.scalars import log_scalars
from training_health.sinks import tensorboard_writers, write_records
from training_health.tensor_statistics import TensorStatistics, packed_statistics, unpack
from training_health.training_sample.evaluation import require_only_one


class WeightHistogramMonitor(Callback):
    r"""Draw every parameter and its gradient, and measure how far the optimiser moves it.

    At the end of an epoch:

    * histograms ``weights/<parameter>``, and ``gradients/<parameter>`` of the epoch's last optimiser step, as the
      optimiser is about to use it: averaged over ranks, unscaled, not yet clipped;
    * ``update_ratio/<parameter>``: :math:`\|\Delta W\| / \|W\|` of that step (about 1e-3 is healthy; CS231n notes,
      "Neural Networks Part 3", ratio of weights to updates). 0 for a parameter that requires a gradient and was not
      moved, be it that it gets none or is in no optimiser; left out for one frozen on purpose and where the norm is 0;
    * ``nonfinite/<parameter>``: NaN and infinite elements of the weights; ``nonfinite_gradients/<parameter>`` of the
      gradient, only where there are any. The histogram then shows the finite elements.

    The ratios and counts go to TensorBoard as tensor summaries too, one vector over all parameters each.

    Cost: nothing in training steps but a comparison; in the epoch's last one a copy of the weights and the gradients'
    buckets, computed on the device and not waited for; at the end of the epoch the weights' buckets and one transfer.
    Parameters must be whole on every rank, as under DDP; sharded ones would show a rank's own part.

    Args:
        parameters: Which parameters, as a shell pattern or several over their qualified names.
        every_n_epochs: Measure every so many epochs.
        bins: Buckets per histogram.

    Raises:
        MisconfigurationException: For numbers below 1, patterns that match nothing, or two of these in one trainer.
    """

    def __init__(self, parameters: str | Sequence[str] = "*", every_n_epochs: int = 1, bins: int = 64) -> None:
        if every_n_epochs < 1 or bins < 1:
            raise MisconfigurationException(
                f"`every_n_epochs` and `bins` must be at least 1, not {every_n_epochs!r} and {bins!r}."
            )
        self.parameters = [parameters] if isinstance(parameters, str) else list(parameters)
        self.every_n_epochs, self.bins = every_n_epochs, bins
        self._names: dict[nn.Parameter, str] = {}
        self._before: dict[str, Tensor] = {}  # weights before the last step
        self._copies: dict[str, Tensor] = {}  # their memory, kept: anew each epoch it splits larger free blocks
        self._gradients: dict[str, Tensor] = {}  # packed statistics
        self._said_missed = False

    @override
    def setup(self, trainer: pl.Trainer, pl_module: pl.LightningModule, stage: str) -> None:
        require_only_one(trainer, WeightHistogramMonitor)

    @override
    def on_fit_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        named = dict(pl_module.named_parameters())
        chosen = [name for name in named if any(fnmatchcase(name, pattern) for pattern in self.parameters)]
        if named and not chosen:
            raise MisconfigurationException(
                f"`WeightHistogramMonitor(parameters={self.parameters!r})` matches no parameter. "
                f"There are: {', '.join(list(named)[:20])}{', ...' if len(named) > 20 else ''}."
            )
        self._names = {named[name]: name for name in chosen if not nn.parameter.is_lazy(named[name])}

    @override
    def on_before_optimizer_step(
        self, trainer: pl.Trainer, pl_module: pl.LightningModule, optimizer: Optimizer
    ) -> None:
        # Gradients do not live until the end of the epoch: Lightning frees them before validation.
        if not is_epochs_last_batch(trainer) or not self._measures(trainer):
            return
        stepping, optimised = _parameters_of([optimizer]), _parameters_of(trainer.optimizers)
        for parameter, name in self._names.items():
            # Without a gradient, or in no optimiser, it does not move: that is to be seen. What another optimiser
            # moves is its to say.
            shown = parameter.requires_grad and (parameter in stepping or parameter not in optimised)
            if shown and name not in self._before:
                self._before[name] = self._copy(name, parameter.detach())
            if parameter in stepping and parameter.grad is not None:
                self._gradients[name] = packed_statistics(parameter.grad, self.bins)

    @override
    def on_train_epoch_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        if not self._measures(trainer) or not self._names:
            return
        if not self._gradients and not self._said_missed:
            self._said_missed = True
            rank_zero_warn(
                "`WeightHistogramMonitor` saw no optimiser step in the epoch's last batch: this epoch has no "
                "gradients and no update ratio."
            )
        weights, gradients, ratios = self._fetch()
        self._before.clear()
        self._gradients.clear()
        scalars = {f"update_ratio/{name}": ratio for name, ratio in ratios.items()}
        scalars |= {f"nonfinite/{name}": row.nonfinite for name, row in weights.items()}
        scalars |= {f"nonfinite_gradients/{name}": row.nonfinite for name, row in gradients.items() if row.nonfinite}
        log_scalars(trainer, pl_module, scalars)
        self._write(trainer, weights, gradients, ratios)

    @override
    def on_exception(self, trainer: pl.Trainer, pl_module: pl.LightningModule, exception: BaseException) -> None:
        self._forget()

    @override
    def teardown(self, trainer: pl.Trainer, pl_module: pl.LightningModule, stage: str) -> None:
        self._forget()

    def _copy(self, name: str, values: Tensor) -> Tensor:
        copy = self._copies.get(name)
        if copy is None or copy.shape != values.shape or copy.dtype != values.dtype or copy.device != values.device:
            copy = self._copies[name] = torch.empty_like(values)
        return copy.copy_(values)

    def _forget(self) -> None:
        self._names.clear()
        self._copies.clear()
        self._before.clear()
        self._gradients.clear()

    def _measures(self, trainer: pl.Trainer) -> bool:
        return (trainer.current_epoch + 1) % self.every_n_epochs == 0

    def _fetch(self) -> tuple[dict[str, TensorStatistics], dict[str, TensorStatistics], dict[str, float]]:
        """Everything from the device in one transfer: weights, gradients, update ratios."""
        weights = {name: packed_statistics(parameter, self.bins) for parameter, name in self._names.items()}
        ratios = {
            name: _norm(parameter.detach() - self._before[name]) / _norm(self._before[name])
            for parameter, name in self._names.items()
            if name in self._before
        }
        parts = [*weights.values(), *self._gradients.values(), *(ratio.reshape(1) for ratio in ratios.values())]
        flat = torch.cat([part.to(parts[0]) for part in parts]).tolist()
        rows = _chunks(flat, 6 + 2 * self.bins)
        unpacked = [unpack(next(rows), self.bins) for _ in range(len(weights) + len(self._gradients))]
        last = flat[len(flat) - len(ratios) :]
        # 0 / 0 is NaN; anything over 0 is not a ratio either.
        known = {name: value if math.isfinite(value) else math.nan for name, value in zip(ratios, last, strict=True)}
        return (
            dict(zip(weights, unpacked, strict=False)),
            dict(zip(self._gradients, unpacked[len(weights) :], strict=True)),
            known,
        )

    def _write(
        self,
        trainer: pl.Trainer,
        weights: dict[str, TensorStatistics],
        gradients: dict[str, TensorStatistics],
        ratios: dict[str, float],
    ) -> None:
        step, names = epoch_end_step(trainer), list(weights)
        for writer in tensorboard_writers(trainer):
            for prefix, rows in (("weights", weights), ("gradients", gradients)):
                for name, row in rows.items():
                    if row.finite:
                        _add_histogram(writer, f"{prefix}/{name}", row, step)

        def vector(values: Iterable[float]) -> list[float]:
            return [1, *values]

        content = {"parameters": names}
        bad_gradients = [gradients[name].nonfinite if name in gradients else math.nan for name in names]
        write_records(
            trainer,
            [
                ("update_ratio", "update_ratio", vector(ratios.get(name, math.nan) for name in names), content),
                ("nonfinite", "nonfinite", vector(row.nonfinite for row in weights.values()), content),
                ("nonfinite_gradients", "nonfinite_gradients", vector(bad_gradients), content),
            ],
            step,
        )


def _norm(tensor: Tensor) -> Tensor:
    return torch.linalg.vector_norm(tensor, dtype=torch.float32 if tensor.device.type == "mps" else torch.float64)


def _chunks(flat: list[float], size: int) -> Any:  # noqa: ANN401
    return (flat[start : start + size] for start in range(0, len(flat), size))


def _add_histogram(writer: Any, tag: str, row: TensorStatistics, step: int) -> None:  # noqa: ANN401
    writer.add_histogram_raw(
        tag, row.minimum, row.maximum, row.finite, row.total, row.squares, row.limits, row.counts, global_step=step
    )


def _parameters_of(optimizers: Iterable[Optimizer]) -> set[Tensor]:
    return {parameter for optimizer in optimizers for group in optimizer.param_groups for parameter in group["params"]}
