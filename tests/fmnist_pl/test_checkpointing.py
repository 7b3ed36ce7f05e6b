"""The Trainer's checkpoints: written durably or not at all, with a message that says which."""

import errno
import os
import tempfile
from pathlib import Path

import pytest
import torch

from fmnist_pl.checkpoints.checkpoint_file import load_checked
from fmnist_pl.checkpoints.durable_io import DurableCheckpointIO
from tests.soak.torn_saves import save, state
from tests.soak.toys import Toy, last, train
from training_health.errors import UserError


def numbers(folder: Path) -> dict[str, int]:
    return {path.name: load_checked(path)["number"] for path in folder.iterdir()}


def test_the_checkpoint_before_is_kept(tmp_path):
    io = DurableCheckpointIO()
    for number in range(3):
        save(io, tmp_path, number)

    assert numbers(tmp_path) == {"last.ckpt": 2, "previous.ckpt": 1}


def test_a_checkpoint_that_is_not_known_to_be_whole_never_takes_the_place_of_the_previous(tmp_path):
    io = DurableCheckpointIO()
    save(io, tmp_path, 0)
    save(io, tmp_path, 1)
    (tmp_path / "last.ckpt").write_bytes(b"torn")  # then the run is resumed from previous.ckpt

    resumed = DurableCheckpointIO()
    resumed.load_checkpoint(tmp_path / "previous.ckpt")
    save(resumed, tmp_path, 2)

    assert numbers(tmp_path) == {"last.ckpt": 2, "previous.ckpt": 0}


def test_a_checkpoint_that_was_loaded_is_whole(tmp_path):
    save(DurableCheckpointIO(), tmp_path, 0)

    resumed = DurableCheckpointIO()
    resumed.load_checkpoint(tmp_path / "last.ckpt")
    save(resumed, tmp_path, 1)

    assert numbers(tmp_path) == {"last.ckpt": 1, "previous.ckpt": 0}


def test_without_the_option_nothing_is_kept(tmp_path):
    io = DurableCheckpointIO()
    for number in range(2):
        io.save_checkpoint(state(number), tmp_path / "best.ckpt")

    assert numbers(tmp_path) == {"best.ckpt": 1}


def test_a_checkpoint_is_removed_once(tmp_path):
    io = DurableCheckpointIO()
    io.save_checkpoint(state(0), tmp_path / "x.ckpt")
    io.remove_checkpoint(tmp_path / "x.ckpt")
    io.remove_checkpoint(tmp_path / "x.ckpt")

    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    ("failing", "number", "said"),
    [
        ("write", errno.ENOSPC, "No space left on device"),
        ("fsync", errno.ENOSPC, "No space left on device"),
        ("write", errno.EDQUOT, "Disk quota exceeded"),
        ("open", errno.EROFS, "Read-only file system"),
        ("open", errno.EACCES, "Permission denied"),
        ("replace", errno.EIO, "Input/output error"),
    ],
)
def test_a_disk_that_fails_ends_the_run_at_once_with_the_last_good_checkpoint(
    tmp_path, monkeypatch, failing, number, said
):
    saves = []

    def disk_fails(self, checkpoint, path, storage_options=None, save=DurableCheckpointIO.save_checkpoint):
        if len(saves) == 4:
            fail(monkeypatch, failing, number)
        saves.append(checkpoint["global_step"])
        save(self, checkpoint, path, storage_options)

    monkeypatch.setattr(DurableCheckpointIO, "save_checkpoint", disk_fails)
    with pytest.raises(UserError, match=f"last.ckpt cannot be written: {said}.*The last good one is still there"):
        train(Toy(), tmp_path)

    monkeypatch.undo()
    assert saves == [1, 2, 3, 4, 5]
    assert load_checked(last(tmp_path))["global_step"] == 4
    assert {path.name for path in last(tmp_path).parent.iterdir()} == {"last.ckpt", "previous.ckpt"}


def fail(monkeypatch: pytest.MonkeyPatch, what: str, number: int) -> None:
    """From now on let ``what`` fail as the system would."""

    def failing(*_, **__):
        raise OSError(number, os.strerror(number))

    if what == "write":
        real_open = Path.open

        def full(path, mode="r"):
            file = real_open(path, mode)
            return type(
                "Full", (), {"__enter__": lambda self: self, "__exit__": lambda *_: file.close(), "write": failing}
            )()

        monkeypatch.setattr(Path, "open", full)
    else:
        monkeypatch.setattr(
            *{"open": (Path, "open"), "fsync": (os, "fsync"), "replace": (os, "replace")}[what], failing
        )


def test_a_folder_that_denies_writing_is_an_error_not_silence():
    """Lightning's own writer goes on without a word."""
    folder = Path(tempfile.mkdtemp(dir="/tmp"))  # not tmp_path: its parents are closed to others
    save(DurableCheckpointIO(), folder, 1)
    folder.chmod(0o555)
    root = os.geteuid() == 0
    try:
        if root:
            try:
                os.seteuid(65534)
            except OSError:
                pytest.skip("root may not become another user here")
        with pytest.raises(UserError, match="cannot be written: Permission denied"):
            save(DurableCheckpointIO(), folder, 2)
    finally:
        if root:
            os.seteuid(0)
        folder.chmod(0o755)
    assert numbers(folder) == {"last.ckpt": 1}


def test_loading_is_safe_even_when_asked_not_to_be(tmp_path):
    torch.save({"state_dict": {}, "x": test_loading_is_safe_even_when_asked_not_to_be}, tmp_path / "x.ckpt")

    with pytest.raises(UserError, match="nothing in it was run"):
        DurableCheckpointIO().load_checkpoint(tmp_path / "x.ckpt", weights_only=False)
