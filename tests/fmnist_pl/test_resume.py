"""``--resume``: continues exactly, or says why not."""

import re
import shutil
from pathlib import Path

import pytest
import pytorch_lightning as pl
import torch
import yaml
from filelock import FileLock
from tensorboard.data import server_ingester

from fmnist_pl.checkpoints.checkpoint_file import checkpoint_bytes, load_checked
from fmnist_pl.checkpoints.resume import find
from fmnist_pl.cli import main
from tests.soak.command import TINY, differences, ending
from tests.soak.tensorboard_readers import python_curves, rust_curves
from training_health.errors import UserError

VARIANT = "variant: mine\nmodel: {conv_channels: [2, 2], hidden_units: [4]}\n"
OPTIONS = ["--variant", "mine.yaml", *(option for option in TINY if not option.startswith("--model"))]
RUN = Path("lightning_logs") / "mine-synthetic" / "version_0"
LAST = RUN / "checkpoints" / "last.ckpt"
AFTER = 16  # steps that are saved when the run is stopped: two epochs of eight batches


class Breaks(pl.Callback):
    """Ends the run in its third epoch."""

    def on_train_batch_start(self, trainer, *_):
        if trainer.global_step == AFTER + 3:
            raise KeyboardInterrupt


@pytest.fixture(scope="module")
def runs(tmp_path_factory, data_dir):
    """A folder with one run that went through, and one that broke off."""
    folder = tmp_path_factory.mktemp("runs")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("DATA_DIR", str(data_dir))
        for name in ("straight", "stopped"):
            (folder / name).mkdir()
            patch.chdir(folder / name)
            Path("mine.yaml").write_text(VARIANT)
            if name == "straight":
                main(["fit", *OPTIONS])
            else:
                with pytest.raises(SystemExit):
                    main(["fit", *OPTIONS], callbacks=[Breaks()])
    return folder


def copied(runs, name, tmp_path, monkeypatch, data_dir):
    shutil.copytree(runs / name, tmp_path, dirs_exist_ok=True)
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("DATA_DIR", str(data_dir))
    return RUN


@pytest.fixture
def stopped(runs, tmp_path, monkeypatch, data_dir):
    """The current folder holds the stopped run."""
    return copied(runs, "stopped", tmp_path, monkeypatch, data_dir)


@pytest.fixture
def finished(runs, tmp_path, monkeypatch, data_dir):
    """The current folder holds the run that went through."""
    return copied(runs, "straight", tmp_path, monkeypatch, data_dir)


def refused(*options: str) -> str:
    """Try to resume; return what is said instead."""
    with pytest.raises(UserError) as raised:
        main(["fit", *options])
    return str(raised.value)


def not_strictly_increasing(curves) -> list[str]:
    steps = {tag: [step for step, _ in curve] for tag, curve in curves.items()}
    assert {"train/loss", "val/loss", "test/loss", "dead_relu/total", "epoch"} <= steps.keys()
    return [tag for tag, values in steps.items() if values != sorted(set(values))]


def test_a_resumed_run_ends_in_its_folder_with_the_same_weights_state_metrics_and_curves(stopped, runs):
    assert load_checked(LAST)["global_step"] == AFTER
    assert not (stopped / "summary.json").exists()
    main(["fit", *OPTIONS, "--resume", "last"])

    assert differences(ending(runs / "straight" / RUN), ending(stopped)) == []
    assert [path.name for path in stopped.parent.iterdir()] == ["version_0"]
    assert not_strictly_increasing(python_curves(stopped)) == []
    try:
        server_ingester.get_server_binary()
    except server_ingester.NoDataServerError:
        return  # only one of TensorBoard's two readers is installed
    assert rust_curves(stopped) == python_curves(stopped)


def test_a_later_crash_voids_the_curves_of_steps_that_are_done_again(stopped):
    """Epochs that were logged after the checkpoint are in the file, and must not be there twice."""
    main(["fit", "--resume", str(stopped)])
    shutil.copy(stopped / "checkpoints" / "previous.ckpt", LAST)
    (stopped / "summary.json").unlink()
    main(["fit", "--resume", str(stopped)])

    assert not_strictly_increasing(python_curves(stopped)) == []


@pytest.mark.parametrize("what", [RUN, RUN / "checkpoints", LAST])
def test_a_folder_and_a_checkpoint_can_be_named(stopped, what):
    point = find(str(what), Path())

    assert (point.folder, point.file, point.checkpoint["global_step"]) == (stopped, LAST, AFTER)


def test_a_checkpoint_can_be_named_from_within_its_folder(stopped, tmp_path, monkeypatch):
    monkeypatch.chdir(stopped / "checkpoints")

    assert find("last.ckpt", Path()).folder == tmp_path / stopped


def test_a_run_that_was_moved_continues(stopped, runs, tmp_path):
    moved = tmp_path / "elsewhere" / "mine-synthetic" / "version_5"
    moved.parent.mkdir(parents=True)
    stopped.rename(moved)
    main(["fit", "--resume", str(moved)])

    assert differences(ending(runs / "straight" / RUN), ending(moved)) == []


@pytest.mark.parametrize(
    ("within", "value"), [(RUN.parents[1], "mine-synthetic/version_0"), (RUN.parent, "version_0"), (RUN, ".")]
)
def test_a_run_that_is_named_from_near_by_keeps_its_best_checkpoint(finished, monkeypatch, within, value):
    callbacks = load_checked(LAST)["callbacks"]
    (best,) = (state for state in callbacks.values() if "best_k_models" in state)
    best["best_k_models"] = dict.fromkeys(best["best_k_models"], torch.tensor(99.0))  # the one further epoch is better
    change(callbacks=callbacks)
    monkeypatch.chdir(within)
    run = main(["fit", "--resume", value, "--trainer.max_epochs=5"])

    assert [path.name for path in Path(run.trainer.log_dir).glob("checkpoints/best*")] == ["best.ckpt"]


def test_options_that_the_run_began_with_need_not_be_repeated_nor_left_out(finished, data_dir):
    options = [*OPTIONS, "--model.learning_rate=0.01", "--trainer.max_epochs=1", "--monitors=off"]
    main(["fit", *options])
    (finished.with_name("version_1") / "summary.json").unlink()
    again = main(["fit", "--variant=mine.yaml", "--data.dataset=synthetic", "--monitors=off", "--resume", "last"])

    assert again.model.learning_rate == 0.01
    assert Path(again.trainer.log_dir) == finished.with_name("version_1")


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

    assert refused("--resume", "last", *OPTIONS).startswith(f"{newer} has no checkpoint")


def test_a_finished_run_says_so(finished):
    assert "version_0 is finished: 4 epochs" in refused("--resume", "last", *OPTIONS)
    assert "version_0 is finished: 4 epochs" in refused("--resume", str(RUN))


@pytest.mark.parametrize("value", ["nowhere", "http://host/last.ckpt", "lightning_logs", "mine.yaml"])
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
        (["--data.batch_size=32"], "data.batch_size is 32 here and 8 in the run"),
        (["--data.dataset=fashion_mnist"], "data.dataset is fashion_mnist here and synthetic in the run"),
        (["--model.conv_channels=[2,3]"], "model.conv_channels is [2, 3] here and [2, 2] in the run"),
        (["--monitors=off"], "monitors is off here and on in the run"),
        (["--trainer.max_epochs=2"], "max_epochs can only be raised"),
        (["--trainer.max_steps=20"], "trainer.max_steps is 20 here and -1 in the run"),
        (["--variant=sgd"], "variant is sgd here and mine in the run"),
    ],
)
def test_options_that_make_it_another_run_are_refused(stopped, options, said):
    assert said in refused("--resume", str(stopped), *options)


def test_a_variant_that_says_something_else_by_now_is_refused(stopped):
    Path("mine.yaml").write_text(VARIANT + "# only a comment\n")
    assert "seed_everything" in refused("--resume", str(stopped), "--variant=mine.yaml", "--seed_everything=5")
    Path("mine.yaml").write_text(VARIANT.replace("[4]", "[5]"))

    assert "says something else than when" in refused("--resume", str(stopped), "--variant=mine.yaml")


def change(**changes: object) -> None:
    """Rewrite the last checkpoint."""
    LAST.write_bytes(checkpoint_bytes({**load_checked(LAST), **changes}))


def test_other_data_and_another_number_of_processes_are_refused(stopped):
    run = load_checked(LAST)["run"]
    change(run={**run, "devices": 2})
    assert "was trained by 2 processes, and this is 1" in refused("--resume", str(stopped))
    change(run={**run, "identity": {**run["identity"], "data": {"validation_images": 1}}})

    assert "was trained on other data" in refused("--resume", str(stopped))


def test_other_versions_code_and_threads_are_warned_of(stopped):
    run = load_checked(LAST)["run"]
    versions = {**run["versions"], "torch": "1.0"}
    identity = {**run["identity"], "code": "abc"}
    change(run={**run, "identity": identity, "versions": versions, "threads": torch.get_num_threads() + 3})

    with pytest.warns(UserWarning, match=r"code abc, now .*torch 1.0, now .*threads \d+, now \d+\. Its last"):
        main(["fit", "--resume", str(stopped)])


def test_weights_of_another_network_are_refused(stopped):
    change(state_dict={**load_checked(LAST)["state_dict"], "net.fc1.linear.bias": torch.zeros(9)})

    assert "another network: net.fc1.linear.bias is (9,) in it and (4,) here" in refused("--resume", str(stopped))


@pytest.mark.parametrize(
    ("name", "value", "said"),
    [
        ("exp_avg", torch.zeros(3, 3), r"exp_avg of parameter 0 is \(3, 3\) in it and \(2, 1, 2, 2\)"),
        ("exp_avg", torch.zeros(()).expand(2, 1, 2, 2), r"exp_avg of parameter 0 is laid out by \[0, 0, 0\]"),
        ("exp_avg_sq", torch.zeros(2, 1, 2, 2, dtype=torch.int8), r"exp_avg_sq of parameter 0 is torch.int8"),
        ("step", torch.tensor(1, dtype=torch.int8), r"step of parameter 0 is torch.int8 in it and torch.float32"),
        ("step", None, r"step of parameter 0 is absent"),
    ],
)
def test_optimiser_state_of_another_network_is_refused(stopped, name, value, said):
    """torch's fused Adam would write beyond the ends of its arrays."""
    (optimizer,) = load_checked(LAST)["optimizer_states"]
    optimizer["state"][0][name] = value
    change(optimizer_states=[optimizer])

    assert re.search(said, refused("--resume", str(stopped)))


def test_state_that_belongs_to_other_weights_is_refused(stopped):
    (optimizer,) = load_checked(LAST)["optimizer_states"]
    optimizer["param_groups"][0]["params"].reverse()
    change(optimizer_states=[optimizer])

    assert "the optimiser's params" in refused("--resume", str(stopped))


@pytest.mark.parametrize("what", [{"loops": {}}, {"run": {}}, {"optimizer_states": []}, {"callbacks": {}}])
def test_a_checkpoint_that_lacks_a_part_is_refused_with_its_name(stopped, what):
    change(**what)

    assert "last.ckpt" in refused("--resume", str(stopped))


def test_a_checkpoint_that_is_not_of_an_epochs_end_is_refused(stopped):
    assert "Resume from last.ckpt" in refused("--resume", str(LAST.with_name("best.ckpt")))
    torch.save({"state_dict": {}}, LAST)

    assert "was not written by fmnist fit" in refused("--resume", str(stopped))


def test_a_damaged_last_checkpoint_is_named_and_the_previous_one_taken(stopped, runs):
    LAST.write_bytes(b"torn")
    with pytest.warns(UserWarning, match=r"last.ckpt is damaged.* resumes from previous.ckpt"):
        main(["fit", "--resume", "last", *OPTIONS])

    assert differences(ending(runs / "straight" / RUN), ending(stopped)) == []


def test_a_run_that_is_still_training_is_refused(stopped):
    with FileLock(stopped / ".lock"):
        assert "Another process is training in" in refused("--resume", str(stopped))


# Longer


def test_a_finished_run_can_be_trained_further_and_ends_as_if_it_had_been_longer_from_the_start(finished):
    main(["fit", "--resume", "last", *OPTIONS, "--trainer.max_epochs=5"])
    main(["fit", *OPTIONS, "--trainer.max_epochs=5"])

    further, longer = ending(finished), ending(finished.with_name("version_1"))
    for one in (further, longer):
        del one["best.ckpt"]["run"]  # says four epochs if an early one was the best
    assert differences(longer, further) == []


def test_a_schedule_made_for_the_epochs_cannot_be_stretched(stopped):
    config = yaml.safe_load((stopped / "config.yaml").read_text())
    config["model"]["schedule"] = "cosine"
    (stopped / "config.yaml").write_text(yaml.safe_dump(config))

    assert "only with a constant learning rate" in refused("--resume", str(stopped), "--trainer.max_epochs=5")


# Evaluation


@pytest.mark.parametrize("command", ["validate", "test", "predict"])
def test_an_evaluation_needs_weights(finished, command):
    with pytest.raises(UserError, match=f"{command} needs weights"):
        main([command, "--data.dataset=synthetic"])


def test_an_evaluation_checks_the_file_first(finished):
    file = finished / "checkpoints" / "best.ckpt"
    file.write_bytes(file.read_bytes()[:-1])

    with pytest.raises(UserError, match=r"best.ckpt is damaged"):
        main(["test", "--ckpt_path", str(file)])
