"""Which training examples the sample holds."""

import math
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch.utils.data import (
    BatchSampler,
    DataLoader,
    Dataset,
    Sampler,
    SequentialSampler,
    Subset,
    SubsetRandomSampler,
    TensorDataset,
    WeightedRandomSampler,
)

from training_health.training_sample.sample import NoTrainingSampleError, training_sample


def numbers(count: int) -> TensorDataset:
    return TensorDataset(torch.arange(count))


def sampled(train, count: int, seed: int = 0, rank: int = 0, world: int = 1, val=None, datamodule=None, limit=math.inf):
    """The batches, from what the sample needs of a trainer."""
    val = val or DataLoader(numbers(5), batch_size=4)
    trainer = SimpleNamespace(train_dataloader=train, val_dataloaders=val, datamodule=datamodule)
    trainer.global_rank, trainer.world_size, trainer.num_training_batches = rank, world, limit
    trainer.fast_dev_run = False
    return training_sample(trainer, count, seed)


def picked(*arguments, **options) -> list[int]:
    batches = sampled(*arguments, **options)
    return [int(x) for batch in batches for x in (batch[0] if isinstance(batch, list) else batch)]


@settings(deadline=None, max_examples=25)
@given(size=st.integers(1, 40), count=st.integers(1, 50), seed=st.integers(0, 3), world=st.integers(1, 4))
def test_the_ranks_hold_each_of_the_samples_examples_once(size, count, seed, world):
    train = DataLoader(numbers(size))
    whole = picked(train, count, seed)

    ranks = [picked(train, count, seed, rank, world) for rank in range(world)]

    assert len(whole) == len(set(whole)) == min(size, count)
    assert sorted(sum(ranks, [])) == whole
    assert max(map(len, ranks)) - min(map(len, ranks)) <= 1


def test_the_sample_depends_on_the_seed_alone():
    train = DataLoader(numbers(100), shuffle=True)
    torch.manual_seed(1)
    first = picked(train, 20)
    torch.manual_seed(2)

    assert picked(train, 20) == first
    assert picked(train, 20, seed=1) != first


def added(number: int):
    return lambda items: [item[0].item() + number for item in items]


def test_batches_have_the_validations_size_and_collation_as_the_trainings_may_augment():
    train = DataLoader(numbers(10), batch_size=2, collate_fn=added(100))
    val = DataLoader(numbers(5), batch_size=4, collate_fn=added(200))

    assert list(sampled(train, 10, val=val)) == [[200, 201, 202, 203], [204, 205, 206, 207], [208, 209]]


class ByIndex(Dataset):
    """Gives indices; its collation reads them."""

    def __init__(self, first: int) -> None:
        self.first = first

    def __len__(self) -> int:
        return 4

    def __getitem__(self, index: int) -> int:
        return index

    def collate(self, indices: list[int]) -> list[int]:
        return [self.first + index for index in indices]


def test_a_collation_that_reads_its_own_data_set_is_not_taken_for_another():
    train, val = (DataLoader(data, batch_size=4, collate_fn=data.collate) for data in (ByIndex(0), ByIndex(100)))

    with pytest.warns(UserWarning, match="ByIndex as it is"):
        assert list(sampled(train, 4, val=val)) == [[0, 1, 2, 3]]


def test_what_validation_does_not_collate_has_the_trainings_collation():
    train = DataLoader(numbers(3), batch_size=2, collate_fn=added(100))

    assert list(sampled(train, 3, val=DataLoader(numbers(5), batch_size=None))) == [[100, 101], [102]]


def test_only_the_training_part_of_a_data_set_is_sampled():
    assert picked(DataLoader(numbers(30), sampler=SubsetRandomSampler([3, 5, 8, 13])), 20) == [3, 5, 8, 13]


def test_examples_of_no_weight_are_not_sampled():
    assert picked(DataLoader(numbers(4), sampler=WeightedRandomSampler([1, 0, 2, 0], 9)), 20) == [0, 2]


class EverySecond(Sampler):
    def __init__(self, count: int) -> None:
        self.rest = iter(range(0, count, 2))

    def __iter__(self):
        return self.rest


def test_a_sampler_of_the_users_own_is_asked_without_moving_it():
    train = DataLoader(numbers(9), sampler=EverySecond(9))

    assert picked(train, 20) == [0, 2, 4, 6, 8]
    assert list(train.sampler) == [0, 2, 4, 6, 8]
    with pytest.raises(NoTrainingSampleError, match="EverySecond"):
        picked(train, 20, world=2)


def test_only_the_batches_that_are_trained_on_are_sampled():
    assert picked(DataLoader(numbers(30), batch_size=3), 20, limit=2) == [0, 1, 2, 3, 4, 5]
    with pytest.raises(NoTrainingSampleError, match="limit_train_batches"):
        picked(DataLoader(numbers(30), batch_size=3, shuffle=True), 20, limit=2)


class Batched(Dataset):
    """Takes a list of indices and gives a batch."""

    def __len__(self) -> int:
        return 10

    def __getitem__(self, indices):
        return torch.tensor(indices)


def test_a_data_set_that_takes_batches_of_indices_gets_them():
    train, val = (
        DataLoader(Batched(), sampler=BatchSampler(SequentialSampler(range(10)), 4, False), batch_size=None)
        for _ in range(2)
    )

    with pytest.warns(UserWarning, match="Batched as it is"):
        assert [batch.tolist() for batch in sampled(train, 7, val=val)] == [[0, 1, 3, 4], [5, 7, 9]]


@pytest.mark.parametrize("same", [numbers(8), ["graph"]], ids=["data_set", "items"])
def test_training_that_cannot_be_told_from_validation_has_no_sample(same):
    copied = list(same) if isinstance(same, list) else same
    with pytest.raises(NoTrainingSampleError, match="mask"):
        picked(DataLoader(same, shuffle=True), 5, val=DataLoader(copied))


class OneGraph(Dataset):
    """A full graph; ``noise`` is an augmentation."""

    def __init__(self, noise: float = 0.0) -> None:
        self.noise = noise

    def __len__(self) -> int:
        return 1

    def __getitem__(self, index: int):
        return {"x": np.arange(6.0) + self.noise * np.random.rand(6), "y": torch.arange(3)}


ROWS = torch.arange(8)


@pytest.mark.parametrize(
    "build",
    [OneGraph, lambda: TensorDataset(ROWS[None], ROWS[None].clone()), lambda: TensorDataset(ROWS), lambda: ROWS[:]],
    ids=["own", "one", "tensors", "tensor"],
)
def test_training_and_validation_from_data_sets_of_the_same_tensors_have_no_sample(build):
    with pytest.raises(NoTrainingSampleError, match="mask"):
        sampled(DataLoader(build()), 5, val=DataLoader(build()))


@pytest.mark.parametrize(
    ("train", "val"),
    [
        (numbers(8), numbers(8)),  # a copy, which may be on purpose
        (TensorDataset(ROWS), TensorDataset(ROWS[:7])),
        (TensorDataset(ROWS[None]), TensorDataset(ROWS[None] + 1)),
        (TensorDataset(ROWS[None], torch.tensor([[0]])), TensorDataset(ROWS[None], torch.tensor([[1]]))),  # its mask
    ],
)
def test_copies_of_a_data_set_and_other_examples_are_told_apart(train, val):
    assert sampled(DataLoader(train), 1, val=DataLoader(val)) is not None


def test_an_example_that_is_augmented_is_not_taken_for_the_validations():
    with pytest.warns(UserWarning, match="OneGraph as it is"):
        assert sampled(DataLoader(OneGraph(noise=1.0)), 1, val=DataLoader(OneGraph())) is not None


def test_validation_on_a_part_of_what_is_trained_on_has_no_sample():
    everything = numbers(8)
    with pytest.raises(NoTrainingSampleError, match="draw the same examples"):
        picked(DataLoader(everything, shuffle=True), 5, val=DataLoader(Subset(everything, torch.tensor([6, 7]))))
    with pytest.raises(NoTrainingSampleError, match="draw the same examples"):
        picked(DataLoader(Subset(everything, [0, 6])), 5, val=DataLoader(Subset(Subset(everything, [5, 6, 7]), [1])))

    apart = DataLoader(Subset(everything, [0, 1])), DataLoader(Subset(everything, [2, 3]))
    assert picked(apart[0], 5, val=apart[1]) == [0, 1]


def test_two_parts_of_one_data_set_are_told_apart():
    data = numbers(8)
    parts = (DataLoader(data, sampler=SubsetRandomSampler(part)) for part in ([0, 1, 2], [3, 4]))

    assert picked(next(parts), 5, val=next(parts)) == [0, 1, 2]


class Numbers(Dataset):
    """Numbers with a transform."""

    def __init__(self, count: int, transform) -> None:
        self.count, self.transform = count, transform

    def __len__(self) -> int:
        return self.count

    def __getitem__(self, index: int) -> int:
        return self.transform(index)


def test_the_validations_transform_takes_the_place_of_augmentation():
    augmented = Numbers(10, transform=lambda i: i + 1000)
    val = DataLoader(Subset(Numbers(10, transform=lambda i: -i), [0]))

    assert picked(DataLoader(Subset(augmented, [2, 4, 6])), 9, val=val) == [-2, -4, -6]
    assert augmented[1] == 1001  # the training data set itself is as it was


def test_a_data_set_that_may_augment_is_taken_as_it_is_with_a_warning():
    with pytest.warns(UserWarning, match="comes from Numbers as it is"):
        assert picked(DataLoader(Numbers(6, transform=int)), 9) == list(range(6))


def test_a_loader_or_datamodule_that_offers_a_sample_is_asked():
    class Offers:
        def evaluation_sample(self, count, seed, rank, world_size):
            return [count, seed, rank, world_size]

    assert sampled(Offers(), 20, seed=7, rank=1, world=2) == [20, 7, 1, 2]
    assert sampled([], 20, seed=7, datamodule=Offers()) == [20, 7, 0, 1]


@pytest.mark.parametrize("loader", [[1, 2], {"a": DataLoader(numbers(3))}, None])
def test_training_examples_without_an_index_are_an_error_with_the_way_out(loader):
    with pytest.raises(NoTrainingSampleError, match="evaluation_sample"):
        picked(loader, 20)
