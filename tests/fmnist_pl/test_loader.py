"""Order, sharding and scaling of the batches."""

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from fmnist_pl.loader import BatchLoader, mixed_seed


def numbered_images(count: int) -> tuple[torch.Tensor, torch.Tensor]:
    """Images whose label is their index."""
    return torch.zeros(count, 2, 2, dtype=torch.uint8), torch.arange(count)


def labels_of(loader: BatchLoader) -> list[list[int]]:
    return [batch.labels.tolist() for batch in loader]


def test_a_batch_is_scaled_to_the_unit_interval():
    images = torch.tensor([[[0, 51], [102, 255]]], dtype=torch.uint8)

    (batch,) = BatchLoader(images, torch.tensor([3]), 4)

    assert torch.equal(batch.images, torch.tensor([[[[0.0, 0.2], [0.4, 1.0]]]]))
    assert batch.images.dtype == torch.float32


@given(st.integers(1, 60), st.integers(1, 9), st.integers(1, 4), st.booleans())
@settings(max_examples=60, deadline=None)
def test_the_ranks_batches_partition_the_epoch(count, batch_size, world_size, shuffle):
    loaders = [
        BatchLoader(*numbered_images(count), batch_size, shuffle=shuffle, rank=rank, world_size=world_size)
        for rank in range(world_size)
    ]
    batches = [labels_of(loader) for loader in loaders]

    assert sorted(label for rank in batches for batch in rank for label in batch) == list(range(count))
    assert [len(loader) for loader in loaders] == [len(rank) for rank in batches]
    assert all(len(batch) <= batch_size for rank in batches for batch in rank)


@given(st.integers(1, 60), st.integers(1, 9), st.integers(1, 4))
@settings(max_examples=60, deadline=None)
def test_the_ranks_training_batches_together_are_those_of_one_process(count, batch_size, world_size):
    single = labels_of(BatchLoader(*numbered_images(count), batch_size * world_size, shuffle=True, seed=1))
    ranks = [
        labels_of(
            BatchLoader(*numbered_images(count), batch_size, shuffle=True, seed=1, rank=rank, world_size=world_size)
        )
        for rank in range(world_size)
    ]

    assert [sum(parts, []) for parts in zip(*ranks, strict=True)] == single


def test_the_order_is_a_function_of_seed_and_epoch():
    def order(seed: int, epoch: int) -> list[int]:
        loader = BatchLoader(*numbered_images(50), 50, shuffle=True, seed=seed)
        torch.rand(seed + epoch)  # the global generator's state must not matter
        loader.set_epoch(epoch)
        return labels_of(loader)[0]

    assert order(0, 1) == order(0, 1)
    assert order(0, 1) != order(0, 2)
    assert order(0, 1) != order(1, 1)


def test_the_randomness_of_a_step_is_a_function_of_seed_epoch_batch_and_rank():
    def numbers(seed: int, epoch: int, rank: int) -> list[float]:
        loader = BatchLoader(*numbered_images(40), 5, shuffle=True, seed=seed, rank=rank, world_size=2)
        loader.set_epoch(epoch)
        return [torch.rand(1).item() for _ in loader]

    distinct = {
        number for seed in (0, 1) for epoch in (0, 1) for rank in (0, 1) for number in numbers(seed, epoch, rank)
    }

    assert numbers(0, 1, 1) == numbers(0, 1, 1)
    assert len(distinct) == 32  # two seeds, epochs and ranks of four batches


def test_the_epoch_may_be_set_after_iter_as_lightning_does_when_it_resumes():
    loader, expected = (BatchLoader(*numbered_images(20), 20, shuffle=True) for _ in range(2))
    iterator = iter(loader)
    loader.set_epoch(3)
    expected.set_epoch(3)

    assert next(iterator).labels.tolist() == labels_of(expected)[0]


def test_the_weights_make_the_average_over_ranks_the_mean_over_images():
    values = torch.rand(7)
    loaders = [BatchLoader(*numbered_images(7), 4, shuffle=True, rank=rank, world_size=2) for rank in range(2)]

    batches = [list(loader)[0] for loader in loaders]  # 4 and 3 images

    averaged = sum(values[batch.labels].mean() * batch.weight for batch in batches) / 2
    assert averaged.item() == pytest.approx(values.mean().item(), rel=1e-6)


def test_an_evaluation_sample_is_fixed_by_its_seed_and_free_of_augmentation():
    loader = BatchLoader(*numbered_images(100), 10, shuffle=True, augmentation=lambda images: images + 1)

    first, again, other = (loader.evaluation_sample(20, seed) for seed in (0, 0, 1))

    chosen = sum(labels_of(first), [])
    assert len(chosen) == len(set(chosen)) == 20
    assert chosen == sum(labels_of(again), [])
    assert chosen != sum(labels_of(other), [])
    assert all(batch.images.max() == 0 for batch in first)
    assert all(batch.images.min() == 1 for batch in loader)


def test_neighbouring_numbers_give_unrelated_seeds():
    seeds = {mixed_seed(a, b) for a in range(50) for b in range(50)}

    assert len(seeds) == 2500
    assert all(0 <= seed < 2**63 for seed in seeds)


def test_pixel_statistics_are_those_of_all_images():
    images = torch.randint(0, 256, (30, 5, 5), dtype=torch.uint8, generator=torch.Generator().manual_seed(0))

    mean, std = BatchLoader(images, torch.zeros(30), 7).pixel_statistics()

    assert mean == pytest.approx(images.numpy().mean() / 255, rel=1e-12)
    assert std == pytest.approx(images.numpy().std() / 255, rel=1e-12)
