"""Files are replaced whole or not at all."""

import errno
import os

import pytest

from tests.soak import torn_saves
from training_health.durable_file import remove_stale_temporaries, replace_durably


def test_the_content_is_written_and_the_folder_made(tmp_path):
    replace_durably(tmp_path / "new" / "file", b"content")

    assert (tmp_path / "new" / "file").read_bytes() == b"content"
    assert [path.name for path in (tmp_path / "new").iterdir()] == ["file"]


def test_the_content_before_is_kept_under_the_other_name(tmp_path):
    for number in range(3):
        replace_durably(tmp_path / "file", b"%d" % number, tmp_path / "before")

    assert ((tmp_path / "file").read_bytes(), (tmp_path / "before").read_bytes()) == (b"2", b"1")


def test_without_hard_links_it_is_kept_too(tmp_path, monkeypatch):
    def no_links(*_):
        raise OSError(errno.EPERM, "Operation not permitted")

    monkeypatch.setattr(os, "link", no_links)
    for number in range(3):
        replace_durably(tmp_path / "file", b"%d" % number, tmp_path / "before")

    assert ((tmp_path / "file").read_bytes(), (tmp_path / "before").read_bytes()) == (b"2", b"1")


@pytest.mark.parametrize("call", ["fsync", "replace"])
def test_a_failure_leaves_the_old_content_and_nothing_else(tmp_path, monkeypatch, call):
    replace_durably(tmp_path / "file", b"old")

    def full(*_):
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(os, call, full)
    with pytest.raises(OSError, match="No space left"):
        replace_durably(tmp_path / "file", b"new")

    assert {path.name: path.read_bytes() for path in tmp_path.iterdir()} == {"file": b"old"}


def test_a_folder_that_cannot_be_synced_is_no_failure(tmp_path, monkeypatch):
    sync, synced = os.fsync, []

    def files_only(descriptor):
        if os.path.isdir(f"/proc/self/fd/{descriptor}"):
            raise OSError(errno.EINVAL, "Invalid argument")
        synced.append(sync(descriptor))

    monkeypatch.setattr(os, "fsync", files_only)
    replace_durably(tmp_path / "file", b"content")

    assert synced == [None]
    assert (tmp_path / "file").read_bytes() == b"content"


def test_the_content_is_on_the_disk_before_it_has_the_name(tmp_path, monkeypatch):
    order = []
    for name in ("fsync", "link", "replace"):
        real = getattr(os, name)
        monkeypatch.setattr(os, name, lambda *args, real=real, name=name: (order.append(name), real(*args))[1])
    (tmp_path / "file").write_bytes(b"old")
    replace_durably(tmp_path / "file", b"new", tmp_path / "before")

    assert order == ["fsync", "link", "replace", "replace", "fsync"]


def test_what_killed_writers_left_is_removed_and_nothing_else(tmp_path):
    for name in (".last.ckpt.123.part", "last.ckpt", "notes.part"):
        (tmp_path / name).write_bytes(b"")

    assert [path.name for path in remove_stale_temporaries(tmp_path)] == [".last.ckpt.123.part"]
    assert {path.name for path in tmp_path.iterdir()} == {"last.ckpt", "notes.part"}


def test_a_folder_that_is_not_there_has_nothing_to_remove(tmp_path):
    assert remove_stale_temporaries(tmp_path / "absent") == []


@pytest.mark.skipif(not hasattr(os, "fork"), reason="needs fork")
@pytest.mark.filterwarnings("ignore:This process .* is multi-threaded, use of fork:DeprecationWarning")
def test_killed_at_any_step_of_a_save_the_old_or_the_new_checkpoint_loads():
    steps, wrong = torn_saves.check_kills()

    assert wrong == []
    assert steps > 20
