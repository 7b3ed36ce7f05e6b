"""A fixed, seeded sample of the training examples, without augmentation, each example on one rank only."""

from __future__ import annotations

import copy
from collections.abc import Iterable, Sequence
from typing import Any

import torch
from torch import Tensor
from torch.utils.data import DataLoader, IterableDataset, Subset, SubsetRandomSampler, TensorDataset

from training_health import lightning as pl


class NoTrainingSampleError(Exception):
    """No sample can be drawn from this training loader; the message says why."""


def training_sample(trainer: pl.Trainer, count: int, seed: int) -> Iterable[Any]:
    """Give this rank's batches of the sample.

    A training loader, or else a datamodule, with a method ``evaluation_sample(count, seed, rank, world_size)`` is
    asked for them. Otherwise they are drawn from the training loader's data set: indices from a generator seeded with
    ``seed`` alone, the training loader's collation, the validation loader's batch size and, where both data sets have
    one, its ``transform``.

    Args:
        trainer: A trainer that fits.
        count: Examples over all ranks; fewer if there are fewer.
        seed: Of the choice.

    Raises:
        NoTrainingSampleError: If the training examples cannot be picked by index.
    """
    rank, world = trainer.global_rank, trainer.world_size
    for source in (trainer.train_dataloader, getattr(trainer, "datamodule", None)):
        sample = getattr(source, "evaluation_sample", None)
        if sample is not None:
            return sample(count, seed, rank, world)
    train: Any = trainer.train_dataloader
    val = pl.loader_at(trainer.val_dataloaders)
    dataset = getattr(train, "dataset", None)
    if dataset is None or isinstance(dataset, IterableDataset) or not hasattr(dataset, "__getitem__"):
        raise NoTrainingSampleError(
            f"the training loader ({type(train).__name__}) has no data set that can be indexed; give it a method "
            "`evaluation_sample(count, seed, rank, world_size)` that returns batches"
        )
    sampler = getattr(train, "sampler", None)
    population: Sequence[int] = sampler.indices if isinstance(sampler, SubsetRandomSampler) else range(len(dataset))
    order = torch.randperm(len(population), generator=torch.Generator().manual_seed(seed))[:count].tolist()
    chosen = sorted(population[i] for i in order)
    batch_size = getattr(val, "batch_size", None) or getattr(train, "batch_size", None) or 64
    return DataLoader(
        Subset(_without_augmentation(dataset, getattr(val, "dataset", None)), chosen[rank::world]),
        batch_size=batch_size,
        collate_fn=train.collate_fn,
        num_workers=train.num_workers,
        worker_init_fn=train.worker_init_fn,
    )


def _without_augmentation(train: Any, val: Any) -> Any:  # noqa: ANN401
    """The training data set with the validation set's transform where both have one; else as it is, which is said."""
    reference = val
    while isinstance(reference, Subset):
        reference = reference.dataset
    if isinstance(train, Subset):
        subset = copy.copy(train)
        subset.dataset = _without_augmentation(train.dataset, val)
        return subset
    names = [name for name in ("transform", "transforms") if hasattr(train, name) and hasattr(reference, name)]
    if not names:
        if not isinstance(train, (TensorDataset, Tensor, list)):  # which have no transform to augment with
            pl.rank_zero_warn(
                f"The sample of training examples comes from {type(train).__name__} as it is: augmentation in it, if "
                "any, is on. Training and validation data sets with a `transform` each would turn it off."
            )
        return train
    plain = copy.copy(train)
    for name in names:
        setattr(plain, name, getattr(reference, name))
    return plain
