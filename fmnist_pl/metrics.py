"""Means over the images of an epoch, exact on any number of processes."""

from typing import Any

import torch
from torch import Tensor
from torchmetrics import Metric

# float64 keeps a sum over 55,000 images exact to 1e-12; Apple's GPUs have no float64.
SUM_TYPE = torch.float32 if torch.backends.mps.is_available() else torch.float64


class ImageMean(Metric):
    """Mean of one number per image, over all batches and processes.

    Costs one reduction and no host synchronisation per update.
    """

    full_state_update = False
    total: Tensor
    count: Tensor

    def __init__(self, **kwargs: Any) -> None:  # noqa: ANN401
        super().__init__(compute_with_cache=False, **kwargs)
        self.add_state("total", torch.zeros((), dtype=SUM_TYPE), dist_reduce_fx="sum")
        self.add_state("count", torch.zeros((), dtype=SUM_TYPE), dist_reduce_fx="sum")

    def update(self, values: Tensor) -> None:
        """Add a batch's values, shape (N,)."""
        self.total += values.sum(dtype=self.total.dtype)
        self.count += values.numel()

    def add(self, values: Tensor) -> None:
        """`update` for every training step, without the bookkeeping around it, which takes longer than the sums."""
        self.total.add_(values.sum(dtype=self.total.dtype))
        self.count.add_(values.numel())
        if not self._update_count:
            self._update_count = 1  # else `compute` warns that nothing was added

    def sums(self) -> Tensor:
        """This process's share of the mean, shape (2,): the total and the number of images."""
        return torch.stack([self.total, self.count])

    def set_sums(self, sums: Tensor) -> None:
        """Go on from `sums`."""
        self.total, self.count = sums.to(self.total).clone()

    def compute(self) -> Tensor:
        """The mean so far; NaN before the first image."""
        return (self.total / self.count).to(torch.float32)
