"""Per-image augmentation of a batch."""

import torch

from fmnist_pl.augmentation import RandomErase, RandomFlip, RandomShift


def test_flipping_mirrors_some_images_and_leaves_the_others():
    torch.manual_seed(0)
    images = torch.rand(400, 1, 6, 6)

    out = RandomFlip()(images)

    mirrored = (out == images.flip(-1)).all(dim=(1, 2, 3))
    kept = (out == images).all(dim=(1, 2, 3))
    assert (mirrored | kept).all()
    assert 150 < mirrored.sum() < 250


def test_shifting_moves_a_point_by_at_most_its_limit_in_each_direction():
    torch.manual_seed(0)
    images = torch.zeros(500, 1, 9, 9)
    images[:, 0, 4, 4] = 1

    rows, columns = RandomShift(2)(images).nonzero()[:, 2:].T

    assert sorted(rows.unique().tolist()) == [2, 3, 4, 5, 6]
    assert sorted(columns.unique().tolist()) == [2, 3, 4, 5, 6]


def test_shifting_fills_with_zeros():
    torch.manual_seed(0)

    out = RandomShift(2)(torch.ones(200, 1, 5, 5))

    assert sorted(out.sum(dim=(1, 2, 3)).unique().tolist()) == [9, 12, 15, 16, 20, 25]


def test_erasing_sets_one_rectangle_to_zero():
    torch.manual_seed(0)

    out = RandomErase(probability=1.0, smallest=3, largest=5)(torch.ones(300, 1, 28, 28))

    for image in out[:, 0]:
        rows, columns = (image == 0).any(dim=1), (image == 0).any(dim=0)
        assert torch.equal(image == 0, rows[:, None] & columns[None, :])
        assert rows.sum() <= 5
        assert columns.sum() <= 5


def test_erasing_leaves_the_images_that_it_does_not_choose():
    images = torch.rand(10, 1, 8, 8)

    assert torch.equal(RandomErase(probability=0.0)(images), images)
