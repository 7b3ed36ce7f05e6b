"""How many examples a batch holds, and which of them another rank has as well."""

from collections.abc import Iterable
from typing import Any, NamedTuple

from torch import Tensor
from torch.utils.data import DistributedSampler


class BatchSize(NamedTuple):
    """A batch's examples; the first ``counted`` of them count, the rest is another rank's."""

    examples: int
    counted: int


def size_of(batch: Any, loader: Any, batch_idx: int) -> BatchSize:  # noqa: ANN401 - whatever the user's loader yields
    """Count the examples of batch number ``batch_idx`` of an evaluation loader."""
    examples = count_examples(batch)
    return BatchSize(examples, examples - ends_in_a_repeat(loader, batch_idx))


def count_examples(batch: Any) -> int:  # noqa: ANN401
    """Count the examples in a batch: the length of its first tensor, 0 where it has none."""
    tensor = first_tensor(batch)
    return 0 if tensor is None else len(tensor)


def first_tensor(batch: Any) -> Tensor | None:  # noqa: ANN401
    """Find the first tensor with a batch dimension in a tensor, mapping or (nested) sequence."""
    if isinstance(batch, Tensor):
        return batch if batch.dim() else None
    if isinstance(batch, (str, bytes)):
        return None
    parts: Iterable[Any] = batch.values() if hasattr(batch, "values") else batch if isinstance(batch, Iterable) else ()
    return next((tensor for part in parts if (tensor := first_tensor(part)) is not None), None)


def ends_in_a_repeat(loader: Any, batch_idx: int) -> bool:  # noqa: ANN401
    """Tell whether the last example of this rank's batch is one that another rank has as well.

    ``DistributedSampler`` pads an uneven data set with examples from its start; a rank gets at most one, as its last.
    """
    sampler = getattr(loader, "sampler", None)
    if not isinstance(sampler, DistributedSampler) or sampler.drop_last or sampler.shuffle:
        return False
    # The rank's last position in the padded order is (num_samples - 1) * world + rank.
    last = (sampler.num_samples - 1) * sampler.num_replicas + sampler.rank
    return last >= len(sampler.dataset) and batch_idx == len(loader) - 1  # type: ignore[arg-type]
