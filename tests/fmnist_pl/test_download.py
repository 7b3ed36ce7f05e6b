"""What is missing is downloaded once and verified before it gets its name."""

import errno
import multiprocessing
import os

import numpy as np
import pytest
from torchvision.datasets import FashionMNIST

from fmnist_pl.dataset.files import FASHION_MNIST, load_split
from tests.fmnist_pl.small_dataset import (
    PACKED,
    TEST_LABELS,
    TRAIN_IMAGES,
    describe,
    files_in,
    refusing_url,
    serve,
    write_raw,
)
from training_health.errors import UserError

TRAIN_X, TRAIN_Y, TEST_X, TEST_Y = PACKED


@pytest.fixture(autouse=True)
def only_the_mirrors_of_the_test(monkeypatch):
    monkeypatch.setenv("no_proxy", "*")
    monkeypatch.delenv("FMNIST_MIRRORS", raising=False)


def load(root, *mirrors, split="train"):
    return load_split(root, split, dataset=describe(mirrors))


def test_the_mirrors_are_torchvisions():
    assert FASHION_MNIST.addresses() == FashionMNIST.mirrors


def test_the_environment_names_other_mirrors_and_https_comes_first(monkeypatch):
    monkeypatch.setenv("FMNIST_MIRRORS", "http://one/a/, https://two, http://three,")
    assert FASHION_MNIST.addresses() == ["https://two", "http://one/a/", "http://three"]


@pytest.mark.parametrize("end", ["", "/"])
def test_downloads_what_the_split_needs_and_keeps_it(tmp_path, end, capsys):
    with serve() as mirror:
        images, _ = load(tmp_path, mirror.url.rstrip("/") + end)
        load(tmp_path, mirror.url)
    np.testing.assert_array_equal(images, TRAIN_IMAGES)
    assert mirror.requests == {TRAIN_X: 1, TRAIN_Y: 1}
    assert files_in(tmp_path) == {TRAIN_X, TRAIN_Y}
    assert f"downloading {mirror.url}{TRAIN_X}" in capsys.readouterr().err


def test_downloading_can_be_switched_off(tmp_path):
    with serve() as mirror, pytest.raises(UserError, match="no Fashion-MNIST data"):
        load_split(tmp_path, "train", download=False, dataset=describe((mirror.url,)))
    assert not mirror.requests
    assert not list(tmp_path.iterdir())


def test_a_wrong_file_of_the_users_is_not_replaced(tmp_path):
    folder = write_raw(tmp_path, {**PACKED, TRAIN_X: b"mine"})
    with serve() as mirror, pytest.raises(UserError, match="not usable"):
        load(tmp_path, mirror.url)
    assert not mirror.requests
    assert (folder / TRAIN_X).read_bytes() == b"mine"


BAD_ANSWERS = {
    "missing": ({TRAIN_X: b""}, "", "404"),
    "cut short": ({}, TRAIN_X, "IncompleteRead"),
    "a web page": ({TRAIN_X: b"<html>pay for wifi</html>"}, "", "SHA-256"),
    "another file": ({TRAIN_X: PACKED[TEST_X]}, "", "SHA-256"),
    "cut, but of the length promised": ({TRAIN_X: PACKED[TRAIN_X][:-9]}, "", "damaged gzip"),
}


@pytest.mark.parametrize("kind", BAD_ANSWERS)
def test_a_bad_answer_is_never_installed_and_named_with_its_mirror(tmp_path, kind):
    changes, cut, reason = BAD_ANSWERS[kind]
    with serve(changes, cut) as mirror, pytest.raises(UserError) as caught:
        load(tmp_path, mirror.url)
    (line,) = [line for line in str(caught.value).splitlines() if f"{mirror.url}{TRAIN_X}: " in line]
    assert reason in line
    assert files_in(tmp_path) == set()


def test_the_next_mirror_takes_over_for_all_further_files(tmp_path):
    with serve({TRAIN_X: b""}) as bad, serve() as good:
        load(tmp_path, bad.url, good.url)
    assert bad.requests == {TRAIN_X: 1}
    assert good.requests == {TRAIN_X: 1, TRAIN_Y: 1}


def test_a_mirror_that_cannot_be_reached_and_one_that_is_no_address_are_named_with_their_reasons(tmp_path):
    refusing = refusing_url()
    with pytest.raises(UserError) as caught:
        load(tmp_path, refusing, "/mnt/mirror")
    assert f"{refusing}{TRAIN_X}: Connection refused" in str(caught.value)
    assert f"/mnt/mirror/{TRAIN_X}: Invalid URL" in str(caught.value)


def test_a_mirror_that_says_nothing_is_given_up(tmp_path, monkeypatch):
    monkeypatch.setattr("fmnist_pl.dataset.files.TIMEOUT", 0.2)
    with serve(delay=60.0) as silent, pytest.raises(UserError, match="timed out"):
        load(tmp_path, silent.url)


def test_what_a_killed_download_left_is_removed(tmp_path):
    folder = write_raw(tmp_path, {f".{TRAIN_X}.4711.part": b"half"})
    with serve() as mirror:
        load(tmp_path, mirror.url)
    assert not list(folder.glob(".*.part"))


def test_a_full_disk_leaves_nothing(tmp_path, monkeypatch):
    def full(descriptor):
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr("training_health.durable_file.os.fsync", full)
    with serve() as mirror, pytest.raises(UserError, match="No space left on device"):
        load(tmp_path, mirror.url)
    assert files_in(tmp_path) == set()


def load_both(root, dataset):
    for split in ("train", "test"):
        load_split(root, split, dataset=dataset)


def test_two_processes_at_once_download_each_file_once(tmp_path):
    context = multiprocessing.get_context("spawn")
    with serve(delay=0.2) as mirror:  # slow enough for both to want the first file
        arguments = tmp_path, describe((mirror.url,))
        processes = [context.Process(target=load_both, args=arguments) for _ in range(2)]
        for process in processes:
            process.start()
        for process in processes:
            process.join(300)
    assert [process.exitcode for process in processes] == [0, 0]
    assert mirror.requests == dict.fromkeys(PACKED, 1)
    np.testing.assert_array_equal(load(tmp_path)[0], TRAIN_IMAGES)
    np.testing.assert_array_equal(load(tmp_path, split="test")[1], TEST_LABELS)
