"""``--resume``: goes on exactly, or says why not."""

import json
import os
import shutil
import signal
from pathlib import Path

import pytest
import torch
import yaml
from filelock import FileLock
from tensorboard.data import server_ingester

from fmnist_pl.checkpoints.checkpoint_file import load_checked, sealed_bytes
from fmnist_pl.checkpoints.last_checkpoint import LastCheckpoint
from fmnist_pl.checkpoints.resume_command import resume_point
from fmnist_pl.checkpoints.stop_request import Stopped
from fmnist_pl.cli import main
from tests.soak.tensorboard_readers import python_curves, rust_curves
from tests.soak.toys import differences
from training_health.errors import UserError

VARIANT = "variant: mine\nmodel: {conv_channels: [2, 2], hidden_units: [4]}\n"
TINY = [
    "--variant",
    "mine.yaml",
    "--data.dataset=synthetic",
    "--data.training_images=61",
    "--data.batch_size=16",
    "--trainer.max_epochs=3",
    "--trainer.limit_val_batches=1",
    "--trainer.limit_test_batches=1",
    "--trainer.accelerator=cpu",
]
RUN = Path("lightning_logs") / "mine-synthetic" / "version_0"
AFTER = 6  # steps until the run is stopped: in the middle of the second epoch of four batches


@pytest.fixture(scope="module")
def data_dir(tmp_path_factory):
    return tmp_path_factory.mktemp("data")


@pytest.fixture(scope="module")
def runs(tmp_path_factory, data_dir):
    """A folder with one run that went through, and one that SIGTERM stopped."""
    folder = tmp_path_factory.mktemp("runs")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("DATA_DIR", str(data_dir))
        for name in ("straight", "stopped"):
            (folder / name).mkdir()
            patch.chdir(folder / name)
            Path("mine.yaml").write_text(VARIANT)
            if name == "stopped":
                patch.setattr(LastCheckpoint, "on_train_batch_start", stop_after(AFTER))
                with pytest.raises(Stopped):
                    main(["fit", *TINY])
            else:
                main(["fit", *TINY])
    return folder


def stop_after(steps: int):
    write = LastCheckpoint.on_train_batch_start

    def on_train_batch_start(self, trainer, *rest):
        write(self, trainer, *rest)
        if trainer.global_step == steps - 1:
            os.kill(os.getpid(), signal.SIGTERM)

    return on_train_batch_start


@pytest.fixture
def stopped(runs, tmp_path, monkeypatch, data_dir):
    """The current folder holds the stopped run."""
    shutil.copytree(runs / "stopped", tmp_path, dirs_exist_ok=True)
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("DATA_DIR", str(data_dir))
    return RUN


@pytest.fixture
def finished(runs, tmp_path, monkeypatch, data_dir):
    """The current folder holds the run that went through."""
    shutil.copytree(runs / "straight", tmp_path, dirs_exist_ok=True)
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("DATA_DIR", str(data_dir))
    return RUN


def refused(*options: str) -> str:
    """Try to resume; return what is said instead."""
    with pytest.raises(UserError) as raised:
        main(["fit", *options])
    return str(raised.value)


def outcome(folder: Path) -> dict[str, object]:
    """Everything a run ends with."""
    checkpoint = load_checked(folder / "checkpoints" / "last.ckpt")
    best = load_checked(folder / "checkpoints" / "best.ckpt")
    summary = json.loads((folder / "summary.json").read_text())
    for entry in (checkpoint["run"], best["run"], summary):
        entry.pop("started")
    summary.pop("seconds_per_epoch")
    return {"last": checkpoint, "best": best, "summary": summary, "curves": python_curves(folder)}


@pytest.fixture(scope="module")
def resumed(runs, tmp_path_factory, data_dir):
    """The stopped run, resumed with the options that it was started with."""
    folder = tmp_path_factory.mktemp("resumed")
    shutil.copytree(runs / "stopped", folder, dirs_exist_ok=True)
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(folder)
        patch.setenv("DATA_DIR", str(data_dir))
        main(["fit", *TINY, "--resume", "last"])
    return folder / RUN


def test_a_resumed_run_ends_with_the_same_weights_state_figures_and_curves(runs, resumed):
    assert differences(outcome(runs / "straight" / RUN), outcome(resumed)) == []


def test_it_goes_on_in_its_folder(resumed):
    assert [path.name for path in resumed.parent.iterdir()] == ["version_0"]


def test_it_goes_on_where_it_stopped(runs):
    checkpoint = load_checked(runs / "stopped" / RUN / "checkpoints" / "last.ckpt")

    assert checkpoint["global_step"] == AFTER
    assert not (runs / "stopped" / RUN / "summary.json").exists()


def test_its_curves_have_every_step_once_in_the_python_reader(resumed):
    assert not_strictly_increasing(python_curves(resumed)) == []


@pytest.mark.skipif(not server_ingester.get_server_binary, reason="no data server")
def test_its_curves_are_the_same_in_the_data_server(resumed):
    try:
        server_ingester.get_server_binary()
    except server_ingester.NoDataServerError:
        pytest.skip("the data server is not installed")

    assert rust_curves(resumed) == python_curves(resumed)


def not_strictly_increasing(curves) -> list[str]:
    steps = {tag: [step for step, _ in curve] for tag, curve in curves.items()}
    assert {"train/loss", "val/loss", "test/loss", "dead_relu/total", "epoch"} <= steps.keys()
    return [tag for tag, values in steps.items() if values != sorted(set(values))]


def test_a_later_crash_voids_the_curves_of_steps_that_are_done_again(stopped):
    """Epochs that were logged after the checkpoint are in the file, and must not be there twice."""
    main(["fit", "--resume", str(stopped)])
    shutil.copy(stopped / "checkpoints" / "previous.ckpt", stopped / "checkpoints" / "last.ckpt")
    (stopped / "summary.json").unlink()
    main(["fit", "--resume", str(stopped)])

    assert not_strictly_increasing(python_curves(stopped)) == []


@pytest.mark.parametrize("what", [RUN, RUN / "checkpoints", RUN / "checkpoints" / "last.ckpt"])
def test_a_folder_and_a_checkpoint_can_be_named(stopped, what):
    point = resume_point(["--resume", str(what)])

    assert (point.folder, point.file) == (stopped, stopped / "checkpoints" / "last.ckpt")
    assert point.steps == AFTER


def test_a_checkpoint_can_be_named_from_within_its_folder(stopped, tmp_path, monkeypatch):
    monkeypatch.chdir(stopped / "checkpoints")

    assert resume_point(["--resume", "last.ckpt"]).folder == tmp_path / stopped


def test_a_run_that_was_moved_goes_on(stopped, runs, tmp_path):
    moved = tmp_path / "elsewhere" / "mine-synthetic" / "version_5"
    moved.parent.mkdir(parents=True)
    stopped.rename(moved)
    main(["fit", "--resume", str(moved)])

    assert differences(outcome(runs / "straight" / RUN), outcome(moved)) == []


def test_a_run_that_was_trained_but_not_tested_is_tested(finished, runs):
    (finished / "summary.json").unlink()
    main(["fit", "--resume", "last", *TINY])

    expected, got = (json.loads((path / "summary.json").read_text()) for path in (runs / "straight" / RUN, finished))
    for summary in (expected, got):
        summary.pop("started")
    assert got == expected


# Nothing to resume


def test_without_a_run_it_never_starts_from_zero(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)

    assert "There is no run to resume in lightning_logs/baseline" in refused("--resume", "last")
    assert list(tmp_path.iterdir()) == []


def test_last_is_of_the_variant_and_the_data_set_that_are_asked_for(stopped):
    assert "lightning_logs/sgd-synthetic" in refused("--resume=last", "--variant=sgd", "--data.dataset=synthetic")
    assert "There is no run to resume in lightning_logs/mine." in refused("--resume=last", "--variant=mine.yaml")


def test_last_is_the_newest_unfinished_run(stopped, runs):
    newer, newest = (RUN.with_name(f"version_{number}") for number in (9, 10))
    shutil.copytree(runs / "stopped" / RUN, newer)
    shutil.copytree(runs / "straight" / RUN, newest)
    shutil.rmtree(newer / "checkpoints")

    assert refused("--resume", "last", *TINY).startswith(f"{newer} has no checkpoint to resume from")


def test_a_finished_run_says_so(finished):
    last = refused("--resume", "last", "--variant=mine.yaml", "--data.dataset=synthetic")

    assert "There is no unfinished run" in last
    assert "version_0, is finished" in last
    assert "version_0 is finished: 3 epochs" in refused("--resume", "last", *TINY)
    assert "version_0 is finished: 3 epochs" in refused("--resume", str(RUN))


@pytest.mark.parametrize("value", ["nowhere", "http://host/last.ckpt", "lightning_logs"])
def test_what_is_no_run_is_refused(stopped, value):
    said = refused("--resume", value)

    assert "There is nothing to resume at" in said or "is not the folder of a run" in said


def test_lightnings_own_option_is_pointed_to_ours(stopped):
    assert "fit takes --resume last" in refused("--ckpt_path=last")


# Another run


@pytest.mark.parametrize(
    ("options", "said"),
    [
        (["--seed_everything=1"], "seed_everything is 1 here and 0 in the run"),
        (["--data.batch_size=32"], "data.batch_size is 32 here and 16 in the run"),
        (["--data.dataset=fashion_mnist"], "data.dataset is 'fashion_mnist' here and 'synthetic' in the run"),
        (["--data.training_images=60"], "data.training_images is 60 here and 61 in the run"),
        (["--model.conv_channels=[2,3]"], "model.conv_channels is [2, 3] here and [2, 2] in the run"),
        (["--model.learning_rate=0.1"], "model.learning_rate is 0.1 here and 0.001 in the run"),
        (["--monitors=off"], "monitors is 'off' here and 'on' in the run"),
        (["--trainer.max_epochs=2"], "can only be raised: it is 3 in the run, and 2 here"),
        (["--variant=sgd"], "is a run of the variant mine, not of sgd"),
    ],
)
def test_options_that_make_it_another_run_are_refused(stopped, options, said):
    assert said in refused("--resume", str(stopped), *options)


def test_a_variant_that_says_something_else_by_now_is_refused(stopped):
    Path("mine.yaml").write_text(VARIANT + "# only a comment\n")
    assert "is another process" not in refused("--resume", str(stopped), "--variant=mine.yaml", "--seed_everything=5")
    Path("mine.yaml").write_text(VARIANT.replace("[4]", "[5]"))

    assert "says something else than when" in refused("--resume", str(stopped), "--variant=mine.yaml")


def change(file: Path, **changes: object) -> None:
    """Rewrite a checkpoint, sealed anew."""
    checkpoint = load_checked(file)
    checkpoint.update(changes)
    file.write_bytes(sealed_bytes(checkpoint))


def change_run(file: Path, **changes: object) -> None:
    change(file, run={**load_checked(file)["run"], **changes})


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"variant": "other"}, "is of another run: its variant is 'other'"),
        ({"dataset": "fashion_mnist"}, "its dataset is 'fashion_mnist', and that of"),
        ({"seed": 3}, "its seed is 3"),
        ({"format": 99}, "was written by a newer version of this program"),
        ({"versions": {"pytorch_lightning": "1.9.0"}}, "Install pytorch-lightning==1.9.0"),
        ({"identity": {"data": {"validation_images": 1}}}, "was trained on other images, or another split"),
    ],
)
def test_a_checkpoint_of_another_run_is_refused(stopped, changes, said):
    change_run(stopped / "checkpoints" / "last.ckpt", **changes)

    assert said in refused("--resume", str(stopped))


def test_a_checkpoint_of_another_network_is_refused(stopped):
    file = stopped / "checkpoints" / "last.ckpt"
    weights = load_checked(file)["state_dict"]
    change(file, state_dict={**weights, "net.fc1.linear.bias": torch.zeros(9)})

    assert "is of another network: net.fc1.linear.bias is (9,) in it and (4,) in this run" in refused(
        "--resume", str(stopped)
    )


def test_another_number_of_processes_is_refused(stopped):
    file = stopped / "checkpoints" / "last.ckpt"
    change(file, resumable={**load_checked(file)["resumable"], "world_size": 2})

    assert "was trained by 2 processes, and this is 1" in refused("--resume", str(stopped))


def test_the_best_checkpoint_is_for_testing(finished):
    (finished / "summary.json").unlink()

    assert "Resume from last.ckpt beside it" in refused("--resume", str(finished / "checkpoints" / "best.ckpt"))


def test_a_checkpoint_of_another_program_is_refused(stopped):
    torch.save({"state_dict": {}}, stopped / "checkpoints" / "last.ckpt")

    assert "was not written by fmnist fit" in refused("--resume", str(stopped))


def test_a_damaged_checkpoint_is_named_and_the_previous_offered(stopped, runs):
    shutil.copy(stopped / "checkpoints" / "last.ckpt", stopped / "checkpoints" / "previous.ckpt")
    (stopped / "checkpoints" / "last.ckpt").write_bytes(b"torn")
    said = refused("--resume", "last", *TINY)

    previous = stopped / "checkpoints" / "previous.ckpt"
    assert f"{stopped / 'checkpoints' / 'last.ckpt'} is damaged" in said
    assert said.endswith(f"go on with --resume {previous}")
    main(["fit", "--resume", str(previous)])
    assert differences(outcome(runs / "straight" / RUN), outcome(stopped)) == []


def test_another_number_of_threads_is_warned_of(stopped):
    change_run(stopped / "checkpoints" / "last.ckpt", threads=torch.get_num_threads() + 3)

    with pytest.warns(UserWarning, match=r"began with \d+ threads, now \d+: its last digits will differ"):
        main(["fit", "--resume", str(stopped)])


def test_a_run_that_is_still_going_on_is_refused(stopped):
    with FileLock(stopped / ".lock"):
        assert "Another process is training in" in refused("--resume", str(stopped))


# Longer


def test_a_finished_run_can_be_trained_further_and_ends_as_if_it_had_been_longer_from_the_start(finished, tmp_path):
    main(["fit", "--resume", "last", *TINY, "--trainer.max_epochs=4"])
    main(["fit", *TINY, "--trainer.max_epochs=4"])

    further, longer = outcome(finished), outcome(finished.with_name("version_1"))
    for one in (further, longer):
        del one["best"]["run"]
    assert differences(longer, further) == []


def test_a_schedule_laid_out_over_the_epochs_cannot_be_stretched(stopped):
    config = yaml.safe_load((stopped / "config.yaml").read_text())
    config["model"]["schedule"] = "cosine"
    (stopped / "config.yaml").write_text(yaml.safe_dump(config))

    assert "cannot be changed from 3 to 5: the run's learning rates" in refused(
        "--resume", str(stopped), "--trainer.max_epochs=5"
    )


# Evaluation


@pytest.mark.parametrize("command", ["validate", "test", "predict"])
def test_an_evaluation_needs_weights(finished, command):
    with pytest.raises(UserError, match=f"{command} needs weights"):
        main([command, "--data.dataset=synthetic"])


def test_an_evaluation_takes_the_network_from_the_checkpoint(finished, capsys):
    main(["test", "--ckpt_path", str(finished), "--data.dataset=synthetic", "--trainer.limit_test_batches=1"])

    assert "test/accuracy" in capsys.readouterr().out


def test_an_evaluation_checks_the_file_first(finished):
    file = finished / "checkpoints" / "best.ckpt"
    file.write_bytes(file.read_bytes()[:-1])

    with pytest.raises(UserError, match=r"best.ckpt is damaged"):
        main(["test", "--ckpt_path", str(file)])


def test_checkpoints_hold_plain_values_alone(finished):
    hyper_parameters = load_checked(finished / "checkpoints" / "last.ckpt")["hyper_parameters"]

    assert hyper_parameters["conv_channels"] == [2, 2]
    assert not any(key.startswith("_") for key in hyper_parameters)
