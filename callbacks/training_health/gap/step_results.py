"""What a module's ``validation_step`` says about its examples, added up without waiting for the device."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor

from training_health.gap.statistics import NAN, Sums


class StepResults:
    """Adds up the per-example ``losses`` and ``correct`` of the mappings that ``validation_step`` returns."""

    def __init__(self) -> None:
        self.examples = 0
        self._sums: dict[str, Tensor] = {}
        self._known: dict[str, int] = {"losses": 0, "correct": 0}  # examples that came with each of them

    def add(self, outputs: Any, examples: int) -> None:  # noqa: ANN401
        """Add one batch, of which the first ``examples`` count."""
        self.examples += examples
        if not isinstance(outputs, Mapping):
            return
        for name, known in self._known.items():
            values = outputs.get(name)
            if not isinstance(values, Tensor) or values.dim() != 1 or len(values) < examples:
                continue
            # MPS has no float64.
            exact = torch.float32 if values.device.type == "mps" else torch.float64
            values = values.detach()[:examples].to(exact)
            self._known[name] = known + examples
            parts = torch.stack([values.sum(), values.square().sum()])
            if name in self._sums:
                self._sums[name] += parts  # in place: a new tensor per batch would wander into the holes of large ones
            else:
                self._sums[name] = parts

    def take(self) -> Sums:
        """Fetch the sums; NaN for what not every example came with."""
        complete = [name for name in self._sums if self._known[name] == self.examples]
        fetched = torch.stack([self._sums[name] for name in complete]).tolist() if complete else []
        sums = {"losses": (NAN, NAN), "correct": (NAN, NAN), **dict(zip(complete, fetched, strict=True))}
        return Sums(self.examples, sums["correct"][0], *sums["losses"])
