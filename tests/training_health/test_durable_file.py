"""Files are replaced whole or not at all."""

import errno
import os

import pytest

from training_health.durable_file import remove_stale_temporaries, replace_durably


def test_the_content_is_written_and_the_folder_made(tmp_path):
    replace_durably(tmp_path / "new" / "file", b"content")

    assert {path.name: path.read_bytes() for path in (tmp_path / "new").iterdir()} == {"file": b"content"}


@pytest.mark.parametrize("call", ["fsync", "replace"])
def test_a_failure_leaves_the_old_content_and_nothing_else(tmp_path, monkeypatch, call):
    replace_durably(tmp_path / "file", b"old")

    def full(*_):
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(os, call, full)
    with pytest.raises(OSError, match="No space left"):
        replace_durably(tmp_path / "file", b"new")

    assert {path.name: path.read_bytes() for path in tmp_path.iterdir()} == {"file": b"old"}


def test_what_killed_writers_left_is_removed_and_nothing_else(tmp_path):
    for name in (".last.ckpt.123.part", "last.ckpt", "notes.part"):
        (tmp_path / name).write_bytes(b"")

    remove_stale_temporaries(tmp_path)
    remove_stale_temporaries(tmp_path / "absent")

    assert {path.name for path in tmp_path.iterdir()} == {"last.ckpt", "notes.part"}
