"""What is found in a log folder."""

import pytest

from fmnist_pl.compare.log_folder import LogFolder
from tests.fmnist_pl.compare.made_runs import begin, summary, wanted, write_summary


def test_a_finished_run_is_found_by_content_whatever_its_folder_is_called(tmp_path):
    write_summary(tmp_path, wanted(seed=3)).rename(tmp_path / "baseline" / "version_77")
    logs = LogFolder(tmp_path)

    assert logs.finished(wanted(seed=3)).folder == str(tmp_path / "baseline" / "version_77")
    assert logs.finished(wanted(seed=1)) is None
    assert logs.finished(wanted("sgd", seed=3)) is None
    assert logs.finished(wanted(seed=3, code="newer")) is None


def test_of_several_the_first_counts(tmp_path):
    for version in (10, 9):
        write_summary(tmp_path, wanted(), version=version)

    assert LogFolder(tmp_path).finished(wanted()).folder.endswith("version_9")


def test_other_code_is_accepted_on_request_if_there_is_no_exact_match(tmp_path):
    write_summary(tmp_path, wanted(code="older"))
    newer = wanted(code="newer")

    assert LogFolder(tmp_path).of_other_code(newer)
    assert LogFolder(tmp_path, any_code=True).finished(newer) is not None

    exact = write_summary(tmp_path, newer, version=1)
    assert LogFolder(tmp_path, any_code=True).finished(newer).folder == str(exact)


@pytest.mark.parametrize("text", ['{"identity": {"dig', '{"test": {}}', '{"identity": null}', "[1]"])
def test_a_summary_that_says_not_what_run_it_is_of_is_passed_over(tmp_path, text):
    folder = write_summary(tmp_path, wanted())
    (folder / "summary.json").write_text(text)

    assert LogFolder(tmp_path, any_code=True).finished(wanted()) is None


def test_a_loss_that_is_not_a_number_is_a_failure_with_its_epoch(tmp_path):
    history = [{"train/loss": 1.0, "val/loss": 1.0}, {"train/loss": 1.0, "val/loss": None}]
    write_summary(tmp_path, wanted(), {**summary(wanted()), "history": history})

    assert LogFolder(tmp_path).finished(wanted()).failure == "val/loss was not a finite number in epoch 2"


def test_the_newest_interrupted_run_that_can_be_resumed_is_found(tmp_path):
    for version, checkpoint in ((0, "last.ckpt"), (1, "previous.ckpt"), (2, "best.ckpt"), (3, "last.ckpt")):
        begin(tmp_path, wanted(), version, checkpoint)
    (tmp_path / "baseline" / "version_3" / "summary.json").touch()  # finished

    assert LogFolder(tmp_path).interrupted(wanted()).name == "version_1"
    assert LogFolder(tmp_path).interrupted(wanted(seed=9)) is None
