"""The command as a whole."""

import json
import os
import signal
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace

import pytest
import yaml

from fmnist_pl.search.command import main
from fmnist_pl.search.options import parse
from training_health.errors import UserError

SPACE = """
space:
  channels: [2, 4]
  hidden_width: [0, 8]
  learning_rate: {from: 1e-3, to: 1e-1, log: true}
fixed: {conv_layers: 2, widening: 1}
"""


@pytest.fixture(scope="module")
def data_dir(tmp_path_factory):
    """Where the synthetic images are drawn once for all tests of this file."""
    return tmp_path_factory.mktemp("data")


@pytest.fixture
def words(tmp_path, data_dir, monkeypatch):
    """The options of a search of three tiny trials."""
    monkeypatch.setenv("OMP_NUM_THREADS", "1")
    return words_of_a_tiny_search(tmp_path, data_dir)


def words_of_a_tiny_search(folder, data_dir):
    (folder / "tiny.yaml").write_text(SPACE)
    return [
        *("--space", str(folder / "tiny.yaml"), "--trials", "3", "--epochs", "2", "--images", "64"),
        *("--dataset", "synthetic", "--logdir", str(folder / "logs"), "--study", "tiny", "--confirm_seeds"),
        *(f"--data.root={data_dir}", "--trainer.limit_val_batches=1"),
    ]


def test_three_trials_end_in_a_winner_and_a_report_and_are_not_repeated(words, tmp_path, capsys):
    assert main(words) == 0
    first = capsys.readouterr()
    assert main(words) == 0
    second = capsys.readouterr()

    folder = tmp_path / "logs" / "search" / "tiny"
    runs = [folder / f"trial_{number:04}-synthetic" / "version_0" for number in range(3)]
    accuracies = [json.loads((run / "summary.json").read_text())["last_epoch"]["val/accuracy"] for run in runs]
    winner = yaml.safe_load((folder / "winner.yaml").read_text())
    tried = [yaml.safe_load((folder / "configurations" / f"trial_{number:04}.yaml").read_text()) for number in range(3)]
    assert winner["model"] == tried[accuracies.index(max(accuracies))]["model"]
    assert {"report.md", "report.html", "trials.csv", "study.db"} <= {path.name for path in folder.iterdir()}
    assert "Study tiny: 0 of 3 trials finished." in first.err
    assert "3 of 3 trials: " in first.err
    assert "Study tiny: 3 of 3 trials finished." in second.err
    assert first.out == second.out
    assert len(list(folder.glob("trial_*"))) == 3


def children_of(pid):
    """Process ids, or None where the system does not list them."""
    path = Path(f"/proc/{pid}/task/{pid}/children")
    return path.read_text().split() if path.exists() else None


@pytest.fixture(scope="module", params=[(signal.SIGINT, 130), (signal.SIGTERM, 143)], ids=["SIGINT", "SIGTERM"])
def stopped(request, tmp_path_factory, data_dir):
    """A search stopped in its second trial: its folder, status and expected status, what it said, its workers."""
    number, expected = request.param
    folder = tmp_path_factory.mktemp("stopped")
    words = words_of_a_tiny_search(folder, data_dir)
    command = [sys.executable, "-m", "fmnist_pl", "search", *words, "--trials", "1000"]
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    with subprocess.Popen(command, stderr=subprocess.PIPE, text=True, env=environment) as process:
        for line in process.stderr:
            if line.startswith("trial 0: "):
                break
        workers = children_of(process.pid)
        process.send_signal(number)
        said = process.stderr.read()
        return SimpleNamespace(folder=folder, status=process.wait(60), expected=expected, said=said, workers=workers)


def test_a_stopped_search_keeps_everything_and_says_how_to_go_on(stopped):
    go_on = f"Go on with: fmnist search --space {stopped.folder / 'tiny.yaml'} --trials 3"

    assert stopped.status == stopped.expected
    assert f"Finished trials are kept. {go_on}" in stopped.said
    assert "Traceback" not in stopped.said


def test_a_stopped_search_ends_its_workers(stopped):
    if stopped.workers is None:
        pytest.skip("the system does not list a process's children")

    assert len(stopped.workers) == 1
    assert not Path(f"/proc/{stopped.workers[0]}").exists()


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["--trials", "0"], "--trials must be at least 1, got 0"),
        (["--epochs", "0"], "--epochs must be at least 1, got 0"),
        (["--jobs", "0"], "--jobs must be at least 1, got 0"),
        (["--images", "0"], "--images must be at least 1, got 0"),
        (["--seed", "-1"], "--seed must be a whole number from 0"),
        (["--study", "a/b"], "--study must be letters, digits"),
        (["--variant=sgd"], "The search sets --variant for every trial itself. Use --space"),
        (["--trainer.max_epochs=3"], "The search sets --trainer.max_epochs for every trial itself. Use --epochs"),
        (["--trainer.logger=false"], "The search sets --trainer.logger for every trial itself. Use --logdir"),
        (["--model.learning_rate=0.1"], "The search sets --model for every trial itself. Use `fixed` in --space"),
        (["--data.batch_size=8"], "The search sets --data.batch_size for every trial itself. Use `fixed` in --space"),
        (["--confirm_seeds", "1", "-5"], "--confirm_seeds must be a whole number from 0 to 4294967295, got -5"),
        (["--confirm_epochs", "0"], "--confirm_epochs must be at least 1, got 0"),
        (["--resume=last"], "The search sets --resume for every trial itself"),
        (
            ["--space", "full.yaml"],
            "The space full.yaml holds no configuration that may be trained. Widen it, or raise parameters_at_most",
        ),
        (["--space", "none.yaml"], "There is no configuration none.yaml"),
        (["--trainer.devices=2"], "A trial trains on one device. Train several at a time with --jobs"),
        (["--storage", "postgresql://127.0.0.1:1/none"], "The storage postgresql://127.0.0.1:1/none cannot be used"),
    ],
)
def test_wrong_calls_are_refused(tmp_path, monkeypatch, options, message):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "full.yaml").write_text("space: {hidden_width: [9999]}")
    with pytest.raises(UserError, match=message):
        main(["--dataset", "synthetic", *options])


def test_the_winner_is_confirmed_with_the_next_three_seeds_for_as_many_epochs_as_the_search_or_more():
    options, _ = parse(["--seed", "4294967294"])
    assert (options.confirm_seeds, options.confirm_epochs) == ([4294967295, 0, 1], 10)

    options, _ = parse(["--epochs", "20", "--confirm_seeds"])
    assert (options.confirm_seeds, options.confirm_epochs) == ([], 20)


def test_an_option_that_fit_does_not_take_is_refused(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    with pytest.raises(SystemExit) as raised:
        main(["--data.batchsize=3"])

    assert raised.value.code == 2
    assert not list(tmp_path.iterdir())


def test_a_small_space_is_searched_once(words, tmp_path, capsys):
    (tmp_path / "tiny.yaml").write_text("space: {activation: [relu, gelu]}\nfixed: {channels: 2, hidden_width: 0}")

    assert main(words) == 0
    assert "The space holds 2 configurations, so there will be 2 trials at most." in capsys.readouterr().err
    folder = tmp_path / "logs" / "search" / "tiny" / "configurations"
    tried = [yaml.safe_load(path.read_text())["model"]["activation"] for path in folder.iterdir()]
    assert sorted(tried) == ["gelu", "relu"]
