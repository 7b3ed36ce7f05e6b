"""What the ranks of one run tell each other: plain objects once per epoch, and which images a sampler repeats."""

from collections.abc import Iterable
from typing import Any, TypeVar

import pytorch_lightning as pl
from torch import Tensor, distributed
from torch.utils.data import DistributedSampler

T = TypeVar("T")


def every_rank(trainer: pl.Trainer, payload: T) -> list[T]:
    """Give every rank the payload of all ranks, in rank order.

    Collective: every rank must call it, whatever it has seen. Objects rather than one packed tensor, so that ranks
    may have seen different things (a site that only some batches reach, a rank without any image).

    Args:
        trainer: The running trainer.
        payload: Anything that pickles; small, and on the host.

    Returns:
        One payload per rank; ``[payload]`` on a single process.
    """
    if trainer.world_size == 1 or not (distributed.is_available() and distributed.is_initialized()):
        return [payload]
    gathered: list[Any] = [None] * distributed.get_world_size()
    distributed.all_gather_object(gathered, payload)
    return gathered


def first_tensor(batch: Any) -> Tensor | None:  # noqa: ANN401 - a batch is whatever the user's loader yields
    """Find the first tensor with a batch dimension in a tensor, mapping or (nested) sequence."""
    if isinstance(batch, Tensor):
        return batch if batch.dim() else None
    if isinstance(batch, (str, bytes)):
        return None
    parts: Iterable[Any] = batch.values() if hasattr(batch, "values") else batch if isinstance(batch, Iterable) else ()
    return next((tensor for part in parts if (tensor := first_tensor(part)) is not None), None)


def count_images(batch: Any) -> int:  # noqa: ANN401
    """Count the examples in a batch: the length of its first tensor, 0 where it has none."""
    tensor = first_tensor(batch)
    return 0 if tensor is None else len(tensor)


def ends_in_a_repeat(loader: Any, batch_idx: int) -> bool:  # noqa: ANN401
    """Tell whether this rank's batch ends in an image that another rank has as well.

    ``DistributedSampler``, Lightning's default for evaluation too, pads an uneven data set with images from its start
    so that all ranks get the same number. Not more than one of them falls to a rank, as its very last image.

    Args:
        loader: The evaluation loader the batch came from.
        batch_idx: The batch's place in it.

    Returns:
        True where the last image must not be counted.
    """
    sampler = getattr(loader, "sampler", None)
    if not isinstance(sampler, DistributedSampler) or sampler.drop_last or sampler.shuffle:
        return False
    # The rank's last position in the padded order is (num_samples - 1) * world + rank.
    last = (sampler.num_samples - 1) * sampler.num_replicas + sampler.rank
    return last >= len(sampler.dataset) and batch_idx == len(loader) - 1  # type: ignore[arg-type]


def loader_at(loaders: Any, index: int) -> Any:  # noqa: ANN401
    """Pick the evaluation loader with this ``dataloader_idx`` from what ``trainer.val_dataloaders`` holds."""
    if isinstance(loaders, dict):
        loaders = list(loaders.values())
    return loaders[index] if isinstance(loaders, (list, tuple)) else loaders
