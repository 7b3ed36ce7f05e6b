"""A fixed, seeded sample of the training examples, without augmentation, each example on one rank only."""

from __future__ import annotations

import copy
import itertools
import math
from collections.abc import Iterable, Sequence
from contextlib import suppress
from typing import Any

import torch
from torch import Tensor
from torch.utils.data import (
    BatchSampler,
    DataLoader,
    Dataset,
    DistributedSampler,
    IterableDataset,
    RandomSampler,
    SequentialSampler,
    Subset,
    SubsetRandomSampler,
    TensorDataset,
    WeightedRandomSampler,
    default_convert,
)

from training_health import lightning as pl
from training_health.batches import tensors_in


class NoTrainingSampleError(Exception):
    """Training examples cannot be evaluated; the message says why."""


def _none(reason: str) -> NoTrainingSampleError:
    return NoTrainingSampleError(
        f"No sample of training examples can be drawn: {reason}. A training loader or datamodule with a method "
        "`evaluation_sample(count, seed, rank, world_size)` that returns batches would give one."
    )


def training_sample(
    trainer: pl.Trainer, count: int, seed: int, loader_idx: int = 0, part: tuple[int, int] | None = None
) -> Iterable[Any]:
    """Give this rank's batches of the sample.

    A training loader, or else a datamodule, with a method ``evaluation_sample(count, seed, rank, world_size)`` is
    asked for them. Otherwise they are drawn from what the training loader draws: indices from a generator seeded with
    ``seed`` alone, the validation loader's batch size and, where it collates examples too, its collation, since that of
    training may augment, unless it holds a data set; where both data sets have one, its ``transform``.

    Args:
        trainer: A trainer that fits.
        count: Examples over all ranks; fewer if there are fewer.
        seed: Of the choice.
        loader_idx: Which validation loader it is compared with.
        part: Which part of the sample, of how many; by default this rank's.

    Raises:
        NoTrainingSampleError: If which examples are trained on is unknown, or if they are validation's as well.
    """
    rank, world = part or (trainer.global_rank, trainer.world_size)
    train: Any = trainer.train_dataloader
    for source in (train, getattr(trainer, "datamodule", None)):
        sample = getattr(source, "evaluation_sample", None)
        if sample is not None:
            return sample(count, seed, rank, world)
    val = pl.loader_at(trainer.val_dataloaders, loader_idx)
    dataset = getattr(train, "dataset", None)
    if not isinstance(train, DataLoader) or isinstance(dataset, IterableDataset) or not hasattr(dataset, "__getitem__"):
        raise _none(f"the training loader ({type(train).__name__}) is not one with a data set to index")
    limit = math.inf if trainer.fast_dev_run else trainer.num_training_batches  # type: ignore[attr-defined]
    population = _drawn_from(train, limit, trainer.world_size)
    (base, of), (validated, _) = _in_base(dataset, population), _in_base(getattr(val, "dataset", None), ())
    if _is_the_same(base, validated) and not set(of).isdisjoint(_in_base(val.dataset, _drawn_from(val))[1]):
        raise _none(
            "training and validation loader draw the same examples from one data set; what tells them apart, such as "
            "a mask, is known in the steps alone"
        )
    sizes = [sampler.batch_size for sampler in map(_batch_sampler, (val, train)) if sampler is not None]
    by_one = _batch_sampler(train) is None and train.batch_sampler is None  # each index stands for a whole batch
    if by_one and hasattr(val, "__len__"):
        count = min(count, len(val))
    order = torch.randperm(len(population), generator=torch.Generator().manual_seed(seed))[:count].tolist()
    chosen = sorted(population[i] for i in order)[rank::world]
    size = sizes[0] if sizes else 64
    batches: Any = chosen if by_one else [chosen[i : i + size] for i in range(0, len(chosen), size)]
    how = {"batch_sampler": batches} if train.batch_sampler is not None else {"sampler": batches, "batch_size": None}
    alike = isinstance(val, DataLoader) and (val.batch_sampler is None) == (train.batch_sampler is None)
    alike = alike and not _holds_data(val.collate_fn)
    return DataLoader(
        _without_augmentation(dataset, getattr(val, "dataset", None)),
        collate_fn=val.collate_fn if alike else train.collate_fn,
        num_workers=train.num_workers,
        worker_init_fn=train.worker_init_fn,
        **how,
    )


def _batch_sampler(loader: Any) -> BatchSampler | None:  # noqa: ANN401
    """What draws a loader's batches of indices, also where its data set takes a batch of them at once."""
    samplers = (getattr(loader, "batch_sampler", None), getattr(loader, "sampler", None))
    return next((sampler for sampler in samplers if type(sampler) is BatchSampler), None)


def _drawn_from(loader: Any, limit: float = math.inf, world: int = 1) -> Sequence[int]:  # noqa: ANN401
    """The indices that a loader draws in the first ``limit`` batches of each epoch."""
    batches = _batch_sampler(loader)
    draws = loader.sampler if loader.batch_sampler is None else loader.batch_sampler
    sampler: Any = draws if batches is None else batches.sampler
    with suppress(TypeError):  # a loader without a length
        limit = limit if limit < len(loader) else math.inf
    everything = range(len(loader.dataset))
    shuffled: Sequence[int] | None = None
    if isinstance(sampler, SubsetRandomSampler):
        shuffled = list(sampler.indices)
    elif isinstance(sampler, WeightedRandomSampler):
        shuffled = [index for index, weight in enumerate(sampler.weights.tolist()) if weight]
    elif isinstance(sampler, RandomSampler) or (type(sampler) is DistributedSampler and sampler.shuffle):
        shuffled = everything
    if shuffled is not None:
        if limit < math.inf:
            raise _none("from a shuffled loader `limit_train_batches` takes other examples every epoch")
        return shuffled
    if type(sampler) in (SequentialSampler, DistributedSampler):
        most = (
            limit
            * (1 if batches is None else batches.batch_size)
            * (1 if type(sampler) is SequentialSampler else world)
        )
        return everything if math.isinf(most) else everything[: int(most)]
    if world > 1:
        raise _none(f"which examples {type(sampler).__name__} gives to each process is unknown")
    drawn = itertools.islice(iter(copy.deepcopy(draws, {id(loader.dataset): loader.dataset})), len(everything))
    found = itertools.islice(drawn, None if math.isinf(limit) else int(limit))
    return sorted({index for draw in found for index in (draw if isinstance(draw, (list, tuple)) else [draw])})


def _holds_data(collate: Any) -> bool:  # noqa: ANN401
    """Whether a collation may read examples of its own data set, by the indices that it gets."""
    owner = getattr(collate, "__self__", collate)
    return isinstance(owner, Dataset) or hasattr(owner, "dataset")


def _in_base(dataset: Any, indices: Sequence[int]) -> tuple[Any, Sequence[int]]:  # noqa: ANN401
    """The data set that subsets are of, and the indices in it."""
    while isinstance(dataset, Subset):
        dataset, indices = dataset.dataset, [int(dataset.indices[index]) for index in indices]
    return dataset, indices


def _is_the_same(train: Any, val: Any) -> bool:  # noqa: ANN401
    """Whether two data sets are one, or hold the same items or memory, or one example each, with the same numbers.

    The last are full graphs; in larger sets, which may be copies on purpose, the numbers are not compared.
    """
    lists = isinstance(train, list) and isinstance(val, list) and len(train) == len(val)
    if train is val or (lists and all(a is b for a, b in zip(train, val, strict=True))):
        return True
    with suppress(Exception):  # no length, or tensors that torch cannot compare
        one = len(train) == len(val) == 1
        if one or all(isinstance(data, (Tensor, TensorDataset)) for data in (train, val)):
            parts = [list(tensors_in(default_convert(data[0] if one else data))) for data in (train, val)]
            same = (_is_one_memory(a, b) or (one and torch.equal(a, b)) for a, b in zip(*parts, strict=True))
            return bool(parts[0]) and all(same)
    return False


def _is_one_memory(one: Tensor, other: Tensor) -> bool:
    if one is other:
        return True
    return (one.data_ptr(), one.shape, one.stride()) == (other.data_ptr(), other.shape, other.stride())


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
