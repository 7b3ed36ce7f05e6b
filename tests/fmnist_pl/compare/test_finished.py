"""What is found in a log folder."""

import json

from fmnist_pl.compare.finished import LogFolder
from tests.fmnist_pl.compare.made_runs import summary, wanted, write_summary


def test_a_finished_run_is_found_by_content_whatever_its_folder_is_called(tmp_path):
    run = wanted(seed=3)
    folder = write_summary(tmp_path, run).rename(tmp_path / run.name / "version_77")

    assert LogFolder(tmp_path).finished(run).folder == folder


def test_another_seed_configuration_or_code_is_another_run(tmp_path):
    write_summary(tmp_path, wanted(seed=0))
    logs = LogFolder(tmp_path)

    assert logs.finished(wanted(seed=1)) is None
    assert logs.finished(wanted("sgd", seed=0)) is None
    assert logs.finished(wanted(seed=0, code="newer")) is None


def test_of_several_the_first_counts(tmp_path):
    for version in (10, 9):
        write_summary(tmp_path, wanted(), version=version)

    assert LogFolder(tmp_path).finished(wanted()).folder.name == "version_9"


def test_other_code_is_accepted_on_request_if_there_is_no_exact_match(tmp_path):
    write_summary(tmp_path, wanted(code="older"))
    newer = wanted(code="newer")

    assert LogFolder(tmp_path).of_other_code(newer)
    assert LogFolder(tmp_path, any_code=True).finished(newer) is not None

    exact = write_summary(tmp_path, newer, version=1)
    assert LogFolder(tmp_path, any_code=True).finished(newer).folder == exact


def test_an_unreadable_summary_is_not_a_finished_run(tmp_path):
    folder = write_summary(tmp_path, wanted())
    (folder / "summary.json").write_text('{"identity": {"dig')

    assert LogFolder(tmp_path).finished(wanted()) is None


def test_runs_without_identity_are_passed_over(tmp_path):
    write_summary(tmp_path, wanted(), {"test": {"test/accuracy": 0.9}})

    assert LogFolder(tmp_path).finished(wanted()) is None
    assert not LogFolder(tmp_path).of_other_code(wanted())


def test_a_folder_that_does_not_exist_holds_nothing(tmp_path):
    assert LogFolder(tmp_path / "none").finished(wanted()) is None


def test_a_loss_that_is_not_a_number_is_a_failure_with_its_epoch(tmp_path):
    content = summary(wanted())
    content["history"] = [{"train/loss": 1.0, "val/loss": 1.0}, {"train/loss": 1.0, "val/loss": None}]
    write_summary(tmp_path, wanted(), content)

    assert LogFolder(tmp_path).finished(wanted()).failure == "val/loss was not a finite number in epoch 2"


def test_finite_losses_are_no_failure(tmp_path):
    write_summary(tmp_path, wanted())

    assert LogFolder(tmp_path).finished(wanted()).failure is None


def test_the_newest_interrupted_run_that_can_be_gone_on_with_is_found(tmp_path):
    run = wanted()
    for version, checkpoint in ((0, "last.ckpt"), (1, "previous.ckpt"), (2, "best.ckpt")):
        folder = tmp_path / run.name / f"version_{version}"
        (folder / "checkpoints").mkdir(parents=True)
        (folder / "identity.json").write_text(json.dumps(run.identity))
        (folder / "checkpoints" / checkpoint).touch()

    assert LogFolder(tmp_path).interrupted(run).name == "version_1"
    assert LogFolder(tmp_path).interrupted(wanted(seed=9)) is None


def test_a_finished_run_is_not_interrupted(tmp_path):
    run = wanted()
    folder = write_summary(tmp_path, run)
    (folder / "checkpoints").mkdir()
    (folder / "checkpoints" / "last.ckpt").touch()
    (folder / "identity.json").write_text(json.dumps(run.identity))

    assert LogFolder(tmp_path).interrupted(run) is None
