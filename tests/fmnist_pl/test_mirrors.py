"""What is missing is downloaded once, verified, and only what was downloaded is ever replaced."""

import errno
import multiprocessing
import os
import time

import numpy as np
import pytest
from torchvision.datasets import FashionMNIST

from fmnist_pl.dataset.files import load_split, prepare
from fmnist_pl.dataset.idx_format import pack
from fmnist_pl.dataset.mirrors import mirror_urls
from tests.fmnist_pl.small_dataset import (
    CONTENTS,
    PACKED,
    TEST_LABELS,
    TRAIN_IMAGES,
    describe,
    refusing_url,
    serve,
    serve_bytes,
    write_raw,
)
from training_health.errors import UserError

TRAIN_X, TRAIN_Y, TEST_X, TEST_Y = PACKED


@pytest.fixture(autouse=True)
def no_proxy(monkeypatch):
    monkeypatch.setenv("no_proxy", "*")


def load(root, *mirrors, split="train", patience=5.0):
    return load_split(root, split, keras_cache=None, dataset=describe(mirrors, patience))


def files_in(root):
    return {path.name for path in (root / "FashionMNIST" / "raw").iterdir()}


def test_the_mirrors_are_torchvisions(monkeypatch):
    monkeypatch.delenv("FMNIST_MIRRORS", raising=False)
    assert list(mirror_urls()) == FashionMNIST.mirrors


def test_the_environment_names_other_mirrors(monkeypatch):
    monkeypatch.setenv("FMNIST_MIRRORS", "http://one/a/, https://two,")
    assert mirror_urls() == ("http://one/a/", "https://two")


def test_a_mirror_that_is_no_web_address_is_refused(monkeypatch):
    monkeypatch.setenv("FMNIST_MIRRORS", "/mnt/mirror")
    with pytest.raises(UserError, match=r"FMNIST_MIRRORS holds '/mnt/mirror': expected .* http"):
        mirror_urls()


def test_the_environment_is_followed_by_load_split(tmp_path, monkeypatch):
    with serve() as mirror:
        monkeypatch.setenv("FMNIST_MIRRORS", mirror.url.rstrip("/"))
        images, _ = load_split(tmp_path, "train", keras_cache=None, dataset=describe(mirrors=None))
    np.testing.assert_array_equal(images, TRAIN_IMAGES)


def test_downloads_what_the_split_needs_and_keeps_it(tmp_path):
    with serve() as mirror:
        images, _ = load(tmp_path, mirror.url)
        load(tmp_path, mirror.url)
    np.testing.assert_array_equal(images, TRAIN_IMAGES)
    assert mirror.requests == {TRAIN_X: 1, TRAIN_Y: 1}
    assert files_in(tmp_path) - {".lock"} == {TRAIN_X, TRAIN_Y, f"{TRAIN_X}.receipt", f"{TRAIN_Y}.receipt"}


def test_prepare_downloads_all_four(tmp_path):
    with serve() as mirror:
        prepare(tmp_path, keras_cache=None, dataset=describe((mirror.url,)))
    assert mirror.requests == dict.fromkeys(PACKED, 1)
    np.testing.assert_array_equal(load(tmp_path, split="test")[1], TEST_LABELS)


def test_downloading_can_be_switched_off(tmp_path):
    with serve() as mirror, pytest.raises(UserError, match="downloading is switched off"):
        load_split(tmp_path, "train", download=False, keras_cache=None, dataset=describe((mirror.url,)))
    assert not mirror.requests
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("damage", [lambda data: data[:-1], lambda data: b"", lambda data: pack(b"other content")])
def test_a_damaged_download_of_ours_is_replaced_once(tmp_path, damage):
    with serve() as mirror:
        load(tmp_path, mirror.url)
        path = tmp_path / "FashionMNIST" / "raw" / TRAIN_X
        path.write_bytes(damage(path.read_bytes()))
        images, _ = load(tmp_path, mirror.url)
    np.testing.assert_array_equal(images, TRAIN_IMAGES)
    assert mirror.requests == {TRAIN_X: 2, TRAIN_Y: 1}


def test_a_damaged_download_that_cannot_be_replaced_is_named(tmp_path):
    with serve() as mirror:
        load(tmp_path, mirror.url)
    path = tmp_path / "FashionMNIST" / "raw" / TRAIN_X
    path.write_bytes(b"")
    with pytest.raises(UserError, match=f"{TRAIN_X}: a download that got damaged"):
        load(tmp_path, refusing_url())
    assert path.read_bytes() == b""


def test_a_damaged_file_of_the_users_is_not_replaced(tmp_path):
    folder = write_raw(tmp_path, {**PACKED, TRAIN_X: b"mine"})
    with serve() as mirror, pytest.raises(UserError, match="It is not a download of this program"):
        load(tmp_path, mirror.url)
    assert not mirror.requests
    assert (folder / TRAIN_X).read_bytes() == b"mine"


def test_a_cut_transfer_is_repeated(tmp_path):
    with serve({TRAIN_X: [None, PACKED[TRAIN_X]]}) as mirror:
        images, _ = load(tmp_path, mirror.url)
    np.testing.assert_array_equal(images, TRAIN_IMAGES)
    assert mirror.requests == {TRAIN_X: 2, TRAIN_Y: 1}


BAD_ANSWERS = {
    "missing": ([], "HTTP 404", 1),
    "always cut": ([None], "cut short after", 2),
    "empty": ([b""], "an empty file", 2),
    "a web page": ([b"<html>pay for wifi</html>"], "a web page", 2),
    "unpacked": ([CONTENTS[TRAIN_X.removesuffix(".gz")]], "an IDX file of images", 2),
    "another file": ([PACKED[TEST_X]], "the content of t10k-images-idx3-ubyte (are files swapped?)", 2),
    "another content": ([pack(b"x" * 15696)], "content with SHA-256", 2),
    "cut, but of the length promised": ([PACKED[TRAIN_X][:-9]], "a gzip stream that is cut short", 2),
    "endless": ([bytes(200_000)], "more than the 81,232 bytes that the file can have", 1),
}


@pytest.mark.parametrize("kind", BAD_ANSWERS)
def test_a_bad_answer_is_never_installed_and_named_with_its_mirror(tmp_path, kind):
    bodies, reason, requests = BAD_ANSWERS[kind]
    with serve({TRAIN_X: bodies}) as mirror, pytest.raises(UserError) as caught:
        load(tmp_path, mirror.url)
    assert f"- {mirror.url}{TRAIN_X}: " in str(caught.value)
    assert reason in str(caught.value)
    assert mirror.requests[TRAIN_X] == requests
    assert files_in(tmp_path) <= {".lock"}


def test_the_next_mirror_takes_over_for_all_further_files(tmp_path):
    with serve({TRAIN_X: []}) as bad, serve() as good:
        load(tmp_path, bad.url, good.url)
    assert bad.requests == {TRAIN_X: 1}
    assert good.requests == {TRAIN_X: 1, TRAIN_Y: 1}


def test_silent_and_refusing_mirrors_are_all_named_in_time(tmp_path):
    refusing = refusing_url()
    started = time.monotonic()
    with (
        serve_bytes() as silent,
        serve_bytes(b"garbage\r\n\r\n", then_close=True) as garbage,
        pytest.raises(UserError) as caught,
    ):
        load(tmp_path, silent, refusing, garbage, patience=0.3)
    assert time.monotonic() - started < 2.0
    message = str(caught.value)
    assert f"{silent}{TRAIN_X}: no answer within 0.3 s" in message
    assert f"{refusing}{TRAIN_X}: Connection refused" in message
    assert f"{garbage}{TRAIN_X}: not a valid HTTP answer" in message
    assert "DATASET=synthetic" in message


def test_what_a_killed_download_left_is_removed(tmp_path):
    folder = write_raw(tmp_path, {f".{TRAIN_X}.4711-abcdef00.part": b"half"})
    with serve() as mirror:
        load(tmp_path, mirror.url)
    assert not list(folder.glob(".*.part"))


def test_a_root_that_cannot_be_made_is_named(tmp_path):
    (tmp_path / "file").write_text("not a folder")
    with serve() as mirror, pytest.raises(UserError, match="cannot be written to: Not a directory"):
        load(tmp_path / "file", mirror.url)
    assert not mirror.requests


def test_a_full_disk_ends_at_once_and_leaves_nothing(tmp_path, monkeypatch):
    def full(descriptor):
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr("fmnist_pl.dataset.verified_file.os.fsync", full)
    with serve() as mirror, pytest.raises(UserError, match="cannot be written to: No space left on device"):
        load(tmp_path, mirror.url)
    assert files_in(tmp_path) <= {".lock"}


def test_two_processes_at_once_download_each_file_once(tmp_path):
    context = multiprocessing.get_context("spawn")
    with serve(delay=0.2) as mirror:  # slow enough for both to want the first file
        arguments = {"keras_cache": None, "dataset": describe((mirror.url,))}
        processes = [context.Process(target=prepare, args=(tmp_path,), kwargs=arguments) for _ in range(2)]
        for process in processes:
            process.start()
        for process in processes:
            process.join(30)
    assert [process.exitcode for process in processes] == [0, 0]
    assert mirror.requests == dict.fromkeys(PACKED, 1)
    np.testing.assert_array_equal(load(tmp_path)[0], TRAIN_IMAGES)
