"""The four files are found where they may lie, and refused unless they are intact."""

import os
import shutil
import tempfile
import time
from pathlib import Path

import numpy as np
import pytest
from torchvision.datasets import FashionMNIST

from fmnist_pl.dataset.files import CLASS_NAMES, FASHION_MNIST, load_split, prepare
from fmnist_pl.dataset.idx_format import encode, pack
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
OFFLINE = describe()


def load(root, split="train", keras_cache=None):
    return load_split(root, split, keras_cache=keras_cache, dataset=OFFLINE)


def snapshot(folder):
    """Name, content and time of change of every file."""
    return {path: (path.read_bytes(), path.stat().st_mtime_ns) for path in folder.rglob("*") if path.is_file()}


def test_class_names_are_torchvisions():
    assert list(CLASS_NAMES) == FashionMNIST.classes


def test_file_names_are_torchvisions():
    assert [file.packed_name for file in FASHION_MNIST.all] == [name for name, _ in FashionMNIST.resources]


def test_reads_packed_files(tmp_path):
    write_raw(tmp_path, PACKED)
    for split, arrays in (("train", (TRAIN_IMAGES, TRAIN_LABELS)), ("test", (TEST_IMAGES, TEST_LABELS))):
        for read, written in zip(load(tmp_path, split), arrays, strict=True):
            np.testing.assert_array_equal(read, written)
            assert read.dtype == np.uint8


def test_reads_unpacked_files(tmp_path):
    write_raw(tmp_path, CONTENTS)
    np.testing.assert_array_equal(load(tmp_path)[0], TRAIN_IMAGES)


def test_reads_from_kerass_cache(tmp_path):
    cache = write_raw(tmp_path / "keras")
    np.testing.assert_array_equal(load(tmp_path / "root", keras_cache=cache)[0], TRAIN_IMAGES)
    assert not (tmp_path / "root").exists()


def test_each_file_is_looked_for_by_itself(tmp_path):
    write_raw(tmp_path / "root", {TRAIN_X: CONTENTS[TRAIN_X]})
    cache = write_raw(tmp_path / "keras", {f"{TRAIN_Y}.gz": PACKED[f"{TRAIN_Y}.gz"]})
    np.testing.assert_array_equal(load(tmp_path / "root", keras_cache=cache)[1], TRAIN_LABELS)


def test_the_test_split_needs_the_test_files_alone(tmp_path):
    write_raw(tmp_path, {name: PACKED[name] for name in (f"{TEST_X}.gz", f"{TEST_Y}.gz")})
    prepare(tmp_path, ("test",), keras_cache=None, dataset=OFFLINE)
    np.testing.assert_array_equal(load(tmp_path, "test")[1], TEST_LABELS)


def test_an_intact_twin_serves_for_a_half_unpacked_file(tmp_path):
    folder = write_raw(tmp_path, {**PACKED, TRAIN_X: b""})  # what an interrupted extraction leaves
    np.testing.assert_array_equal(load(tmp_path)[0], TRAIN_IMAGES)
    assert (folder / TRAIN_X).read_bytes() == b""


def test_reading_writes_nothing(tmp_path):
    write_raw(tmp_path)
    before = snapshot(tmp_path)
    prepare(tmp_path, keras_cache=None, dataset=OFFLINE)
    load(tmp_path)
    assert snapshot(tmp_path) == before


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
    with pytest.raises(UserError, match=r"raw: cannot be written to: Permission denied") as caught:
        load(denied_folder / "FashionMNIST")  # holds no FashionMNIST/raw of its own
    assert "DATASET=synthetic" in str(caught.value)


def flip(content, position):
    return content[:position] + bytes([content[position] ^ 1]) + content[position + 1 :]


X, Y = CONTENTS[TRAIN_X], CONTENTS[TRAIN_Y]
XZ, YZ = PACKED[f"{TRAIN_X}.gz"], PACKED[f"{TRAIN_Y}.gz"]
CORRUPTIONS = {
    "empty": (TRAIN_X, b""),
    "three bytes": (TRAIN_X, X[:3]),
    "header alone": (TRAIN_X, X[:16]),
    "half a header": (TRAIN_X, X[:9]),
    "half": (TRAIN_X, X[: len(X) // 2]),
    "last byte missing": (TRAIN_X, X[:-1]),
    "first byte missing": (TRAIN_X, X[1:]),
    "one byte more": (TRAIN_X, X + b"\0"),
    "twice": (TRAIN_X, X + X),
    "zeros of the right length": (TRAIN_X, bytes(len(X))),
    "zeros after the header, as after a power failure": (TRAIN_X, X[:16] + bytes(len(X) - 16)),
    "last page zero": (TRAIN_X, X[:-4096] + bytes(4096)),
    "wrong magic": (TRAIN_X, flip(X, 2)),
    "wrong count in the header": (TRAIN_X, flip(X, 7)),
    "little-endian header": (TRAIN_X, X[:4] + X[4:8][::-1] + X[8:]),
    "one pixel changed": (TRAIN_X, flip(X, 5000)),
    "two images swapped": (TRAIN_X, X[:16] + X[800:1584] + X[16:800] + X[1584:]),
    "27x28 pixels": (TRAIN_X, encode(TRAIN_IMAGES[:, :27])),
    "packed under an unpacked name": (TRAIN_X, XZ),
    "a web page": (TRAIN_X, b"<!DOCTYPE html><title>Sign in</title>"),
    "line ends translated": (TRAIN_X, X.replace(b"\n", b"\r\n")),
    "text encoding translated": (TRAIN_X, X.decode("latin-1").encode()),
    "an LFS pointer": (TRAIN_X, b"version https://git-lfs.github.com/spec/v1\noid sha256:c59f46\nsize 47040016\n"),
    "test images in the train file": (TRAIN_X, CONTENTS[TEST_X]),
    "labels in the image file": (TRAIN_X, Y),
    "images in the label file": (TRAIN_Y, X),
    "test labels in the train file": (TRAIN_Y, CONTENTS[TEST_Y]),
    "label 200": (TRAIN_Y, Y[:-1] + b"\xc8"),
    "one label changed": (TRAIN_Y, flip(Y, 12)),
    "one label missing": (TRAIN_Y, encode(TRAIN_LABELS[:-1])),
    "one label more": (TRAIN_Y, encode(np.append(TRAIN_LABELS, TRAIN_LABELS[:1]))),
    "gz: empty": (f"{TRAIN_X}.gz", b""),
    "gz: unpacked under a packed name": (f"{TRAIN_X}.gz", X),
    "gz: a web page": (f"{TRAIN_X}.gz", b"<html>404</html>"),
    "gz: header alone": (f"{TRAIN_X}.gz", XZ[:10]),
    "gz: half": (f"{TRAIN_X}.gz", XZ[: len(XZ) // 2]),
    "gz: checksum missing": (f"{TRAIN_X}.gz", XZ[:-8]),
    "gz: one byte missing": (f"{TRAIN_X}.gz", XZ[:-1]),
    "gz: one byte changed": (f"{TRAIN_X}.gz", flip(XZ, len(XZ) // 2)),
    "gz: one byte more": (f"{TRAIN_X}.gz", XZ + b"\0"),
    "gz: packed twice": (f"{TRAIN_X}.gz", pack(XZ)),
    "gz: intact, of other content": (f"{TRAIN_X}.gz", pack(flip(X, 5000))),
    "gz: bomb": (f"{TRAIN_X}.gz", pack(bytes(5_000_000))),
}


@pytest.mark.parametrize("kind", CORRUPTIONS)
def test_refuses_damage_by_name_with_a_remedy_and_touches_nothing(tmp_path, kind):
    name, content = CORRUPTIONS[kind]
    files = {**(PACKED if name.endswith(".gz") else CONTENTS), name: content}
    folder = write_raw(tmp_path, files)
    before = snapshot(tmp_path)
    with pytest.raises(UserError) as caught:
        load(tmp_path)
    message = str(caught.value)
    assert message.startswith(f"{folder / name} is not usable: expected ")
    assert ", found " in message
    assert message.endswith("replace it with an intact copy or remove it.")
    assert snapshot(tmp_path) == before


@pytest.mark.parametrize("files", [PACKED, CONTENTS], ids=["packed", "unpacked"])
@pytest.mark.parametrize(("one", "other"), [(TRAIN_X, TEST_X), (TRAIN_Y, TEST_Y), (TRAIN_X, TRAIN_Y)])
def test_swapped_files_are_called_by_name(tmp_path, files, one, other):
    suffix = ".gz" if files is PACKED else ""
    swapped = {one + suffix: files[other + suffix], other + suffix: files[one + suffix]}
    write_raw(tmp_path, {**files, **swapped})
    with pytest.raises(UserError, match=rf"expected the content of {one}, found the content of {other} \(are files sw"):
        load(tmp_path)


def mutate(rng, content):
    """Flip a bit, cut, insert, delete, swap or overwrite at random; never the same content."""
    while True:
        start, other = sorted(int(i) for i in rng.integers(0, len(content), 2))
        changed = bytearray(content)
        match int(rng.integers(6)):
            case 0:
                changed[start] ^= 1 << int(rng.integers(8))
            case 1:
                del changed[start:]
            case 2:
                changed[start:start] = rng.bytes(int(rng.integers(1, 9)))
            case 3:
                del changed[start : other + 1]
            case 4:
                changed[start], changed[other] = changed[other], changed[start]
            case 5:
                changed[start:other] = rng.bytes(other - start)
        if changed != content:
            return bytes(changed)


def test_a_thousand_random_mutations_of_unpacked_files_are_all_refused(tmp_path):
    rng = np.random.default_rng(0)
    folder = write_raw(tmp_path, CONTENTS)
    for round_ in range(1000):
        name = (TRAIN_X, TRAIN_Y)[round_ % 2]
        (folder / name).write_bytes(mutate(rng, CONTENTS[name]))
        with pytest.raises(UserError, match=f"{name} is not usable"):
            load(tmp_path)
        (folder / name).write_bytes(CONTENTS[name])


def test_a_thousand_random_mutations_of_packed_files_never_change_the_data(tmp_path):
    # gzip's header holds a time stamp and an operating system that no reader looks at: changes there are harmless
    rng = np.random.default_rng(1)
    folder = write_raw(tmp_path, PACKED)
    harmless = 0
    for round_ in range(1000):
        name = (f"{TRAIN_X}.gz", f"{TRAIN_Y}.gz")[round_ % 2]
        (folder / name).write_bytes(mutate(rng, PACKED[name]))
        try:
            images, labels = load(tmp_path)
        except UserError as error:
            assert f"{name} is not usable" in str(error)  # noqa: PT017
        else:
            harmless += 1
            np.testing.assert_array_equal(images, TRAIN_IMAGES)
            np.testing.assert_array_equal(labels, TRAIN_LABELS)
        (folder / name).write_bytes(PACKED[name])
    assert harmless < 100


def test_a_damaged_file_in_kerass_cache_is_reported_among_what_was_tried(tmp_path):
    cache = write_raw(tmp_path / "keras", {f"{TRAIN_X}.gz": XZ[:-1]})
    with pytest.raises(UserError, match="there is no Fashion-MNIST data") as caught:
        load(tmp_path / "root", keras_cache=cache)
    assert f"{cache / TRAIN_X}.gz is not usable: expected" in str(caught.value)


def test_a_folder_in_place_of_a_file_is_refused(tmp_path):
    (tmp_path / "FashionMNIST" / "raw" / f"{TRAIN_X}.gz").mkdir(parents=True)
    with pytest.raises(UserError, match="expected a regular file, found a folder or a special file"):
        load(tmp_path)


def test_no_data_says_what_was_tried_where_to_put_files_and_how_to_do_without(tmp_path):
    with pytest.raises(UserError) as caught:
        load(tmp_path / "root", keras_cache=tmp_path / "keras")
    message = str(caught.value)
    for part in (
        f"{tmp_path}/root/FashionMNIST/raw/{TRAIN_X}.gz: not there",
        f"{tmp_path}/keras/{TRAIN_X}.gz: not there",
        "no mirror is known",
        f"put {', '.join(PACKED)} into {tmp_path}/root/FashionMNIST/raw",
        "DATA_DIR=",
        "FMNIST_MIRRORS=",
        "DATASET=synthetic (--data.dataset=synthetic)",
    ):
        assert part in message


def test_a_home_folder_is_looked_up_when_needed(tmp_path, monkeypatch):
    monkeypatch.setenv("HOME", str(tmp_path))
    shutil.move(write_raw(tmp_path / "made"), tmp_path / ".keras" / "datasets" / "fashion-mnist")
    images, _ = load_split(tmp_path / "root", "train", dataset=OFFLINE)
    np.testing.assert_array_equal(images, TRAIN_IMAGES)


REAL_ROOT = Path(os.environ.get("DATA_DIR") or "data")
real_data = pytest.mark.skipif(
    not (REAL_ROOT / "FashionMNIST" / "raw").is_dir(), reason="needs the real files in DATA_DIR (default: data)"
)


@real_data
@pytest.mark.parametrize(("split", "per_class"), [("train", 6000), ("test", 1000)])
def test_the_real_files_have_equal_classes(split, per_class):
    images, labels = load_split(REAL_ROOT, split, download=False)
    assert images.shape == (10 * per_class, 28, 28)
    assert np.bincount(labels).tolist() == [per_class] * 10


@real_data
def test_the_real_files_are_checked_quickly():
    seconds = []
    for _ in range(3):
        started = time.perf_counter()
        prepare(REAL_ROOT, download=False)
        seconds.append(time.perf_counter() - started)
    assert min(seconds) < 2.0  # promised: 0.5 s; four times that for a machine busy with other tests
