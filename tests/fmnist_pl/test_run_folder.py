"""Version folders of runs."""

import time
from concurrent.futures import ThreadPoolExecutor

import pytest
from pytorch_lightning.loggers import TensorBoardLogger

from fmnist_pl.runs import folder as run_folder
from training_health.errors import UserError


def test_versions_count_up_from_zero(tmp_path):
    folder = tmp_path / "baseline"

    assert [run_folder.new_version(folder) for _ in range(3)] == [0, 1, 2]
    assert sorted(path.name for path in folder.iterdir()) == ["version_0", "version_1", "version_2"]


def test_a_gap_is_not_filled(tmp_path):
    (tmp_path / "version_7").mkdir()

    assert run_folder.new_version(tmp_path) == 8


def test_runs_that_start_together_get_folders_of_their_own(tmp_path):
    with ThreadPoolExecutor(8) as pool:
        versions = list(pool.map(lambda _: run_folder.new_version(tmp_path), range(40)))

    assert sorted(versions) == list(range(40))


def test_a_folder_that_cannot_be_written_is_named(tmp_path):
    (tmp_path / "file").write_text("in the way")

    with pytest.raises(UserError, match=r"file/baseline cannot be written: Not a directory. Choose another with"):
        run_folder.new_version(tmp_path / "file" / "baseline")


def test_event_files_made_after_the_clock_was_set_back_are_read_after_those_that_are_there(tmp_path):
    logger = TensorBoardLogger(tmp_path, name="", version="")
    later = int(time.time()) + 3600
    for number, second in enumerate((1, later, later, later + 5)):
        (tmp_path / f"events.out.tfevents.{second:010}.host.1.{number}").write_text(str(number))
    run_folder.wait_for_later_names([logger])
    logger.log_metrics({"new": 1.0}, 0)
    logger.finalize("done")

    names = sorted(path.name for path in tmp_path.glob("events*"))
    assert [(tmp_path / name).read_bytes()[:1] for name in names[:4]] == [b"0", b"1", b"2", b"3"]
    assert len(names) == 5


def test_a_tenth_event_file_is_read_after_the_ninth_of_the_same_process(tmp_path):
    logger = TensorBoardLogger(tmp_path, name="", version="")
    now = int(time.time())
    ninth = tmp_path / f"events.out.tfevents.{now:010}.host.1.9"
    ninth.touch()
    run_folder.wait_for_later_names([logger], own=True)

    assert int(time.time()) > now
