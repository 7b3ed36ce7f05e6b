"""The command as a whole."""

import importlib.util
import json
import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest
import yaml

from fmnist_pl.search.command import main, parse
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
    (tmp_path / "tiny.yaml").write_text(SPACE)
    return [
        *("--space", str(tmp_path / "tiny.yaml"), "--trials", "3", "--epochs", "2", "--images", "64"),
        *("--dataset", "synthetic", "--logdir", str(tmp_path / "logs"), "--study", "tiny", "--confirm_seeds"),
        *(f"--data.root={data_dir}", "--trainer.limit_val_batches=1"),
    ]


@pytest.mark.slow
def test_three_trials_end_in_a_winner_and_a_report_and_are_not_repeated(words, tmp_path, capfd):
    assert main(words) == 0
    first = capfd.readouterr()
    assert main(words) == 0
    second = capfd.readouterr()

    folder = tmp_path / "logs" / "search" / "tiny"
    runs = [folder / f"trial_{number:04}-synthetic" / "version_0" for number in range(3)]
    accuracies = [json.loads((run / "summary.json").read_text())["last_epoch"]["val/accuracy"] for run in runs]
    winner = yaml.safe_load((folder / "winner.yaml").read_text())
    tried = [yaml.safe_load((folder / "configurations" / f"trial_{number:04}.yaml").read_text()) for number in range(3)]
    assert winner["model"] == tried[accuracies.index(max(accuracies))]["model"]
    assert {"report.md", "report.html", "trials.csv", "study.db"} <= {path.name for path in folder.iterdir()}
    assert "Study tiny: 0 of 3 trials finished." in first.err
    assert "3 of 3 trials; best " in first.err
    assert "Study tiny: 3 of 3 trials finished." in second.err
    assert first.out == second.out
    assert len(list(folder.glob("trial_*"))) == 3


@pytest.mark.slow
@pytest.mark.parametrize(("number", "status"), [(signal.SIGINT, 130), (signal.SIGTERM, 143)], ids=["INT", "TERM"])
def test_a_stopped_search_says_how_to_resume_and_then_loses_nothing(words, tmp_path, number, status):
    command = [sys.executable, "-m", "fmnist_pl", "search", *words]
    many = [*command, "--trials", "1000"]
    with subprocess.Popen(many, stderr=subprocess.PIPE, text=True, start_new_session=True) as process:
        for line in process.stderr:
            if line.startswith("trial 0: "):
                break
        (worker, *_) = [Path(f"/proc/{pid}") for pid in workers_of(process.pid)]
        os.killpg(process.pid, number)
        said = process.stderr.read()
        assert process.wait(60) == status
    assert f"Resume with: fmnist search --space {tmp_path / 'tiny.yaml'} --trials 3" in said
    assert "Traceback" not in said
    assert not worker.exists()

    resumed = subprocess.run(command, stderr=subprocess.PIPE, text=True, timeout=300)
    assert resumed.returncode == 0
    assert " of 3 trials finished" in resumed.stderr
    table = (tmp_path / "logs" / "search" / "tiny" / "trials.csv").read_text()
    assert table.count("complete") >= 3
    assert table.count("running") == 0


def workers_of(pid):
    """The search's children but for multiprocessing's own."""
    children = Path(f"/proc/{pid}/task/{pid}/children").read_text().split()
    return [child for child in children if "resource_tracker" not in Path(f"/proc/{child}/cmdline").read_text()]


@pytest.mark.slow
def test_a_small_space_is_searched_once(words, tmp_path, capfd):
    (tmp_path / "tiny.yaml").write_text("space: {activation: [relu, gelu]}\nfixed: {channels: 2, hidden_width: 0}")

    assert main(words) == 0
    assert "The space holds 2 configurations, so there will be 2 trials." in capfd.readouterr().err
    folder = tmp_path / "logs" / "search" / "tiny" / "configurations"
    tried = [yaml.safe_load(path.read_text())["model"]["activation"] for path in folder.iterdir()]
    assert sorted(tried) == ["gelu", "relu"]


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["--trials", "0"], "--trials must be at least 1, got 0"),
        (["--jobs", "0"], "--jobs must be at least 1, got 0"),
        (["--images", "0"], "--images must be at least 1, got 0"),
        (["--seed", "-1"], "seed must be a whole number from 0"),
        (["--confirm_seeds", "1", "-5"], "seed must be a whole number from 0 to 4294967295, got -5"),
        (["--study", "a/b"], "--study must be letters, digits"),
        (["--variant=sgd"], "sets --variant for every trial itself. Use --space"),
        (["--trainer.max_epochs=3"], "sets --trainer.max_epochs for every trial itself. Use --epochs"),
        (["--trainer.logger.init_args.name=a"], "for every trial itself. Use --logdir"),
        (["--trainer.devices=2"], "for every trial itself. Use --jobs"),
        (["--model.learning_rate=0.1"], "for every trial itself. Use `fixed` in --space"),
        (["--resume=last"], "sets --resume for every trial itself"),
        (["--space", "full.yaml"], "full.yaml: .*none may be trained"),
        (["--space", "none.yaml"], "There is no configuration none.yaml"),
        (["--storage", "postgresql://127.0.0.1:1/none"], "storage postgresql://127.0.0.1:1/none cannot be used"),
    ],
)
def test_wrong_calls_are_refused(tmp_path, monkeypatch, options, message):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "full.yaml").write_text("space: {hidden_width: [9999]}")
    with pytest.raises(UserError, match=message):
        main(["--dataset", "synthetic", *options])


def test_an_option_that_fit_does_not_take_is_refused(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    with pytest.raises(SystemExit) as raised:
        main(["--data.batchsize=3"])

    assert raised.value.code == 2
    assert not list(tmp_path.iterdir())


def test_a_missing_extra_is_named(monkeypatch):
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)

    with pytest.raises(UserError, match=r"optuna, which is not installed: pip install 'fmnist_pl\[search\]'"):
        main([])


def test_the_winner_is_confirmed_with_the_next_three_seeds_for_as_many_epochs_as_the_search_or_more():
    options, _ = parse(["--seed", "4294967294"])
    assert (options.confirm_seeds, options.confirm_epochs) == ([4294967295, 0, 1], 10)

    options, _ = parse(["--epochs", "20", "--confirm_seeds"])
    assert (options.confirm_seeds, options.confirm_epochs) == ([], 20)
