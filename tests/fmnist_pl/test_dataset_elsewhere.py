"""Where no folder has the files, they come out of Hugging Face's caches or Debian's package."""

import dataclasses
import io
import os
import re
import shutil
import tarfile

import numpy as np
import pytest
from PIL import Image

from fmnist_pl import commands
from fmnist_pl.dataset.files import FASHION_MNIST, find_or_fetch, load_split
from tests.fmnist_pl.small_dataset import (
    CONTENTS,
    PACKED,
    TEST_IMAGES,
    TEST_LABELS,
    TRAIN_IMAGES,
    TRAIN_LABELS,
    describe,
    files_in,
    serve,
    write_raw,
)
from training_health.errors import UserError

NAME, FOLDER = FASHION_MNIST.package, FASHION_MNIST.packaged


@pytest.fixture(autouse=True)
def empty_home(tmp_path, monkeypatch):
    for name in ("FMNIST_MIRRORS", "HF_HOME", "HF_HUB_CACHE", "HF_DATASETS_CACHE", "XDG_CACHE_HOME"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("no_proxy", "*")
    monkeypatch.setenv("HOME", str(tmp_path / "home"))


def dataset(*mirrors):
    return dataclasses.replace(describe(mirrors), hugging_face="fashion_mnist", package=NAME, packaged=FOLDER)


@pytest.fixture
def apt(tmp_path, monkeypatch):
    """A PATH on which `apt-get` and `dpkg-deb` are scripts: the package is a tar archive of ``files``."""

    def put(files=PACKED, fails_with="", lists="there"):
        with tarfile.open(tmp_path / "package.deb", "w") as archive:
            for name, content in files.items():
                entry = tarfile.TarInfo(f".{FOLDER}/{name}")
                entry.size = len(content)
                archive.addfile(entry, io.BytesIO(content))
        script(
            "apt-get",
            f'echo "$@" >>{tmp_path}/calls',
            f'if [ -n "{fails_with}" ]; then echo "E: {fails_with}" >&2; exit 100; fi',
            f'case "$*" in *update) touch {tmp_path}/there; exit 0;; esac',
            f'[ -e {tmp_path}/{lists} ] || {{ echo "E: Unable to locate package" >&2; exit 100; }}',
            f"cp {tmp_path}/package.deb {NAME}_1_all.deb",
        )
        script("dpkg-deb", 'mkdir -p "$3"', 'exec tar -xf "$2" -C "$3"')

    def script(name, *lines):
        file = tmp_path / "bin" / name
        file.parent.mkdir(exist_ok=True)
        file.write_text("\n".join(["#!/bin/sh", *lines, ""]))
        file.chmod(0o755)

    monkeypatch.setenv("PATH", f"{tmp_path / 'bin'}{os.pathsep}{os.environ['PATH']}")
    monkeypatch.setenv("TMPDIR", str(tmp_path / "tmp"))
    monkeypatch.setattr("tempfile.tempdir", None)
    (tmp_path / "tmp").mkdir()
    (tmp_path / "there").touch()
    return put


def test_a_mirror_that_fails_is_followed_by_debians_package_into_the_root(tmp_path, apt, capsys):
    apt()
    with serve({next(iter(PACKED)): b""}) as mirror:
        images, labels = load_split(tmp_path / "root", "train", dataset=dataset(mirror.url))

    np.testing.assert_array_equal(images, TRAIN_IMAGES)
    np.testing.assert_array_equal(labels, TRAIN_LABELS)
    assert files_in(tmp_path / "root") == set(PACKED)  # those of the other split too: they have been downloaded
    assert not list((tmp_path / "tmp").iterdir())
    lines = capsys.readouterr().err.splitlines()
    assert [line.split(":")[0] for line in lines[1:]] == [
        f"  {tmp_path / 'root' / 'FashionMNIST' / 'raw'}",
        "  the caches of Hugging Face",
        "  downloading http",
        "  http",
        f"  apt-get download {NAME}, unpacked in a temporary folder (31 MB)",
        f"  apt-get download {NAME}",
    ]


def test_afterwards_nothing_is_asked_for(tmp_path, apt, capsys):
    apt()
    load_split(tmp_path / "root", "train", dataset=dataset())
    (tmp_path / "calls").unlink()
    capsys.readouterr()

    images, _ = load_split(tmp_path / "root", "test", dataset=dataset())

    np.testing.assert_array_equal(images, TEST_IMAGES)
    assert not (tmp_path / "calls").exists()
    assert capsys.readouterr().err == ""


def test_what_an_earlier_fetch_kept_is_left_as_it_is(tmp_path, apt):
    apt()
    kept, *_ = PACKED
    folder = write_raw(tmp_path / "root", {kept: PACKED[kept]})
    before = (folder / kept).stat().st_mtime_ns

    load_split(tmp_path / "root", "train", dataset=dataset())

    assert (folder / kept).stat().st_mtime_ns == before
    assert files_in(tmp_path / "root") == set(PACKED)


def test_without_package_lists_own_ones_are_fetched(tmp_path, apt):
    (tmp_path / "there").unlink()
    apt()

    load_split(tmp_path / "root", "train", dataset=dataset())

    first, second, third = (tmp_path / "calls").read_text().splitlines()
    assert first.endswith(f"download {NAME}")
    assert second.endswith("update")
    assert third.endswith(f"download {NAME}")
    assert all(f"-o=Dir::State::lists={tmp_path}/tmp/" in line for line in (second, third))


@pytest.mark.parametrize(
    ("problem", "reason"),
    [
        ({"fails_with": "No route"}, f"apt-get download {NAME}: apt-get ended with status 100: No route"),
        ({"files": {**PACKED, "train-images-idx3-ubyte.gz": b"other"}}, "train-images-idx3-ubyte.gz: expected content"),
        ({"files": {}}, "train-images-idx3-ubyte.gz: No such file"),
    ],
    ids=["no network", "other content", "another package"],
)  # fmt: skip
def test_a_package_that_cannot_be_used_is_named_with_its_reason(tmp_path, apt, problem, reason):
    apt(**problem)

    with pytest.raises(UserError, match="no Fashion-MNIST data") as caught:
        load_split(tmp_path / "root", "train", dataset=dataset())

    assert reason in str(caught.value)
    assert "train-images-idx3-ubyte.gz" not in files_in(tmp_path / "root")


def test_a_machine_without_apt_get_is_told_so(tmp_path, monkeypatch):
    monkeypatch.setenv("PATH", str(tmp_path))

    with pytest.raises(UserError, match=f"apt-get download {NAME}: there is no apt-get here"):
        load_split(tmp_path / "root", "train", dataset=dataset())


def table(images, labels):
    import pyarrow as pa

    def png(image):
        Image.fromarray(image).save(buffer := io.BytesIO(), format="PNG")
        return {"bytes": buffer.getvalue(), "path": None}

    return pa.table({"image": [png(image) for image in images], "label": [int(label) for label in labels]})


CONVERTED = "datasets/zalando-datasets___fashion_mnist/fashion_mnist/0.0.0/4d2b"
DOWNLOADED = "hub/datasets--zalando-datasets--fashion_mnist/snapshots/4d2b/fashion_mnist"


@pytest.fixture(params=["arrow", "arrow, old name, in two files", "parquet"])
def hugging_face(request, tmp_path):
    """The small data set as `datasets` or `huggingface_hub` caches it."""
    import pyarrow as pa
    import pyarrow.parquet

    home = tmp_path / "home" / ".cache" / "huggingface"
    for split, images, labels in (("train", TRAIN_IMAGES, TRAIN_LABELS), ("test", TEST_IMAGES, TEST_LABELS)):
        full = table(images, labels)
        if request.param == "parquet":
            files = {f"{DOWNLOADED}/{split}-00000-of-00001.parquet": full}
        elif request.param == "arrow":
            files = {f"{CONVERTED}/fashion_mnist-{split}.arrow": full}
        else:
            old = CONVERTED.replace("zalando-datasets___", "")
            parts = full.slice(0, 7), full.slice(7)
            files = {f"{old}/fashion_mnist-{split}-0000{i}-of-00002.arrow": part for i, part in enumerate(parts)}
        for name, part in files.items():
            (home / name).parent.mkdir(parents=True, exist_ok=True)
            if name.endswith("parquet"):
                pa.parquet.write_table(part, home / name)
            else:
                with pa.ipc.new_stream(str(home / name), part.schema) as stream:
                    stream.write_table(part)
    return home


def test_hugging_faces_tables_are_converted_once(tmp_path, hugging_face):
    for split, arrays in (("train", (TRAIN_IMAGES, TRAIN_LABELS)), ("test", (TEST_IMAGES, TEST_LABELS))):
        for read, written in zip(load_split(tmp_path / "root", split, dataset=dataset()), arrays, strict=True):
            np.testing.assert_array_equal(read, written)
    shutil.rmtree(hugging_face)

    assert find_or_fetch(tmp_path / "root", dataset()) == [tmp_path / "root" / "FashionMNIST" / "raw"]
    assert files_in(tmp_path / "root") == set(PACKED)


@pytest.mark.parametrize("content", [b"", b"PAR1", CONTENTS["train-labels-idx1-ubyte"]])
def test_damaged_tables_are_named_and_the_next_source_is_tried(tmp_path, apt, content, capsys):
    pytest.importorskip("pyarrow")
    apt()
    for name in (f"{CONVERTED}/fashion_mnist-train.arrow", f"{DOWNLOADED}/train-00000-of-00001.parquet"):
        file = tmp_path / "home" / ".cache" / "huggingface" / name
        file.parent.mkdir(parents=True)
        file.write_bytes(content)

    images, _ = load_split(tmp_path / "root", "train", dataset=dataset())

    np.testing.assert_array_equal(images, TRAIN_IMAGES)
    assert capsys.readouterr().err.count(" is not usable: ") == 2


def test_tables_that_nothing_can_read_are_named_with_what_is_missing(tmp_path, apt, monkeypatch, capsys):
    apt()
    monkeypatch.setitem(__import__("sys").modules, "pyarrow", None)
    file = tmp_path / "home" / ".cache" / "huggingface" / CONVERTED / "fashion_mnist-train.arrow"
    file.parent.mkdir(parents=True)
    file.touch()

    load_split(tmp_path / "root", "train", dataset=dataset())

    assert f"{file}: reading it needs pyarrow, which is not installed" in capsys.readouterr().err


def test_the_command_says_where_the_files_are(tmp_path, monkeypatch, capsys):
    folder = write_raw(tmp_path / "root")
    monkeypatch.setattr("fmnist_pl.dataset.files.FASHION_MNIST", describe())
    monkeypatch.setenv("DATA_DIR", str(tmp_path / "root"))

    commands.main(["data"])

    assert capsys.readouterr().out == f"Fashion-MNIST, four files, verified: {folder}\n"


@pytest.mark.slow
@pytest.mark.skipif(shutil.which("apt-get") is None, reason="there is no apt-get here")
def test_debians_own_package_has_the_real_files(tmp_path):
    real = dataclasses.replace(FASHION_MNIST, caches=(), mirrors=("http://127.0.0.1:9",), hugging_face="")
    try:
        folders = find_or_fetch(tmp_path, real)
    except UserError as error:
        if re.search("apt-get ended with .*(resolve|connect|locate|fetch)", str(error)):
            pytest.skip(f"the package cannot be had here: {str(error).splitlines()[-2]}")
        raise

    assert folders == [tmp_path / "FashionMNIST" / "raw"]
    images, labels = load_split(tmp_path, "train", download=False, dataset=real)
    assert images.shape == (60_000, 28, 28)
    assert np.bincount(labels).tolist() == [6000] * 10
    assert len(list(folders[0].glob("*.gz"))) == 4
