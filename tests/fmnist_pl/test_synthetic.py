"""Synthetic images: the same from the same seed, balanced, of ten classes, kept in a file that is checked."""

import hashlib
import multiprocessing

import numpy as np
import pytest

from fmnist_pl.dataset.synthetic import BLOCK, generate, load_synthetic, render


def sha256(arrays):
    return hashlib.sha256(b"".join(array.tobytes() for array in arrays)).hexdigest()


def test_seed_0_renders_these_bytes_on_every_machine():
    assert sha256(generate("train", 0, 500)) == "d5583eed005ea3b0493a1753e977434a851ac90f30e69ea0ab41371b29740089"
    assert sha256(generate("test", 0, 500)) == "ccca9d127378e9a06a1935186d01bedc751338c46aceae259b6feebe2685ba23"


def test_another_seed_or_split_gives_other_images():
    rendered = [generate(split, seed, 30)[0] for split, seed in (("train", 0), ("train", 1), ("test", 0), ("test", 1))]
    assert len({image.tobytes() for images in rendered for image in images}) == 120


@pytest.mark.parametrize(("images", "counts"), [(500, [50] * 10), (13, [2, 2, 2, 1, 1, 1, 1, 1, 1, 1])])
def test_classes_are_equally_frequent(images, counts):
    pixels, labels = generate("train", 0, images)
    assert pixels.shape == (images, 28, 28)
    assert (pixels.dtype, labels.dtype) == (np.uint8, np.uint8)
    assert np.bincount(labels).tolist() == counts


def test_a_block_border_changes_no_image():
    np.testing.assert_array_equal(render(3, BLOCK + 5, 0)[:BLOCK], render(3, BLOCK, 0))


@pytest.mark.parametrize("label", range(10))
def test_images_show_something_bright_on_black(label):
    images = render(label, 100, 0).astype(float)
    assert np.median(images[:, :2, :]) == 0
    assert images[:, 6:24, 6:22].mean() > 25
    assert 0.05 < (images > 40).mean() < 0.7


def test_nearest_class_mean_tells_classes_apart_but_not_perfectly():
    # A linear baseline: far above the 10 % of chance, and far below what would make the stand-in a toy.
    images, labels = generate("train", 0, 2000)
    tests, truth = generate("test", 0, 500)
    means = np.stack([images[labels == label].mean(0).ravel() for label in range(10)])
    nearest = ((tests.reshape(-1, 1, 784) - means) ** 2).sum(-1).argmin(1)
    assert 0.4 < (nearest == truth).mean() < 0.9


def test_the_second_load_reads_the_file(tmp_path, monkeypatch):
    made = load_synthetic(tmp_path, "train", images=40)
    assert sha256(made) == sha256(generate("train", 0, 40))
    monkeypatch.setattr("fmnist_pl.dataset.synthetic.render", None)  # rendering again would fail
    assert sha256(load_synthetic(tmp_path, "train", images=40)) == sha256(made)


def test_seeds_splits_and_sizes_are_kept_apart(tmp_path):
    for _ in range(2):  # rendered, then read
        for arguments in (("train", 1, 30), ("train", 2, 30), ("test", 1, 30), ("train", 1, 31)):
            assert sha256(load_synthetic(tmp_path, *arguments)) == sha256(generate(*arguments))


@pytest.mark.parametrize("change", ["emptied", "cut", "shifted", "a bit flipped in the middle", "removed"])
def test_a_damaged_file_is_made_again(tmp_path, change):
    intact = load_synthetic(tmp_path, "train", images=40)
    (path,) = tmp_path.glob("*.npz")
    data = path.read_bytes()
    half = len(data) // 2
    damaged = {
        "emptied": b"",
        "cut": data[:-1],
        "shifted": data[1:],
        "a bit flipped in the middle": data[:half] + bytes([data[half] ^ 1]) + data[half + 1 :],
    }
    path.unlink() if change == "removed" else path.write_bytes(damaged[change])
    assert sha256(load_synthetic(tmp_path, "train", images=40)) == sha256(intact)
    assert path.read_bytes() == data


def test_where_nothing_can_be_written_they_are_rendered_in_memory(tmp_path):
    (tmp_path / "file").write_text("not a folder")
    assert sha256(load_synthetic(tmp_path / "file", "train", images=40)) == sha256(generate("train", 0, 40))


def test_two_processes_at_once_leave_one_intact_file(tmp_path):
    context = multiprocessing.get_context("spawn")
    processes = [context.Process(target=load_synthetic, args=(tmp_path, "train", 0, 40)) for _ in range(2)]
    for process in processes:
        process.start()
    for process in processes:
        process.join(300)
    assert [process.exitcode for process in processes] == [0, 0]
    assert [path.suffix for path in tmp_path.iterdir()] == [".npz"]
    assert sha256(load_synthetic(tmp_path, "train", 0, 40)) == sha256(generate("train", 0, 40))
