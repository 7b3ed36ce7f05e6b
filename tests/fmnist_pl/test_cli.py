"""The command from its options to what a run leaves, in this process and on tiny networks."""

import json
import re
import shlex
import shutil

import pytest
import pytorch_lightning as pl
import torch
import yaml
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator
from tensorboard.plugins.hparams import plugin_data_pb2

from fmnist_pl.cli import MONITORS, main
from fmnist_pl.configuration import packaged_variants
from training_health.errors import UserError

TINY = [
    "--data.dataset=synthetic",
    "--data.training_images=64",
    "--trainer.max_epochs=2",
    "--trainer.limit_val_batches=1",
    "--trainer.limit_test_batches=0.05",  # not 1: it is a number of batches or 1.0, by what was imported before
    "--trainer.accelerator=cpu",
    "--model.conv_channels=[2, 2]",
    "--model.hidden_units=[4]",
]


@pytest.fixture
def fmnist(tmp_path, data_dir, monkeypatch):
    """Run a subcommand in an empty folder."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("DATA_DIR", str(data_dir))

    def run(command: str, *options: str) -> None:
        main([command, *TINY, *options])

    return run


@pytest.fixture(scope="module")
def finished_run(tmp_path_factory, data_dir):
    """The folder of one run of `no_dropout` with everything on."""
    folder = tmp_path_factory.mktemp("finished")
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(folder)
        patch.setenv("DATA_DIR", str(data_dir))
        main(["fit", "--variant", "no_dropout", *TINY])
    return folder / "lightning_logs" / "no_dropout-synthetic" / "version_0"


def test_a_run_leaves_its_config_checkpoints_and_summary(finished_run):
    names = {str(path.relative_to(finished_run)) for path in finished_run.rglob("*") if path.is_file()}

    assert {"config.yaml", "summary.json", "checkpoints/best.ckpt", "checkpoints/last.ckpt"} <= names
    assert any(name.startswith("events.out.tfevents") for name in names)


def test_the_best_checkpoint_is_of_the_lowest_validation_loss(finished_run):
    checkpoint = torch.load(finished_run / "checkpoints" / "best.ckpt", weights_only=True)
    history = json.loads((finished_run / "summary.json").read_text())["history"]

    assert checkpoint["epoch"] == min(history, key=lambda entry: entry["val/loss"])["epoch"]


def test_the_best_validation_is_that_of_the_best_checkpoint_where_an_epoch_has_several(fmnist, tmp_path):
    options = ["--trainer.val_check_interval=0.5", "--data.batch_size=16", "--model.learning_rate=30"]
    fmnist("fit", "--variant", "sgd", "--monitors=off", "--trainer.max_epochs=3", *options)

    run = tmp_path / "lightning_logs" / "sgd-synthetic" / "version_0"
    checkpoint = torch.load(run / "checkpoints" / "best.ckpt", weights_only=True)
    summary = json.loads((run / "summary.json").read_text())
    saved = next(state for name, state in checkpoint["callbacks"].items() if "BestCheckpoint" in name)
    assert summary["best_val_loss"] == pytest.approx(saved["best_model_score"].item())
    assert summary["best_epoch"] == checkpoint["epoch"]
    assert summary["best_val_loss"] < min(entry["val/loss"] for entry in summary["history"])  # not at an epoch's end


def test_the_summary_names_what_it_was_measured_on_and_holds_the_promised_metrics(finished_run):
    summary = json.loads((finished_run / "summary.json").read_text())

    named = {"variant": "no_dropout", "dataset": "synthetic", "seed": 0, "epochs": 2, "test_checkpoint": "best"}
    assert summary.items() >= {**named, "threads": torch.get_num_threads()}.items()
    assert summary["versions"]["torch"] == torch.__version__
    assert summary["seconds_per_epoch"] > 0
    assert {"test/accuracy", "test/loss"} <= set(summary["test"])
    promised = {"train/accuracy", "val/accuracy", "gap/accuracy", "gap/accuracy_se", "gap/mode_effect"}
    assert promised | {"dead_relu/total", "dead_relu/conv1", "dead_relu/fc1"} <= set(summary["last_epoch"])
    assert summary["monitors"].keys() == {"DeadReLUMonitor", "TrainValGapMonitor"}
    assert summary["sentences"]


def test_main_returns_what_ran_with_the_callbacks_that_were_added(data_dir, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("DATA_DIR", str(data_dir))
    added = pl.Callback()

    run = main(["fit", *TINY, "--monitors=off"], callbacks=[added])

    assert added in run.trainer.callbacks
    assert [entry["epoch"] for entry in run.record.history] == [0, 1]


def test_a_profiler_that_is_asked_for_sees_the_steps(data_dir, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("DATA_DIR", str(data_dir))

    run = main(["fit", *TINY, "--monitors=off", "--trainer.profiler=simple"])

    assert len(run.trainer.profiler.recorded_durations["run_training_batch"]) == 2  # one batch in each of two epochs


def test_the_dashboards_record_of_the_options_has_its_metrics(finished_run):
    events = EventAccumulator(str(finished_run)).Reload()
    ((_, content),) = [item for item in events.PluginTagToContent("hparams").items() if "experiment" in item[0]]

    experiment = plugin_data_pb2.HParamsPluginData.FromString(content).experiment
    assert {"test/accuracy", "val/loss", "gap/accuracy"} <= {metric.name.tag for metric in experiment.metric_infos}
    ticked = {hparam.name for hparam in experiment.hparam_infos if hparam.differs}  # these five come first there
    assert ticked == {"variant", "dataset", "seed", "optimizer", "learning_rate"}


def test_the_summary_is_of_all_epochs_also_where_an_early_one_was_the_best(fmnist, tmp_path):
    fmnist("fit", "--variant", "no_dropout", "--model.learning_rate=0", "--trainer.max_epochs=3")

    run = tmp_path / "lightning_logs" / "no_dropout-synthetic" / "version_0"
    summary = json.loads((run / "summary.json").read_text())
    assert summary["best_epoch"] == 0  # nothing moves, so nothing improves
    assert [entry["epoch"] for entry in summary["history"]] == [0, 1, 2]
    assert summary["epochs"] == 3
    last = summary["monitors"]["DeadReLUMonitor"]
    assert summary["last_epoch"]["dead_relu/total"] == pytest.approx(last["dead"] / last["units"])


def test_an_epoch_without_validation_has_no_metrics_of_an_earlier_one(fmnist, tmp_path, capsys):
    fmnist("fit", "--trainer.check_val_every_n_epoch=2", "--trainer.max_epochs=3")

    run = tmp_path / "lightning_logs" / "baseline-synthetic" / "version_0"
    history = json.loads((run / "summary.json").read_text())["history"]
    printed = [line for line in capsys.readouterr().out.splitlines() if line.startswith("epoch ")]
    assert ["val/loss" in entry for entry in history] == [False, True, False]
    assert ["val/loss" in line for line in printed] == [False, True, False]


def test_without_a_logger_the_folder_of_what_is_left_is_named(fmnist, tmp_path, capsys):
    fmnist("fit", "--monitors=off", "--trainer.logger=false")

    assert f"no summary.json; what else the run left: {tmp_path}" in capsys.readouterr().out
    assert (tmp_path / "checkpoints" / "last.ckpt").exists()


@pytest.mark.parametrize(
    ("option", "said"),
    [
        ("--trainer.check_val_every_n_epoch=2", "of epoch 2, the last that was validated"),
        ("--trainer.limit_train_batches=0", "untrained weights"),
        ("--model.learning_rate=1e38", "no epoch has a finite validation loss"),
        ("--test_checkpoint=last", "training images            │ 64"),
        ("--trainer.limit_test_batches=0.05", "only 100 of 2,000"),
        ("--trainer.limit_train_batches=0.5 --data.batch_size=32", "only 1 of 2 an epoch"),
    ],
)
@pytest.mark.filterwarnings("ignore")
def test_the_table_says_which_weights_and_which_epoch_its_numbers_are_of(option, said, fmnist, capsys):
    fmnist("fit", "--monitors=off", "--trainer.max_epochs=3", *option.split())

    assert said in capsys.readouterr().out


def test_without_monitors_the_weights_are_the_same(fmnist, tmp_path, finished_run):
    fmnist("fit", "--variant", "no_dropout", "--monitors", "off")

    checkpoints = [finished_run, tmp_path / "lightning_logs" / "no_dropout-synthetic" / "version_0"]
    with_monitors, without = (
        torch.load(folder / "checkpoints" / "last.ckpt", weights_only=True)["state_dict"] for folder in checkpoints
    )
    assert with_monitors.keys() == without.keys()
    assert all(torch.equal(with_monitors[name], without[name]) for name in without)


def test_monitors_off_takes_just_the_monitors_out(fmnist, tmp_path):
    fmnist("fit", "--monitors", "off")

    saved = (tmp_path / "lightning_logs" / "baseline-synthetic" / "version_0" / "config.yaml").read_text()
    assert not any(monitor in saved for monitor in MONITORS)
    assert "fmnist_pl.predictions.PredictionImages" in saved


def test_the_summary_ends_with_how_to_look_at_it(fmnist, capsys):
    fmnist("fit", "--monitors", "off")

    printed = capsys.readouterr().out
    assert "SYNTHETIC images, not Fashion-MNIST" in printed
    assert printed.rstrip().splitlines()[-1] == "See it all: tensorboard --logdir lightning_logs"


def test_with_monitors_the_summary_ends_with_the_address_of_their_tab(fmnist, capsys):
    fmnist("fit")

    last = capsys.readouterr().out.rstrip().splitlines()[-1]
    assert last == "See it all: tensorboard --logdir lightning_logs, then http://localhost:6006/#training_health"


@pytest.mark.parametrize(
    ("name", "logs"), [("mine", "a [b] [/c] :smile:"), ("f\x1b[31m", "it's"), ("50% #1?", "50% #1?")]
)
def test_a_run_in_a_folder_of_any_name_says_how_to_look_at_it(fmnist, tmp_path, capsys, name, logs):
    (tmp_path / f"{name}.yaml").write_text("model: {activation: gelu}\n")
    fmnist("fit", "--variant", f"{name}.yaml", "--monitors=off", f"--trainer.logger.init_args.save_dir={logs}")

    printed = capsys.readouterr().out
    assert printed.rstrip().splitlines()[-1] == f"See it all: tensorboard --logdir {shlex.quote(logs)}"
    (run,) = (tmp_path / logs).glob("*/version_0")
    assert run.parent.name.isprintable()
    with pytest.raises(UserError, match="is finished"):
        main(["fit", "--resume", str(run)])


@pytest.mark.parametrize("name", packaged_variants())
def test_every_packaged_variant_trains(fmnist, name):
    fmnist("fit", "--variant", name, "--trainer.fast_dev_run", "true")


def test_an_option_wins_over_the_variant(fmnist, capsys):
    with pytest.raises(SystemExit):
        fmnist("fit", "--variant", "sgd", "--model.learning_rate=0.5", "--print_config")

    printed = yaml.safe_load(capsys.readouterr().out)
    assert printed["model"]["learning_rate"] == 0.5
    assert printed["model"]["optimizer"] == "sgd"


@pytest.mark.parametrize("command", ["validate", "test", "predict"])
def test_an_evaluation_has_a_folder_of_its_own_named_after_the_checkpoints_run(fmnist, tmp_path, finished_run, command):
    fmnist(command, "--ckpt_path", str(finished_run / "checkpoints" / "best.ckpt"))

    assert [path.name for path in (tmp_path / "lightning_logs").iterdir()] == [f"no_dropout-synthetic-{command}"]


def test_testing_a_checkpoint_again_gives_the_runs_accuracy(fmnist, finished_run, capsys):
    fmnist("test", "--ckpt_path", str(finished_run))

    summary = json.loads((finished_run / "summary.json").read_text())
    printed = capsys.readouterr().out
    accuracy = float(re.search(r"test/accuracy\W+([\d.]+)", printed).group(1))
    assert accuracy == pytest.approx(summary["test"]["test/accuracy"], abs=1e-6)
    assert "On SYNTHETIC images, not Fashion-MNIST: 100 test images, weights of epoch " in printed


@pytest.mark.parametrize(
    ("options", "said"),
    [
        (["--variant=sgd", "--model.hidden_units=[3]"], "whatever --model.hidden_units, --variant may say"),
        (["--variant=no_dropout", "--model.flip_at_test=true"], None),
    ],
)
def test_options_that_would_make_another_network_are_said_to_change_nothing(
    fmnist, finished_run, capsys, options, said
):
    fmnist("test", "--ckpt_path", str(finished_run), *options)

    note = capsys.readouterr().err
    assert ("Note: the network is the checkpoint's" in note) == (said is not None)
    assert said is None or said in note


def test_a_checkpoint_can_be_tested_with_flips_though_it_was_trained_without(fmnist, finished_run, capsys):
    losses = []
    for given in ("false", "true"):
        fmnist("test", "--ckpt_path", str(finished_run), f"--model.flip_at_test={given}")
        losses.append(re.search(r"test/loss\W+([\d.]+)", capsys.readouterr().out).group(1))

    assert losses[0] != losses[1]


def test_a_data_set_other_than_the_trained_one_is_said(data_dir, tmp_path, monkeypatch, finished_run, capsys):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("FMNIST_MIRRORS", "http://127.0.0.1:9/")
    monkeypatch.setenv("PATH", str(tmp_path))  # without apt-get, which would find the real ones
    monkeypatch.setenv("HOME", str(tmp_path))

    with pytest.raises(UserError):  # there are no real images here
        main(["test", "--data.dataset=fashion_mnist", f"--data.root={tmp_path}", "--ckpt_path", str(finished_run)])

    assert "Note: trained on synthetic, evaluated on fashion_mnist." in capsys.readouterr().err


@pytest.mark.parametrize("option", ["--config", "-c"])
def test_a_variant_named_in_a_configuration_file_brings_its_settings(fmnist, tmp_path, capsys, option):
    (tmp_path / "mine.yaml").write_text("variant: sgd\n")

    with pytest.raises(SystemExit):
        fmnist("fit", option, "mine.yaml", "--print_config")

    printed = yaml.safe_load(capsys.readouterr().out)
    assert (printed["variant"], printed["model"]["optimizer"]) == ("sgd", "sgd")


def test_a_configuration_file_can_ask_to_resume(fmnist, tmp_path):
    (tmp_path / "mine.yaml").write_text("resume: last\n")
    fmnist("fit", "--monitors=off", "--trainer.max_epochs=1")

    with pytest.raises(UserError, match="is finished"):
        fmnist("fit", "--config", "mine.yaml", "--monitors=off", "--trainer.max_epochs=1")


def contents(folder):
    return {path: path.read_bytes() for path in folder.rglob("*") if path.is_file()}


def test_a_run_without_monitors_repeated_with_its_saved_configuration_is_the_same_in_a_folder_of_its_own(
    fmnist, tmp_path
):
    fmnist("fit", "--monitors", "off", "--trainer.max_epochs=1")
    first = tmp_path / "lightning_logs" / "baseline-synthetic" / "version_0"
    before = contents(first)

    main(["fit", "--config", str(first / "config.yaml")])
    main(["test", "--config", str(first / "config.yaml"), "--ckpt_path", str(first)])

    again = first.with_name("version_1")
    assert (first / "identity.json").read_text() == (again / "identity.json").read_text()
    assert contents(first) == before
    assert (tmp_path / "lightning_logs" / "baseline-synthetic-test" / "version_0" / "config.yaml").is_file()


@pytest.mark.parametrize("command", ["fit", "test"])
def test_a_folder_that_holds_a_run_is_refused(fmnist, tmp_path, finished_run, command):
    shutil.copytree(finished_run, tmp_path / "logs" / "mine" / "version_3")
    before = contents(tmp_path)
    logger = [f"--trainer.logger.init_args.{name}" for name in ("save_dir=logs", "name=mine", "version=3")]

    with pytest.raises(UserError, match="logs/mine/version_3 is the folder of another run"):
        fmnist(command, *logger, *(["--ckpt_path", str(finished_run)] if command == "test" else []))

    assert contents(tmp_path) == before


def test_without_a_logger_the_summary_promises_no_folder(fmnist, capsys):
    fmnist("fit", "--trainer.logger=false", "--monitors=off")

    printed = capsys.readouterr().out
    assert "test accuracy" in printed
    assert "Run folder" not in printed


def test_a_run_that_trains_nothing_still_has_a_summary(fmnist, tmp_path):
    fmnist("fit", "--trainer.limit_train_batches=0", "--monitors=off")

    run = tmp_path / "lightning_logs" / "baseline-synthetic" / "version_0"
    summary = json.loads((run / "summary.json").read_text())
    assert (summary["epochs"], summary["seconds_per_epoch"], summary["test_checkpoint"]) == (0, None, "last")


@pytest.mark.parametrize(
    ("option", "said"),
    [
        ("--model.learning_rat=1", "learning_rat"),
        ("--model.learning_rate=fast", "model.learning_rate"),
        ("--data.dataset=nonsense", "data.dataset"),
        ("--monitors=maybe", "monitors"),
    ],
)
def test_an_option_that_does_not_parse_ends_with_status_2_and_its_name(fmnist, capsys, option, said):
    with pytest.raises(SystemExit) as raised:
        fmnist("fit", option)

    assert raised.value.code == 2
    assert said in capsys.readouterr().err


def test_bytes_that_are_no_text_are_refused(fmnist):
    with pytest.raises(UserError, match="is no UTF-8 text"):
        fmnist("fit", "--variant", "f\udcfc.yaml")


def test_a_variant_file_with_a_wrong_type_is_refused(fmnist, tmp_path, capsys):
    (tmp_path / "mine.yaml").write_text("model:\n  conv_dropout: [1, 2]\n")

    with pytest.raises(SystemExit) as raised:
        fmnist("fit", "--variant", "mine.yaml")

    assert raised.value.code == 2
    assert "conv_dropout" in capsys.readouterr().err


@pytest.mark.parametrize("option", ["--variant", "--config"])
@pytest.mark.parametrize("content", ["", "- 1\n"])
def test_a_file_without_options_is_refused(fmnist, tmp_path, option, content):
    (tmp_path / "mine.yaml").write_text(content)

    with pytest.raises(UserError, match=r"mine\.yaml holds no options"):
        fmnist("fit", option, "mine.yaml")


def test_an_epoch_that_max_steps_cuts_short_is_said(fmnist, capsys):
    fmnist("fit", "--trainer.max_steps=1", "--data.batch_size=8")

    assert re.search(r"last epoch +│ only 1 of \d+ batches", capsys.readouterr().out)


def test_early_stopping_by_a_metric_that_is_not_logged_is_one_message(fmnist):
    stopping = ("--trainer.callbacks+=EarlyStopping", "--trainer.callbacks.monitor=val_loss")

    with pytest.raises(UserError, match=r"metric `?val_loss`? which is not available.*`val/loss`"):
        fmnist("fit", *stopping)


@pytest.mark.parametrize("epochs", ["0", "-3"])
def test_fewer_than_one_epoch_is_refused(fmnist, epochs):
    with pytest.raises(UserError, match=f"max_epochs must be at least 1, got {epochs}"):
        fmnist("fit", f"--trainer.max_epochs={epochs}")


@pytest.mark.parametrize(
    ("option", "said"),
    [
        ("--model.conv_channels=[2, 2, 2, 2, 2]", "conv5 would leave an image of 0 pixels"),
        ("--model.learning_rate=-1", "learning_rate must not be negative"),
        ("--model.learning_rate=.nan", "learning_rate must not be negative, infinite or NaN"),
        ("--model.hidden_dropout=.nan", "hidden_dropout must be a fraction"),
        ("--trainer.accelerator=nonsense", "nonsense"),
        ("--trainer.devices=0", "devices"),
    ],
)
def test_what_a_constructor_refuses_is_one_message(fmnist, option, said):
    with pytest.raises(UserError, match="cannot be used") as raised:
        fmnist("fit", option)

    assert said in str(raised.value)
    assert raised.value.exit_code == 2


@pytest.mark.parametrize("option", ["--model.classes=9", "--model.image_size=14"])
def test_a_network_for_other_data_is_refused(fmnist, option):
    with pytest.raises(UserError, match="The data have 10 classes and images of 28 pixels"):
        fmnist("fit", option)


def test_validation_every_0_epochs_is_refused(fmnist):
    with pytest.raises(UserError, match="check_val_every_n_epoch must be 1 or more"):
        fmnist("fit", "--trainer.check_val_every_n_epoch=0")


@pytest.mark.parametrize("seed", ["-1", str(2**32)])
def test_a_seed_out_of_range_is_refused(fmnist, seed):
    with pytest.raises(UserError, match="seed_everything must be from 0 to 4294967295"):
        fmnist("fit", f"--seed_everything={seed}")


@pytest.mark.parametrize("variant", ["nosuch", "[1]"])
def test_an_unknown_variant_in_a_configuration_is_refused_and_leaves_nothing(fmnist, tmp_path, variant):
    (tmp_path / "mine.yaml").write_text(f"variant: {variant}\n")

    with pytest.raises(UserError, match="There is no variant named"):
        fmnist("fit", "--config", "mine.yaml")

    assert [path.name for path in tmp_path.iterdir()] == ["mine.yaml"]


def test_without_data_the_error_names_the_folder_and_the_way_out(fmnist, tmp_path, monkeypatch):
    monkeypatch.setenv("FMNIST_MIRRORS", "http://127.0.0.1:9/")
    monkeypatch.setenv("PATH", str(tmp_path))  # without apt-get, which would find the real ones
    monkeypatch.setenv("HOME", str(tmp_path))

    with pytest.raises(UserError, match=re.escape("synthetic")) as raised:
        fmnist("fit", "--data.dataset=fashion_mnist", f"--data.root={tmp_path / 'empty'}")

    assert str(tmp_path / "empty") in str(raised.value)
