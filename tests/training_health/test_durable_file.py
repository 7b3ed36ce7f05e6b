"""Files are replaced whole or not at all."""

import errno
import os

import pytest

from tests.soak import torn_saves
from training_health.durable_file import remove_stale_temporaries, replace_durably


@pytest.mark.parametrize("links", [True, False], ids=["hard_links", "no_hard_links"])
def test_the_content_before_is_kept_under_the_other_name(tmp_path, monkeypatch, links):
    def no_links(*_):
        raise OSError(errno.EPERM, "Operation not permitted")

    if not links:
        monkeypatch.setattr(os, "link", no_links)
    for number in range(3):
        replace_durably(tmp_path / "new" / "file", b"%d" % number, tmp_path / "new" / "before")

    assert {path.name: path.read_bytes() for path in (tmp_path / "new").iterdir()} == {"file": b"2", "before": b"1"}


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

    assert [path.name for path in remove_stale_temporaries(tmp_path)] == [".last.ckpt.123.part"]
    assert {path.name for path in tmp_path.iterdir()} == {"last.ckpt", "notes.part"}
    assert remove_stale_temporaries(tmp_path / "absent") == []


@pytest.mark.slow
@pytest.mark.skipif(not hasattr(os, "fork"), reason="needs fork")
@pytest.mark.filterwarnings("ignore:This process .* is multi-threaded, use of fork:DeprecationWarning")
def test_killed_at_any_step_of_a_save_the_old_or_the_new_checkpoint_loads():
    steps, wrong = torn_saves.check_kills()

    assert wrong == []
    assert steps > 20
