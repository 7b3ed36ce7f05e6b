"""Checkpoint files: what is written comes back, and anything else is refused in words."""

import errno
import os
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from fmnist_pl.checkpoints.checkpoint_file import (
    DurableCheckpointIO,
    checkpoint_bytes,
    evaluated_file,
    load_checked,
    write_checkpoint,
)
from tests.soak import bit_flips, torn_saves
from tests.soak.torn_saves import save
from training_health.errors import UserError

CHECKPOINT = {"state_dict": {"weight": torch.arange(50.0)}, "loops": {"steps": 3}, "name": "x"}


@pytest.fixture
def file(tmp_path):
    path = tmp_path / "run" / "checkpoints" / "last.ckpt"
    path.parent.mkdir(parents=True)
    path.write_bytes(checkpoint_bytes(CHECKPOINT))
    return path


def numbers(folder: Path) -> dict[str, int]:
    return {path.name: load_checked(path)["number"] for path in folder.iterdir()}


def test_what_is_written_is_loaded(file):
    loaded = load_checked(file)

    assert torch.equal(loaded["state_dict"]["weight"], torch.arange(50.0))
    assert (loaded["loops"], loaded["name"]) == ({"steps": 3}, "x")


def test_no_flipped_bit_changes_a_value_without_a_word(file):
    refused, wrong = bit_flips.check(500, seed=1, file=file)

    assert wrong == []
    assert refused > 100


def test_a_flipped_bit_in_the_weights_is_found(file):
    content = bytearray(file.read_bytes())
    content[content.index(torch.arange(50.0).numpy().tobytes()) + 10] ^= 1
    file.write_bytes(content)

    with pytest.raises(UserError, match=r"last.ckpt is damaged: the CRC of .*data/0"):
        load_checked(file)


@given(fraction=st.floats(0, 1, exclude_max=True))
@settings(max_examples=20, deadline=None)
def test_a_cut_file_is_damaged(tmp_path_factory, fraction):
    path = tmp_path_factory.getbasetemp() / "a" / "b" / "cut.ckpt"
    path.parent.mkdir(parents=True, exist_ok=True)
    whole = checkpoint_bytes(CHECKPOINT)
    path.write_bytes(whole[: int(len(whole) * fraction)])

    with pytest.raises(UserError, match=r"cut.ckpt is damaged"):
        load_checked(path)


def test_what_is_not_there_or_a_folder_is_named(tmp_path):
    with pytest.raises(UserError, match=r"There is no checkpoint .*absent.ckpt"):
        load_checked(tmp_path / "absent.ckpt")
    with pytest.raises(UserError, match="cannot be read: it is no regular file"):
        load_checked(tmp_path)


@pytest.mark.parametrize("value", [[1], {"weights": {}}, {"state_dict": 3}])
def test_something_else_that_torch_saved_is_no_checkpoint(file, value):
    torch.save(value, file)

    with pytest.raises(UserError, match="is not a checkpoint of a training run"):
        load_checked(file)


class Planted:
    """Creates a file when it is unpickled."""

    def __init__(self, mark: Path) -> None:
        self.mark = mark

    def __reduce__(self) -> object:
        return Path.touch, (self.mark,)


@pytest.mark.parametrize("part", ["state_dict", "hyper_parameters", "callbacks", "loops", "optimizer_states"])
@pytest.mark.parametrize("load", [load_checked, lambda path: DurableCheckpointIO().load_checkpoint(path, None, False)])
def test_planted_code_never_runs(file, tmp_path, monkeypatch, part, load):
    monkeypatch.setenv("TORCH_FORCE_NO_WEIGHTS_ONLY_LOAD", "1")
    mark = tmp_path / "it-ran"
    torch.save({**CHECKPOINT, part: {"x": Planted(mark)}}, file)

    with pytest.raises(UserError, match="Nothing in it was run"):
        load(file)
    assert not mark.exists()
    torch.load(file, weights_only=False)
    assert mark.exists()  # it would have run


@pytest.mark.parametrize("value", [Path("x"), np.float64(2), print])
def test_what_could_not_be_loaded_is_not_saved(value):
    with pytest.raises(UserError, match="must hold tensors and plain values"):
        checkpoint_bytes({**CHECKPOINT, "callbacks": {"best": [1.0, value]}})


# Saves


def test_the_checkpoint_before_is_kept(tmp_path):
    for number in range(3):
        save(DurableCheckpointIO(), tmp_path, number)

    assert numbers(tmp_path) == {"last.ckpt": 2, "previous.ckpt": 1}


def test_a_damaged_checkpoint_never_replaces_the_previous(tmp_path):
    for number in range(2):
        save(DurableCheckpointIO(), tmp_path, number)
    (tmp_path / "last.ckpt").write_bytes(b"torn")
    save(DurableCheckpointIO(), tmp_path, 2)

    assert numbers(tmp_path) == {"last.ckpt": 2, "previous.ckpt": 0}


def test_only_held_checkpoints_have_a_previous(tmp_path):
    io = DurableCheckpointIO()
    for number in range(2):
        io.save_checkpoint(torn_saves.state(number), tmp_path / "best.ckpt")

    assert numbers(tmp_path) == {"best.ckpt": 1}
    io.remove_checkpoint(tmp_path / "best.ckpt")
    io.remove_checkpoint(tmp_path / "best.ckpt")
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    ("failing", "number", "said"),
    [
        ("fsync", errno.ENOSPC, "No space left on device"),
        ("fsync", errno.EDQUOT, "Disk quota exceeded"),
        ("replace", errno.EIO, "Input/output error"),
    ],
)
def test_a_disk_that_fails_is_an_error_and_a_whole_checkpoint_is_left(tmp_path, monkeypatch, failing, number, said):
    def fail(*_: object) -> None:
        raise OSError(number, os.strerror(number))

    save(DurableCheckpointIO(), tmp_path, 1)
    monkeypatch.setattr(os, failing, fail)
    with pytest.raises(UserError, match=f"last.ckpt cannot be written: {said}.* then resume: fmnist fit --resume"):
        save(DurableCheckpointIO(), tmp_path, 2)

    monkeypatch.undo()
    assert list(numbers(tmp_path).values()) == [1]


def test_without_a_checkpoint_there_is_nothing_to_resume(tmp_path, monkeypatch):
    def fail(*_: object) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(os, "fsync", fail)
    with pytest.raises(UserError, match=r"Make room or correct the permissions, then start again$"):
        save(DurableCheckpointIO(), tmp_path, 1)


@pytest.mark.slow
@pytest.mark.skipif(not hasattr(os, "fork"), reason="needs fork")
def test_a_save_that_is_killed_leaves_the_old_or_the_new_checkpoint():
    steps, wrong = torn_saves.check_kills()

    assert wrong == []
    assert steps > 20


@pytest.mark.parametrize("kind", ["pipe", "device", "sparse", "folder"])
def test_what_is_no_file_of_a_possible_size_is_refused_at_once(tmp_path, kind):
    path = tmp_path / "last.ckpt"
    if kind == "pipe":
        os.mkfifo(path)
    elif kind == "device":
        path.symlink_to("/dev/zero")
    elif kind == "folder":
        path.mkdir()
    else:
        with path.open("wb") as file:
            file.truncate(100 << 30)

    with pytest.raises(UserError, match=r"last.ckpt cannot be read: it is no regular file"):
        load_checked(path)


@pytest.fixture
def runs(tmp_path):
    """Two runs of a variant on synthetic images: one with its best checkpoint, and one with its last alone."""
    for number, name in enumerate(("best.ckpt", "last.ckpt")):
        folder = tmp_path / "sgd-synthetic" / f"version_{number}" / "checkpoints"
        folder.mkdir(parents=True)
        (folder / name).touch()
    return tmp_path


def test_a_runs_folder_stands_for_its_best_checkpoint(runs):
    run = runs / "sgd-synthetic" / "version_0"

    assert evaluated_file(run) == evaluated_file(run / "checkpoints" / "best.ckpt") == run / "checkpoints" / "best.ckpt"


@pytest.mark.parametrize(
    ("named", "hint"),
    [
        ("sgd-synthetic", "It is in one of .*sgd-synthetic's runs: .*version_0, .*version_1"),
        ("sgd-synthetic/version_1", "There is .*version_1/checkpoints/last.ckpt"),
        ("sgd/version_0", "There is .*sgd-synthetic/version_0"),
        ("absent", "absent. Give the folder of a run"),
    ],
)
def test_what_else_may_be_meant_is_named(runs, named, hint):
    with pytest.raises(UserError, match=f"There is no checkpoint .*{hint}"):
        evaluated_file(runs / named)


def test_a_url_is_no_checkpoint():
    with pytest.raises(UserError, match=r"https://example.org/best.ckpt is a URL: download"):
        evaluated_file("https://example.org/best.ckpt")


def test_a_file_of_another_kind_is_not_called_damaged(tmp_path):
    (tmp_path / "config.yaml").write_text("variant: sgd")

    with pytest.raises(UserError, match=r"config.yaml is no checkpoint"):
        load_checked(tmp_path / "config.yaml")


def test_a_whole_checkpoint_beside_a_damaged_one_is_named(tmp_path):
    (tmp_path / "best.ckpt").write_bytes(b"torn")
    (tmp_path / "last.ckpt").mkdir()  # which cannot be read
    write_checkpoint(tmp_path / "previous.ckpt", checkpoint_bytes({"state_dict": {}}))

    with pytest.raises(UserError, match=r"best.ckpt is damaged: .*previous.ckpt beside it is whole"):
        load_checked(tmp_path / "best.ckpt")
