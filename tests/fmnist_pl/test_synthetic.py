"""Drawn garments: the same from the same seed, balanced, of ten kinds, kept in files that heal themselves."""

import gzip
import hashlib
import multiprocessing

import numpy as np
import pytest

from fmnist_pl.dataset.files import load_split, raw_folder
from fmnist_pl.dataset.photography import BLOCK, draw
from fmnist_pl.dataset.synthetic import generate, load_synthetic, synthetic_folder, write_synthetic
from training_health.errors import UserError


def load(root, split="train", seed=0):
    return load_synthetic(root, split, seed, train_images=40, test_images=20)


def sha256(arrays):
    return hashlib.sha256(b"".join(array.tobytes() for array in arrays)).hexdigest()


def test_seed_0_draws_these_bytes_on_every_machine():
    assert sha256(generate("train", 0, 500)) == "d5583eed005ea3b0493a1753e977434a851ac90f30e69ea0ab41371b29740089"
    assert sha256(generate("test", 0, 500)) == "ccca9d127378e9a06a1935186d01bedc751338c46aceae259b6feebe2685ba23"


def test_another_seed_or_split_draws_other_images():
    drawn = [generate(split, seed, 30)[0] for split, seed in (("train", 0), ("train", 1), ("test", 0), ("test", 1))]
    assert len({image.tobytes() for images in drawn for image in images}) == 120


@pytest.mark.parametrize(("images", "counts"), [(500, [50] * 10), (13, [2, 2, 2, 1, 1, 1, 1, 1, 1, 1])])
def test_classes_have_equal_shares(images, counts):
    drawn, labels = generate("train", 0, images)
    assert drawn.shape == (images, 28, 28)
    assert (drawn.dtype, labels.dtype) == (np.uint8, np.uint8)
    assert np.bincount(labels).tolist() == counts


def test_labels_are_in_mixed_order():
    labels = generate("train", 0, 1000)[1]
    assert np.bincount(labels[:200], minlength=10).min() >= 8  # 20 expected, standard deviation about 4


def test_a_block_border_changes_no_image():
    np.testing.assert_array_equal(draw(3, BLOCK + 5, 0)[:BLOCK], draw(3, BLOCK, 0))


@pytest.mark.parametrize("label", range(10))
def test_images_show_a_bright_garment_on_black(label):
    images = draw(label, 100, 0).astype(float)
    assert np.median(images[:, :2, :]) == 0
    assert images[:, 6:24, 6:22].mean() > 25
    assert 0.05 < (images > 40).mean() < 0.7


def test_nearest_class_mean_tells_garments_apart_but_not_perfectly():
    # A linear baseline: far above the 10 % of chance, and far below what would make the stand-in a toy.
    images, labels = generate("train", 0, 2000)
    tests, truth = generate("test", 0, 500)
    means = np.stack([images[labels == label].mean(0).ravel() for label in range(10)])
    nearest = ((tests.reshape(-1, 1, 784) - means) ** 2).sum(-1).argmin(1)
    assert 0.4 < (nearest == truth).mean() < 0.9


@pytest.mark.parametrize(("seed", "images"), [(0, 0), (-1, 10)])
def test_impossible_arguments_are_refused(seed, images):
    with pytest.raises(UserError, match="at least one image and a seed from 0"):
        generate("train", seed, images)


def test_written_files_are_read_like_the_real_ones(tmp_path):
    dataset = write_synthetic(tmp_path, seed=2, train_images=40, test_images=20)
    read = load_split(tmp_path, "test", download=False, keras_cache=None, dataset=dataset)
    for one, other in zip(read, generate("test", 2, 20), strict=True):
        np.testing.assert_array_equal(one, other)


def test_torchvision_reads_the_written_files(tmp_path):
    from torchvision.datasets import FashionMNIST

    write_synthetic(tmp_path, train_images=40, test_images=20)
    for name, _ in FashionMNIST.resources:  # torchvision unpacks only what it downloads
        packed = raw_folder(tmp_path) / name
        packed.with_suffix("").write_bytes(gzip.decompress(packed.read_bytes()))
    data = FashionMNIST(str(tmp_path), train=True)
    np.testing.assert_array_equal(data.data, generate("train", 0, 40)[0])


def test_the_second_load_reads_the_files(tmp_path, monkeypatch):
    drawn = sha256(load(tmp_path)), sha256(load(tmp_path, "test"))
    assert drawn == (sha256(generate("train", 0, 40)), sha256(generate("test", 0, 20)))
    monkeypatch.setattr("fmnist_pl.dataset.synthetic.draw", None)  # drawing again would fail
    assert (sha256(load(tmp_path)), sha256(load(tmp_path, "test"))) == drawn


def test_seeds_are_kept_apart(tmp_path):
    assert sha256(load(tmp_path, seed=1)) != sha256(load(tmp_path, seed=2))
    assert sha256(load(tmp_path, seed=1)) == sha256(generate("train", 1, 40))


@pytest.mark.parametrize("name", ["train-images-idx3-ubyte.gz", "train-labels-idx1-ubyte.gz", "synthetic.json"])
@pytest.mark.parametrize("damage", [lambda data: b"", lambda data: data[:-1], lambda data: data[1:], None])
def test_damaged_files_are_drawn_anew(tmp_path, name, damage):
    intact = load(tmp_path)
    path = raw_folder(synthetic_folder(tmp_path, 0, 40, 20)) / name
    before = path.read_bytes()
    path.unlink() if damage is None else path.write_bytes(damage(before))
    assert sha256(load(tmp_path)) == sha256(intact)
    assert path.read_bytes() == before


def test_where_nothing_can_be_written_they_are_drawn_in_memory(tmp_path):
    (tmp_path / "file").write_text("not a folder")
    assert sha256(load(tmp_path / "file")) == sha256(generate("train", 0, 40))


def test_two_processes_at_once_leave_intact_files(tmp_path):
    context = multiprocessing.get_context("spawn")
    processes = [context.Process(target=load_synthetic, args=(tmp_path, "train", 0, 40, 20)) for _ in range(2)]
    for process in processes:
        process.start()
    for process in processes:
        process.join(30)
    assert [process.exitcode for process in processes] == [0, 0]
    assert sha256(load(tmp_path)) == sha256(generate("train", 0, 40))
    assert not list(tmp_path.rglob("*.part"))
