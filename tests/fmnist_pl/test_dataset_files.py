"""The four files are found where they may lie, and used only if they are intact."""

import gzip
import os
import shutil
import tempfile
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from torchvision.datasets import FashionMNIST

from fmnist_pl.dataset.files import CLASS_NAMES, FASHION_MNIST, load_split
from tests.fmnist_pl.small_dataset import (
    CONTENTS,
    PACKED,
    TEST_IMAGES,
    TEST_LABELS,
    TRAIN_IMAGES,
    TRAIN_LABELS,
    describe,
    write_raw,
)
from training_health.errors import UserError

TRAIN_X, TRAIN_Y, TEST_X, TEST_Y = CONTENTS


def load(root, split="train", cache=None):
    return load_split(root, split, dataset=describe(caches=(str(cache),) if cache else ()))


def snapshot(folder):
    """Name, content and time of change of every file."""
    return {path: (path.read_bytes(), path.stat().st_mtime_ns) for path in folder.rglob("*") if path.is_file()}


def test_names_of_classes_and_files_are_torchvisions():
    assert list(CLASS_NAMES) == FashionMNIST.classes
    assert [f"{file.name}.gz" for file in FASHION_MNIST.all] == [name for name, _ in FashionMNIST.resources]


PACKED_AGAIN = {f"{name}.gz": gzip.compress(data, compresslevel=1, mtime=99) for name, data in CONTENTS.items()}


@pytest.mark.parametrize("files", [PACKED, CONTENTS, PACKED_AGAIN], ids=["packed", "unpacked", "packed again"])
def test_reads_torchvisions_layout(tmp_path, files):
    write_raw(tmp_path, files)
    for split, arrays in (("train", (TRAIN_IMAGES, TRAIN_LABELS)), ("test", (TEST_IMAGES, TEST_LABELS))):
        for read, written in zip(load(tmp_path, split), arrays, strict=True):
            np.testing.assert_array_equal(read, written)
            assert (read.dtype, read.flags.writeable) == (np.uint8, True)


def test_reads_files_that_lie_in_the_root_itself(tmp_path):
    write_raw(tmp_path / "made").rename(tmp_path / "plain")
    np.testing.assert_array_equal(load(tmp_path / "plain")[0], TRAIN_IMAGES)


@pytest.mark.parametrize(
    "folder",
    ["home/.keras/datasets/fashion-mnist", "keras/datasets/fashion-mnist", "home/data/FashionMNIST/raw",
     "work/data/FashionMNIST/raw"],
)  # fmt: skip
def test_reads_the_copies_of_other_programs_in_place(tmp_path, monkeypatch, folder, capsys):
    monkeypatch.setenv("HOME", str(tmp_path / "home"))
    monkeypatch.setenv("KERAS_HOME", str(tmp_path / "keras"))
    (tmp_path / "work").mkdir()
    monkeypatch.chdir(tmp_path / "work")
    shutil.copytree(write_raw(tmp_path / "made"), tmp_path / folder)

    images, _ = load_split(tmp_path / "root", "train", dataset=describe(caches=FASHION_MNIST.caches))

    np.testing.assert_array_equal(images, TRAIN_IMAGES)
    assert not (tmp_path / "root").exists()
    assert capsys.readouterr().err.endswith(f"{folder.removeprefix('work/')}: 2 of 2 files\n")


def test_the_folder_of_debians_package_comes_last_of_those_read_in_place():
    assert FASHION_MNIST.caches[-1] == FASHION_MNIST.packaged == "/usr/share/datasets/fashion-mnist"


def test_each_file_is_looked_for_by_itself(tmp_path):
    write_raw(tmp_path / "root", {TRAIN_X: CONTENTS[TRAIN_X]})
    cache = write_raw(tmp_path / "keras", {f"{TRAIN_Y}.gz": PACKED[f"{TRAIN_Y}.gz"]})
    np.testing.assert_array_equal(load(tmp_path / "root", cache=cache)[1], TRAIN_LABELS)


def test_the_test_split_needs_the_test_files_alone(tmp_path):
    write_raw(tmp_path, {name: PACKED[name] for name in (f"{TEST_X}.gz", f"{TEST_Y}.gz")})
    np.testing.assert_array_equal(load(tmp_path, "test")[1], TEST_LABELS)


def test_an_intact_twin_serves_for_a_half_unpacked_file(tmp_path):
    folder = write_raw(tmp_path, {**PACKED, TRAIN_X: b""})  # what an interrupted extraction leaves
    np.testing.assert_array_equal(load(tmp_path)[0], TRAIN_IMAGES)
    assert (folder / TRAIN_X).read_bytes() == b""


def test_reading_writes_nothing_and_says_nothing(tmp_path, capsys):
    write_raw(tmp_path)
    before = snapshot(tmp_path)
    load(tmp_path)
    assert snapshot(tmp_path) == before
    assert capsys.readouterr().err == ""


@pytest.fixture
def denied_folder():
    """A folder in which this process cannot write: read-only and, for root, whom that does not bind, another's."""
    folder = Path(tempfile.mkdtemp(dir="/tmp"))  # not tmp_path: its parents are closed to others
    write_raw(folder)
    for path in (folder, *folder.rglob("*")):
        path.chmod(0o555)
    root = os.geteuid() == 0
    if root:
        try:
            os.seteuid(65534)
        except OSError:
            pytest.skip("root may not become another user here")
    try:
        yield folder
    finally:
        if root:
            os.seteuid(0)
        for path in (folder, *folder.rglob("*")):
            path.chmod(0o755)
        shutil.rmtree(folder)


def test_a_read_only_folder_serves(denied_folder):
    np.testing.assert_array_equal(load(denied_folder)[0], TRAIN_IMAGES)


def test_an_unwritable_folder_without_data_is_named_with_the_reason(denied_folder):
    with pytest.raises(UserError, match=r"raw: Permission denied") as caught:
        load(denied_folder / "FashionMNIST")  # holds no FashionMNIST/raw of its own
    assert "DATASET=synthetic" in str(caught.value)


X, XZ = CONTENTS[TRAIN_X], PACKED[f"{TRAIN_X}.gz"]
WRONG = {
    "empty": (TRAIN_X, b""),
    "half": (TRAIN_X, X[: len(X) // 2]),
    "one byte more": (TRAIN_X, X + b"\0"),
    "zeros after the header, as after a power failure": (TRAIN_X, X[:16] + bytes(len(X) - 16)),
    "labels in the image file": (TRAIN_X, CONTENTS[TRAIN_Y]),
    "one label changed": (TRAIN_Y, CONTENTS[TRAIN_Y][:-1] + b"\xc8"),
    "gz: a web page": (f"{TRAIN_X}.gz", b"<html>404</html>"),
    "gz: half": (f"{TRAIN_X}.gz", XZ[: len(XZ) // 2]),
    "gz: one byte missing": (f"{TRAIN_X}.gz", XZ[:-1]),
    "gz: intact, of other content": (f"{TRAIN_X}.gz", gzip.compress(X[:-1])),
    "gz: unpacks to a gigabyte": (f"{TRAIN_X}.gz", gzip.compress(bytes(1 << 24)) * 64),
}


@pytest.mark.parametrize("kind", WRONG)
def test_a_wrong_file_is_named_with_a_remedy_and_left_as_it_is(tmp_path, kind):
    name, content = WRONG[kind]
    folder = write_raw(tmp_path, {**(PACKED if name.endswith(".gz") else CONTENTS), name: content})
    before = snapshot(tmp_path)
    with pytest.raises(UserError) as caught:
        load(tmp_path)
    assert f"{folder / name} is not usable" in str(caught.value)
    assert "Replace it" in str(caught.value)
    assert snapshot(tmp_path) == before


@given(st.data())
@settings(max_examples=100, deadline=None)
def test_a_random_change_is_noticed_or_changes_no_image(data):
    name, content = data.draw(st.sampled_from(sorted({**CONTENTS, **PACKED}.items())[-4:]))  # the training files
    start, end = sorted(data.draw(st.tuples(*[st.integers(0, len(content))] * 2)))
    changed = content[:start] + data.draw(st.binary(max_size=9)) + content[end:]
    with tempfile.TemporaryDirectory() as root:
        write_raw(Path(root), {**(PACKED if name.endswith(".gz") else CONTENTS), name: changed})
        try:
            images, labels = load(Path(root))
        except UserError as error:
            assert f"{name} is not usable" in str(error)  # noqa: PT017
        else:
            np.testing.assert_array_equal(images, TRAIN_IMAGES)
            np.testing.assert_array_equal(labels, TRAIN_LABELS)


def test_a_damaged_file_in_kerass_cache_is_reported_among_what_was_tried(tmp_path):
    cache = write_raw(tmp_path / "keras", {f"{TRAIN_X}.gz": XZ[:-1]})
    with pytest.raises(UserError, match="no Fashion-MNIST data") as caught:
        load(tmp_path / "root", cache=cache)
    assert f"{cache / TRAIN_X}.gz is not usable" in str(caught.value)


def test_no_data_says_what_was_tried_where_to_put_files_and_how_to_do_without(tmp_path):
    with pytest.raises(UserError) as caught:
        load(tmp_path / "root", cache=tmp_path / "keras")
    tried = (str(tmp_path / "root" / "FashionMNIST" / "raw"), str(tmp_path / "keras"))
    for part in (*tried, *PACKED, "DATA_DIR=", "FMNIST_MIRRORS=", "--data.dataset=synthetic"):
        assert part in str(caught.value)
    assert caught.value.exit_code == 1


REAL_ROOT = Path(os.environ.get("DATA_DIR") or "data")


@pytest.mark.skipif(
    not (REAL_ROOT / "FashionMNIST" / "raw").is_dir(), reason="needs the real files in DATA_DIR (default: data)"
)
@pytest.mark.parametrize(("split", "per_class"), [("train", 6000), ("test", 1000)])
def test_the_real_files_have_equal_classes(split, per_class):
    images, labels = load_split(REAL_ROOT, split, download=False)
    assert images.shape == (10 * per_class, 28, 28)
    assert np.bincount(labels).tolist() == [per_class] * 10
