"""`fmnist slim` and `fmnist check`: what is done with a trained network, from its checkpoint alone."""

import json

import numpy as np
import pytest
import torch

from fmnist_pl import commands
from fmnist_pl.checkpoints.checkpoint_file import load_checked
from fmnist_pl.classifier import FashionClassifier
from fmnist_pl.cli import main
from fmnist_pl.dataset import files as dataset_files
from training_health.errors import UserError

NETWORK = {"conv_channels": [16, 8], "hidden_units": [20]}


@pytest.fixture(autouse=True)
def few_images(monkeypatch, tmp_path):
    """2,000 training images, of which 400 are for validation, and 100 test images, of noise."""

    def load_split(_root, split, **_options):
        count = 2000 if split == "train" else 100
        generator = np.random.default_rng(count)
        return generator.integers(0, 256, (count, 28, 28), dtype=np.uint8), np.arange(count, dtype=np.uint8) % 10

    monkeypatch.setattr(dataset_files, "load_split", load_split)
    monkeypatch.chdir(tmp_path)


def saved(folder, plant=lambda net: None, **network):
    """A run's folder with a checkpoint of a network that no training has touched, and the network."""
    torch.manual_seed(0)
    model = FashionClassifier(**{**NETWORK, **network})
    with torch.no_grad():
        model.net.conv1.conv.bias += 1  # no unit is dead by chance
        model.net.conv2.conv.bias += 5
        model.net.fc1.linear.weight.abs_().div_(50)
        plant(model.net)
    (folder / "run" / "checkpoints").mkdir(parents=True)
    run = {"variant": "baseline", "dataset": "fashion_mnist", "parameters": 1}
    content = {
        "epoch": 3,
        "global_step": 7,
        "pytorch-lightning_version": "2.6.6",
        "state_dict": model.state_dict(),
        "hyper_parameters": dict(model.hparams),
        "hparams_name": "kwargs",
        "optimizer_states": [{}],
        "run": run,
    }
    torch.save(content, folder / "run" / "checkpoints" / "best.ckpt")
    return folder / "run", model.eval()


def dead_units(net):
    net.conv1.conv.bias[[2, 5]] = -100
    net.fc1.linear.bias[[0, 1, 19]] = -10_000


def slim(*words):
    pytest.importorskip("torch_pruning")
    with pytest.raises(SystemExit) as ended:
        commands.main(["slim", *map(str, words)])
    return ended.value.code


def test_a_run_loses_its_dead_units_and_the_outputs_stay(tmp_path, capsys):
    run, model = saved(tmp_path, dead_units)

    assert slim(run, "--images", 500) == 0

    printed = capsys.readouterr().out
    assert "without 5 units that are dead on 500 examples" in printed
    said = "On the 100 test images: 0 with a logit that changes by more than 0.0001, 0 predictions change, accuracy "
    assert said in printed
    checkpoint = load_checked(tmp_path / "slim" / "slim.ckpt")
    assert (checkpoint["hyper_parameters"]["conv_channels"], checkpoint["hyper_parameters"]["hidden_units"]) == (
        [14, 8],
        [17],
    )
    assert checkpoint["slim"]["removed"] == {"conv1": [2, 5], "fc1": [0, 1, 19]}
    small = FashionClassifier(**checkpoint["hyper_parameters"]).eval()
    small.load_state_dict(checkpoint["state_dict"])
    assert (
        checkpoint["run"]["parameters"]
        == sum(p.numel() for p in small.parameters())
        == checkpoint["slim"]["parameters_after"]
    )
    images = torch.rand(30, 1, 28, 28)
    torch.testing.assert_close(small(images), model(images), rtol=0, atol=1e-5)


def test_the_exported_program_gives_the_same_outputs_for_any_number_of_images(tmp_path):
    run, model = saved(tmp_path, dead_units)
    slim(run, "--output", tmp_path / "small")

    program = torch.export.load(tmp_path / "small" / "slim.pt2").module()

    for count in (1, 7):
        images = torch.rand(count, 1, 28, 28)
        torch.testing.assert_close(program(images), model(images), rtol=0, atol=1e-5)


def test_the_slim_checkpoint_is_tested_like_any_other(tmp_path):
    run, _ = saved(tmp_path, dead_units)
    slim(run)

    tested = [main(["test", "--ckpt_path", str(path)]).trainer.callback_metrics for path in (run, "slim/slim.ckpt")]

    assert tested[1]["test/loss"].item() == pytest.approx(tested[0]["test/loss"].item(), abs=1e-6)
    assert tested[1]["test/accuracy"] == tested[0]["test/accuracy"]


def test_a_slim_network_can_be_trained_further():
    torch.manual_seed(0)
    model = FashionClassifier(conv_channels=[13, 7], hidden_units=[9], conv_dropout=0.0, hidden_dropout=0.0)
    images, results = torch.rand(6, 1, 28, 28), []
    for watched in (False, True):  # a hook has the stock layers run in the place of the kernels
        if watched:
            for module in model.modules():
                module.register_forward_hook(lambda *_: None)
        model.zero_grad()
        model.train()(images).square().sum().backward()
        results.append([parameter.grad.clone() for parameter in model.parameters()])

    for fast, stock in zip(*results, strict=True):
        torch.testing.assert_close(fast, stock, rtol=1e-4, atol=1e-4)


def test_certified_units_alone_go_where_that_is_asked_for(tmp_path, capsys):
    def plant(net):
        dead_units(net)
        net.conv1.conv.weight[7], net.conv1.conv.bias[7] = -1.0, 0.5  # fires on a black patch, and noise has none

    slim(saved(tmp_path, plant)[0], "--certified", "--output", tmp_path / "certified")

    checkpoint = load_checked(tmp_path / "certified" / "slim.ckpt")
    assert checkpoint["slim"]["removed"]["conv1"] == [2, 5]
    assert "dead for any input" in capsys.readouterr().out


def test_nothing_is_overwritten(tmp_path):
    run, _ = saved(tmp_path, dead_units)
    (tmp_path / "slim").mkdir()

    with pytest.raises(UserError, match="slim exists, and nothing is overwritten") as raised:
        commands.main(["slim", str(run)])

    assert raised.value.exit_code == 2
    assert list((tmp_path / "slim").iterdir()) == []


def test_nothing_is_written_where_nothing_is_removed(tmp_path, capsys):
    assert slim(saved(tmp_path)[0]) == 0
    assert "Nothing was removed, so nothing is written." in capsys.readouterr().out
    assert [path.name for path in tmp_path.iterdir()] == ["run"]


def test_a_folder_that_cannot_be_written_leaves_nothing(tmp_path):
    run, _ = saved(tmp_path, dead_units)
    (tmp_path / "file").touch()

    with pytest.raises(UserError, match="cannot be written: Not a directory"):
        commands.main(["slim", str(run), "--output", str(tmp_path / "file" / "slim")])

    assert sorted(path.name for path in tmp_path.iterdir()) == ["file", "run"]


# ---- check


def check(*words):
    with pytest.raises(SystemExit) as ended:
        commands.main(["check", *map(str, words)])
    return ended.value.code


def whole_layer(net):
    net.fc1.linear.bias.fill_(-10_000)


def a_third(net):
    net.fc1.linear.bias[:9] = -10_000
    net.conv1.conv.bias[:5] = -100


def not_a_number(net):
    net.fc1.linear.weight[3, 3] = float("nan")


@pytest.mark.parametrize(
    ("plant", "rules", "statuses"),
    [
        (lambda net: None, [], {"critical": 0, "warning": 0, "notice": 0, "never": 0}),
        (a_third, ["many_dead_units"], {"critical": 0, "warning": 0, "notice": 1, "never": 0}),
        (whole_layer, ["whole_layer_dead"], {"critical": 1, "warning": 1, "notice": 1, "never": 0}),
        (not_a_number, ["nonfinite_weights", "units_not_a_number"], {"critical": 1, "never": 0}),
    ],
)
def test_the_exit_status_says_whether_a_finding_is_as_severe(tmp_path, plant, rules, statuses, capsys):
    run, _ = saved(tmp_path, plant)

    assert {severity: check(run, "--fail-on", severity) for severity in statuses} == statuses
    capsys.readouterr()
    check(run, "--format", "json")
    assert [finding["rule"] for finding in json.loads(capsys.readouterr().out)["findings"]] == rules


def test_sarif_goes_to_a_file_that_names_the_checkpoint(tmp_path, capsys):
    run, _ = saved(tmp_path, whole_layer)

    assert (
        check(run / "checkpoints" / "best.ckpt", "--format=sarif", "--output", tmp_path / "logs" / "found.sarif") == 1
    )

    (result,) = json.loads((tmp_path / "logs" / "found.sarif").read_text())["runs"][0]["results"]
    assert (result["ruleId"], result["level"]) == ("whole_layer_dead", "error")
    assert result["locations"][0]["physicalLocation"]["artifactLocation"]["uri"].endswith("run/checkpoints/best.ckpt")
    assert capsys.readouterr().out == ""


@pytest.mark.parametrize(
    "words", [["missing.ckpt"], ["other.ckpt"], ["run", "--output", "run/checkpoints/best.ckpt/x"]]
)
def test_what_cannot_be_checked_ends_with_status_two(tmp_path, words):
    saved(tmp_path)
    torch.save({"state_dict": {"weight": torch.ones(1)}}, tmp_path / "other.ckpt")

    with pytest.raises(UserError) as raised:
        commands.main(["check", *words])

    assert raised.value.exit_code == 2
