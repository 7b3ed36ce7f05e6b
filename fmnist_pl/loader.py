"""Batches straight from memory, in an order that is a function of (seed, epoch) alone.

The whole set is one uint8 tensor on the training device; a batch is one index-select and one scale. Nothing about the
order or the randomness has to be saved: torch's global generators are seeded before batch k with (seed, epoch, k,
rank), so everything random in its training step depends on these four alone.
"""

import hashlib
from collections.abc import Callable, Iterator
from types import SimpleNamespace
from typing import Any, NamedTuple

import torch
from torch import Tensor

Augmentation = Callable[[Tensor], Tensor]


class Batch(NamedTuple):
    """One batch on one rank."""

    images: Tensor  # (N, 1, H, W) float32 in [0, 1]
    labels: Tensor  # (N,) int64
    weight: float = 1.0  # N / mean N over the ranks: makes the ranks' averaged gradient the mean over all images


class BatchLoader:
    """Iterates over one rank's part of the batches of an image set.

    Training (``shuffle=True``): the epoch's permutation is cut into global batches of ``batch_size * world_size``
    images, and each is divided among the ranks as evenly as it goes; every image is used once. Evaluation: the images
    in their order are divided among the ranks, each once, without the repeats of a ``DistributedSampler``.

    Args:
        images: uint8, (N, H, W), on the device that trains.
        labels: int64, (N,), on the same device.
        batch_size: Images per batch and rank.
        shuffle: Permute the images for each epoch, and seed the global generators before each batch.
        seed: Seed of the order and of everything random in the training steps.
        rank: This process's number.
        world_size: Number of processes.
        augmentation: Applied to each batch of float images.

    Example:
        >>> images = torch.zeros(10, 28, 28, dtype=torch.uint8)
        >>> loader = BatchLoader(images, torch.arange(10), batch_size=4)
        >>> [batch.labels.tolist() for batch in loader]
        [[0, 1, 2, 3], [4, 5, 6, 7], [8, 9]]
        >>> next(iter(loader)).images.shape
        torch.Size([4, 1, 28, 28])
    """

    def __init__(
        self,
        images: Tensor,
        labels: Tensor,
        batch_size: int,
        *,
        shuffle: bool = False,
        seed: int = 0,
        rank: int = 0,
        world_size: int = 1,
        augmentation: Augmentation | None = None,
    ) -> None:
        self.images, self.labels = images, labels
        self.batch_size, self.shuffle, self.seed = batch_size, shuffle, seed
        self.rank, self.world_size, self.augmentation = rank, world_size, augmentation
        self.epoch = 0
        # Here Lightning calls set_epoch before each epoch. Not `sampler`: overfit_batches rebuilds loaders with one.
        self.batch_sampler = SimpleNamespace(sampler=self)

    def __len__(self) -> int:
        if self.shuffle:
            return -(-len(self.images) // (self.batch_size * self.world_size))
        return -(-len(range(self.rank, len(self.images), self.world_size)) // self.batch_size)

    def __iter__(self) -> Iterator[Batch]:
        order = self._order()  # runs at the first next(), by when Lightning has called set_epoch
        for batch in range(len(self)):
            indices, weight = self._shard(order, batch)
            if self.shuffle:  # 1 microsecond; no synchronisation on a GPU
                seed = mixed_seed(self.seed, self.epoch, batch, self.rank)
                torch.default_generator.manual_seed(seed)
                if self.images.is_cuda:
                    torch.cuda.manual_seed(seed)
            chosen = self.images.index_select(0, indices).unsqueeze(1)
            images = chosen.to(torch.float32, memory_format=torch.channels_last).div_(255)  # for fast convolutions
            if self.augmentation is not None:
                images = self.augmentation(images)
            yield Batch(images, self.labels.index_select(0, indices), weight)

    def set_epoch(self, epoch: int) -> None:
        """Choose the epoch whose order the next iteration follows."""
        self.epoch = epoch

    def evaluation_sample(self, count: int, seed: int, rank: int = 0, world_size: int = 1) -> "BatchLoader":
        """A random sample of these images for evaluation: without augmentation, each image once over the ranks.

        ``seed`` alone chooses the ``count`` images (at most all): the same in every epoch, on any number of ranks.
        """
        order = torch.randperm(len(self.images), generator=torch.Generator().manual_seed(seed))
        chosen = order[:count].sort().values.to(self.images.device)
        # Validation's batch size: its freed activations are the room for the sample's.
        size = evaluation_batch(self.images.device)
        return BatchLoader(self.images[chosen], self.labels[chosen], size, rank=rank, world_size=world_size)

    def pixel_statistics(self) -> tuple[float, float]:
        """Mean and standard deviation of all pixels of all images, in [0, 1]: exact, from the counts of grey values."""
        counts = torch.bincount(self.images.flatten(), minlength=256).double().cpu()
        values = torch.arange(256, dtype=torch.float64) / 255
        mean = (counts * values).sum() / counts.sum()
        return mean.item(), ((counts * (values - mean).square()).sum() / counts.sum()).sqrt().item()

    def _order(self) -> Tensor:
        """This epoch's image indices (N,), before they are divided among the ranks."""
        count = len(self.images)
        if not self.shuffle:
            return torch.arange(count, device=self.images.device)
        # Permuted on the CPU so that every device and every rank sees the same order; one copy per epoch.
        generator = torch.Generator().manual_seed(mixed_seed(self.seed, self.epoch))
        return torch.randperm(count, generator=generator).to(self.images.device)

    def _shard(self, order: Tensor, batch: int) -> tuple[Tensor, float]:
        if not self.shuffle:
            return order[self.rank :: self.world_size][batch * self.batch_size : (batch + 1) * self.batch_size], 1.0
        span = self.batch_size * self.world_size
        together = order[batch * span : (batch + 1) * span]
        mine = together.tensor_split(self.world_size)[self.rank]
        return mine, len(mine) * self.world_size / len(together)


def evaluation_batch(device: torch.device) -> int:
    """Images per batch where no gradients are needed; no metric depends on it."""
    # The baseline's largest activation takes 20 MB on a CPU, of which two are alive; calls cost little beside that.
    return 100 if device.type == "cpu" else 500


def mixed_seed(*numbers: int) -> int:
    """A 63-bit seed from several numbers: neighbours give unrelated streams, unlike sums."""
    digest = hashlib.blake2b(repr(numbers).encode(), digest_size=8).digest()
    return int.from_bytes(digest, "big") >> 1


def device_tensors(images: Any, labels: Any, device: torch.device) -> tuple[Tensor, Tensor]:  # noqa: ANN401
    """NumPy images (N, H, W) uint8 and labels (N,) as tensors on ``device``; labels become int64."""
    return torch.as_tensor(images).to(device), torch.as_tensor(labels).to(device, torch.int64)
