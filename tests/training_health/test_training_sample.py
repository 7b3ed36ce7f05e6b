"""Which training images the sample holds."""

from types import SimpleNamespace

import pytest
import torch
from torch.utils.data import DataLoader, Dataset, Subset, SubsetRandomSampler, TensorDataset

from training_health.training_sample.sample import NoTrainingSampleError, training_sample


def trainer_of(train, val, rank=0, world=1, datamodule=None):
    """What the sample needs of a trainer."""
    return SimpleNamespace(
        train_dataloader=train, val_dataloaders=val, datamodule=datamodule, global_rank=rank, world_size=world
    )


def numbers(count: int) -> TensorDataset:
    return TensorDataset(torch.arange(count))


def picked(sample) -> list[int]:
    return [int(x) for batch in sample for x in (batch[0] if isinstance(batch, (list, tuple)) else batch)]


VAL = DataLoader(numbers(5), batch_size=4)


def test_the_sample_depends_on_the_seed_alone():
    train = DataLoader(numbers(100), shuffle=True)
    torch.manual_seed(1)
    first = picked(training_sample(trainer_of(train, VAL), 20, seed=0))
    torch.manual_seed(2)

    assert picked(training_sample(trainer_of(train, VAL), 20, seed=0)) == first
    assert picked(training_sample(trainer_of(train, VAL), 20, seed=1)) != first
    assert first == sorted(set(first))
    assert len(first) == 20


def test_a_sample_larger_than_the_set_is_the_set():
    assert picked(training_sample(trainer_of(DataLoader(numbers(7)), VAL), 20, seed=0)) == list(range(7))


@pytest.mark.parametrize("world", [2, 3])
def test_the_ranks_shares_hold_every_image_once(world):
    train = DataLoader(numbers(100))
    whole = picked(training_sample(trainer_of(train, VAL), 20, seed=0))

    shares = [picked(training_sample(trainer_of(train, VAL, rank, world), 20, seed=0)) for rank in range(world)]

    assert sorted(sum(shares, [])) == whole
    assert max(map(len, shares)) - min(map(len, shares)) <= 1


def test_batches_have_the_validations_size_and_the_trainings_collation():
    train = DataLoader(numbers(10), batch_size=2, collate_fn=lambda items: torch.stack([i[0] for i in items]) + 100)

    batches = list(training_sample(trainer_of(train, VAL), 10, seed=0))

    assert [len(batch) for batch in batches] == [4, 4, 2]
    assert picked(batches) == list(range(100, 110))


def test_only_the_training_part_of_a_data_set_is_sampled():
    split = DataLoader(numbers(30), sampler=SubsetRandomSampler([3, 5, 8, 13]))

    assert picked(training_sample(trainer_of(split, VAL), 20, seed=0)) == [3, 5, 8, 13]


class Images(Dataset):
    """Numbers with an optional transform."""

    def __init__(self, count: int, transform=None) -> None:
        self.count, self.transform = count, transform

    def __len__(self) -> int:
        return self.count

    def __getitem__(self, index: int) -> int:
        return index if self.transform is None else self.transform(index)


def test_the_validations_transform_takes_the_place_of_augmentation():
    augmented = Images(10, transform=lambda i: i + 1000)
    val = DataLoader(Subset(Images(10, transform=lambda i: -i), [0]))

    sample = training_sample(trainer_of(DataLoader(Subset(augmented, [2, 4, 6])), val), 9, seed=0)

    assert picked(sample) == [-2, -4, -6]
    assert augmented[1] == 1001  # the training data set itself is as it was


class Opaque(Dataset):
    """A data set that may augment without saying so."""

    def __len__(self) -> int:
        return 6

    def __getitem__(self, index: int) -> int:
        return index


def test_a_data_set_that_may_augment_is_taken_as_it_is_with_a_warning():
    with pytest.warns(UserWarning, match="comes from Opaque as it is"):
        sample = training_sample(trainer_of(DataLoader(Opaque()), VAL), 9, seed=0)

    assert picked(sample) == list(range(6))


def test_a_loader_or_datamodule_that_offers_a_sample_is_asked():
    class Offers:
        def evaluation_sample(self, count, seed, rank, world_size):
            return [count, seed, rank, world_size]

    assert training_sample(trainer_of(Offers(), VAL, 1, 2), 20, seed=7) == [20, 7, 1, 2]
    assert training_sample(trainer_of([], VAL, datamodule=Offers()), 20, seed=7) == [20, 7, 0, 1]


@pytest.mark.parametrize("loader", [[1, 2], {"a": DataLoader(numbers(3))}, None])
def test_training_images_without_an_index_are_refused_with_the_way_out(loader):
    with pytest.raises(NoTrainingSampleError, match="give it a method `evaluation_sample"):
        training_sample(trainer_of(loader, VAL), 20, seed=0)
