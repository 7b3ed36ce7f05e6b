"""How many examples a batch holds: right, or unknown."""

import math
import random
from dataclasses import dataclass
from types import SimpleNamespace
from typing import NamedTuple

import pytest
import torch
from torch.utils.data import BatchSampler, DataLoader, SequentialSampler

from training_health.batches import count_examples, size_of


@dataclass
class Pair:
    x: torch.Tensor
    y: torch.Tensor


class Named(NamedTuple):
    inputs: torch.Tensor
    labels: torch.Tensor


def time_first(*shape: int) -> torch.Tensor:
    return torch.zeros(5, 8, *shape)


@pytest.mark.parametrize(
    ("batch", "examples"),
    [
        (torch.zeros(8, 3), 8),
        ([torch.zeros(8, 3), torch.zeros(8)], 8),
        ({"a": {"b": torch.zeros(8, 3)}, "names": ["x"] * 9}, 8),
        (Pair(torch.zeros(8, 3), torch.zeros(8)), 8),
        (Pair(time_first(3), torch.zeros(8)), 8),
        ((time_first(3), torch.zeros(8)), 8),
        ({"series": time_first(), "labels": torch.zeros(8)}, 8),
        (Named(time_first(), torch.zeros(8)), 8),
        (SimpleNamespace(x=torch.zeros(245, 6), edge_index=torch.zeros(2, 700), y=torch.zeros(245), num_graphs=32), 32),
        (SimpleNamespace(x=torch.zeros(245, 6), edge_index=torch.zeros(2, 700), y=torch.zeros(245)), 1),
        ((time_first(3), torch.zeros(7, 8)), None),
        ([torch.zeros(3, 6, 9)] * 8, None),  # pictures
        ([torch.zeros(8, 3)] * 3, 8),
        (torch.zeros(()), None),
        (["only", "words"], None),
        (object(), None),
    ],
)
def test_the_examples_that_a_batch_shows(batch, examples):
    assert count_examples(batch) == examples


def loader(count: int, **options) -> DataLoader:
    return DataLoader(range(count), **options)


def by_index_batches(count: int, size: int) -> DataLoader:
    return loader(count, batch_size=None, sampler=BatchSampler(SequentialSampler(range(count)), size, False))


class Buckets:
    """A batch sampler of the user's own: of batches of other lengths in each pass, if ``vary``."""

    def __init__(self, vary: bool = False) -> None:
        self.vary, self.passes = vary, 0

    def __iter__(self):
        self.passes += self.vary
        random.random()
        yield from (range(6 + self.passes), [9, 10, 11])


ODD = (time_first(3), torch.zeros(7, 8))  # does not show its examples


@pytest.mark.parametrize(
    ("batch", "source", "idx", "options", "examples"),
    [
        (ODD, loader(13, batch_size=5), 0, {}, 5),
        (ODD, loader(13, batch_size=5), 2, {}, 3),  # the last batch
        (ODD, by_index_batches(13, 5), 2, {}, 3),
        (ODD, loader(13, batch_size=5), 0, {"logged": 800}, 5),  # which weighs by tokens
        (ODD, loader(13, batch_size=1), 0, {"logged": 4}, 4),  # an index may stand for a whole batch
        (torch.zeros(8), loader(13, batch_size=1), 0, {}, 8),
        (torch.zeros(8), loader(13, batch_size=None, sampler=[0, 1]), 0, {}, 8),  # each index one
        (ODD, loader(13, batch_sampler=list(torch.arange(12).split(3))), 0, {}, 3),
        (ODD, loader(13, batch_sampler=[range(5), range(5, 9)]), 1, {}, 4),
        (torch.zeros(8), None, 0, {"logged": 2}, 2),
        (torch.zeros(8), None, 0, {"logged": 1}, 8),  # said where it does not matter
        (torch.zeros(8), loader(13, batch_size=5), 0, {"own": lambda batch: len(batch) // 4}, 2),
        (torch.zeros(8), None, 0, {"own": lambda batch: (batch == 0).sum()}, 8),  # a tensor
        (SimpleNamespace(x=torch.zeros(245, 6), num_graphs=32), None, 0, {"logged": 245}, 32),  # which weighs by nodes
    ],
)
def test_the_users_own_count_comes_first_then_the_loader_the_log_and_the_batch(batch, source, idx, options, examples):
    assert size_of(batch, source, idx, **options) == (examples, examples)


@pytest.mark.parametrize(
    ("batch", "examples"),
    [
        ((torch.zeros(3, 9), torch.zeros(3)), 3),
        (SimpleNamespace(x=torch.zeros(245, 6), num_graphs=3), 3),
        (SimpleNamespace(x=torch.zeros(245, 6), num_graphs=10), 5),  # two graphs to an example
        ((torch.zeros(37, 9), torch.zeros(37)), 5),  # tokens
        ({"images": torch.zeros(5, 3, 8, 8), "boxes": torch.zeros(3, 4), "labels": torch.zeros(3)}, 5),  # of objects
        ((torch.zeros(4, 3, 2), torch.zeros(3)), math.nan),  # time first and broken ones left out, or objects
    ],
)
def test_what_a_collation_left_of_the_five_examples_drawn_is_counted(batch, examples):
    assert size_of(batch, loader(13, batch_size=5), 0) == pytest.approx((examples, examples), nan_ok=True)


SERIES = (torch.zeros(15, 6, 4), torch.zeros(15, 6, 2))  # time first


@pytest.mark.parametrize(
    ("batch", "sampler", "idx", "examples"),
    [
        (SERIES, Buckets(), 0, 6),
        ((torch.zeros(15, 3, 4), torch.zeros(15, 3, 2)), Buckets(), 1, 3),
        ((torch.zeros(2, 8), torch.zeros(2)), Buckets(), 0, 2),  # broken ones left out
        (SERIES, Buckets(vary=True), 0, math.nan),
        (SERIES, [[0], [1]], 0, math.nan),  # an index may stand for a whole batch
        ((torch.zeros(1, 6, 4), torch.zeros(1, 6, 2)), [[0], [1]], 0, 1),
        ((torch.zeros(8, 3, 9, 9), torch.zeros(8, 3, 9, 9)), [[0], [1]], 0, 8),  # pictures
    ],
)
def test_a_batch_sampler_of_the_users_own_tells_how_many_where_all_passes_are_alike(batch, sampler, idx, examples):
    source = loader(13, batch_sampler=sampler)

    assert size_of(batch, source, idx) == pytest.approx((examples, examples), nan_ok=True)


def test_asking_a_batch_sampler_moves_neither_it_nor_the_random_numbers():
    sampler, state = Buckets(vary=True), random.getstate()

    size_of(SERIES, loader(13, batch_sampler=sampler), 0)

    assert (sampler.passes, random.getstate()) == (0, state)


@pytest.mark.parametrize(
    ("batch", "logged"),
    [
        (ODD, None),  # which nothing shows
        ((torch.zeros(8, 7), torch.zeros(8, 7)), 56),  # tokens, perhaps, or a batch with time first
        (SERIES, None),
        (SERIES, 1),  # said where it does not matter
        (torch.zeros(8), math.nan),  # the step named several
    ],
)
def test_what_nothing_shows_or_what_is_contradicted_is_unknown(batch, logged):
    assert all(map(math.isnan, size_of(batch, None, 0, logged=logged)))


@pytest.mark.parametrize("own", [lambda batch: batch.shape, lambda batch: 1 / 0, lambda batch: math.inf])
def test_where_the_users_own_count_fails_the_size_is_unknown(own):
    assert all(map(math.isnan, size_of(torch.zeros(8, 3), None, 0, own)))
