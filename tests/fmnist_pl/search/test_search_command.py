"""The command as a whole."""

import json
import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest
import yaml

from fmnist_pl.commands import optional
from fmnist_pl.compare import comparison as comparing
from fmnist_pl.search.command import conclude, main, parse
from tests.fmnist_pl.compare.made_runs import pretend_to_train, trained
from tests.fmnist_pl.search.report.studies import study, trial
from training_health.errors import UserError

SPACE = """
space:
  channels: [2, 4]
  hidden_width: [0, 8]
  learning_rate: {from: 1e-3, to: 1e-1, log: true}
fixed: {conv_layers: 2, widening: 1}
"""


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


@pytest.mark.parametrize("options", [["--trials", "0"], ["--images", "x"], ["--seed", "-1"], ["--confirm_seeds", "-5"]])
def test_numbers_out_of_range_are_refused(options, capsys):
    with pytest.raises(SystemExit) as raised:
        main(options)

    assert raised.value.code == 2
    assert f"argument {options[0]}" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["--variant=sgd"], "sets --variant for every run itself. Use --space"),
        (["--trainer.logger.init_args.name=a"], "for every run itself. Use --logdir"),
        (['--data={"training_images": 99}'], "sets --data.dataset for every run itself. Use --dataset"),
        (["--model.learning_rate=0.1"], "for every run itself. Use `fixed` in --space"),
        (["--space", "full.yaml"], "full.yaml: .*none may be trained"),
        (["--space", "none.yaml"], "There is no configuration none.yaml"),
        (["--output", "full.yaml"], "folder full.yaml cannot be written"),
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


def test_a_missing_extra_is_named_before_anything_is_trained(monkeypatch):
    for name in [name for name in sys.modules if name.startswith("fmnist_pl.search.report")]:
        monkeypatch.delitem(sys.modules, name)
    monkeypatch.setitem(sys.modules, "markdown_it", None)

    with pytest.raises(UserError, match="markdown_it, which is not installed"):
        optional("search", [])


def test_the_winner_is_the_best_trials_overlay_and_is_trained_beside_the_baseline(tmp_path, monkeypatch):
    def command(logdir, run, interrupted):
        return pretend_to_train(run, logdir, test=0.9 + 0.01 * (run.name == "winner"))

    monkeypatch.setattr(comparing, "fit_command", command)
    (tmp_path / "logs").mkdir()
    space = {"space": {"conv_layers": {"from": 1, "to": 4}, "optimizer": ["adam", "sgd"]}, "fixed": {"momentum": 0.5}}
    best = trial(0.9, {"conv_layers": 2, "optimizer": "sgd"})
    made = study(trial(0.5), best, data="synthetic", options=["--data.training_images=64"], space=space, name="a\nb: c")
    words = ["--confirm_seeds", "1", "2", "--confirm_epochs", "2", "--logdir", str(tmp_path / "logs")]

    assert conclude(made, parse(words)[0], tmp_path / "search") == 0
    winner = yaml.safe_load((tmp_path / "search" / "winner.yaml").read_text())
    model = {"optimizer": "sgd", "conv_channels": [64, 32], "momentum": 0.5}
    assert winner == {"model": model, "variant": "winner"}
    assert trained(tmp_path / "logs") == ["baseline 1", "winner 1", "baseline 2", "winner 2"]
    found = json.loads((tmp_path / "search" / "confirmation" / "compare.json").read_text())
    assert found["data"]["training_images"] == 64
    assert found["sentences"][0] in (tmp_path / "search" / "report.md").read_text()


def test_without_a_completed_trial_there_is_no_winner_but_a_report(tmp_path):
    with pytest.raises(UserError, match="No trial of the study 'made' was completed"):
        conclude(study(trial(reported=[0.9])), parse([])[0], tmp_path)

    assert (tmp_path / "report.md").exists()


def test_the_winner_is_confirmed_with_the_next_three_seeds_for_as_many_epochs_as_the_search_or_more():
    options, _ = parse(["--seed", "4294967294"])
    assert (options.confirm_seeds, options.confirm_epochs) == ([4294967295, 0, 1], 10)

    options, _ = parse(["--epochs", "20", "--confirm_seeds"])
    assert (options.confirm_seeds, options.confirm_epochs) == ([], 20)
