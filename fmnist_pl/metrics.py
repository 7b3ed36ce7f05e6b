"""Means over the examples of an epoch, exact on any number of processes."""

from typing import Any

import torch
from torch import Tensor
from torchmetrics import Metric

# float64 keeps a sum over 55,000 examples exact to 1e-12; Apple's GPUs have no float64.
SUM_TYPE = torch.float32 if torch.backends.mps.is_available() else torch.float64


class ExampleMean(Metric):
    """Mean of one number per example, over all batches and processes; NaN before the first example.

    Every example weighs the same, whatever the size of its batch. An update costs one reduction; torchmetrics'
    ``MeanMetric`` waits for a GPU to look for NaN, or with ``nan_strategy="disable"`` makes a weight for each value.

    Example:
        >>> mean = ExampleMean()
        >>> mean.update(torch.tensor([1.0, 2.0, 3.0]))
        >>> mean.update(torch.tensor([10.0]))
        >>> mean.compute()
        tensor(4.)
    """

    full_state_update = False
    total: Tensor
    count: Tensor

    def __init__(self, **kwargs: Any) -> None:  # noqa: ANN401
        super().__init__(compute_with_cache=False, **kwargs)
        self.add_state("total", torch.zeros((), dtype=SUM_TYPE), dist_reduce_fx="sum")
        self.add_state("count", torch.zeros((), dtype=SUM_TYPE), dist_reduce_fx="sum")

    def update(self, values: Tensor) -> None:
        """Add a batch's values, shape (N,), numbers or booleans."""
        self.total.add_(values.sum(dtype=self.total.dtype))  # `+=` would go through nn.Module.__setattr__
        self.count.add_(values.numel())

    def compute(self) -> Tensor:
        """The mean so far, float32, shape ()."""
        return (self.total / self.count).to(torch.float32)
