"""Which runs are wanted, and the command as a whole."""

import json

import pytest

from fmnist_pl.compare.command import main
from fmnist_pl.compare.comparison import wanted_runs
from training_health.errors import UserError

TINY = ["--data.dataset=synthetic", "--data.training_images=50", "--trainer.max_epochs=2"]


def test_every_variant_is_paired_with_every_seed_once_each_with_its_options_and_identity():
    runs = wanted_runs(["baseline", "no_dropout"], [0, 1, 0], TINY)

    assert list(map(str, runs)) == ["baseline seed 0", "no_dropout seed 0", "baseline seed 1", "no_dropout seed 1"]
    assert runs[2].options == ("--variant", "baseline", *TINY, "--seed_everything=1")
    assert len({run.digest for run in runs}) == 4


def test_a_file_with_a_variants_content_is_the_same_run(tmp_path):
    copy = tmp_path / "copy.yaml"
    copy.write_text("variant: copy\nmodel:\n  conv_dropout: 0.0\n  hidden_dropout: 0.0\n")

    same, packaged = wanted_runs([str(copy), "no_dropout"], [0], TINY)
    assert same.digest == packaged.digest


def call(tmp_path, *options):
    return main(
        [
            *("--dataset", "synthetic", "--epochs", "1", "--logdir", str(tmp_path / "logs")),
            f"--data.root={tmp_path / 'data'}",
            *("--data.training_images=64", "--model.conv_channels=[4,4]", "--model.hidden_units=[8]"),
            *options,
        ]
    )


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["--variants", "basline"], "no variant named 'basline'. Did you mean baseline"),
        (["--variants", "sgd", "--reference", "baseline"], "'baseline' is not among the variants"),
        (["--jobs", "0"], "got 0"),
        (["--epochs", "0"], "baseline has trainer.max_epochs 0: it must be at least 1"),
        (["--variant", "gelu"], "sets --variant for every run itself. Use --variants"),
        (["--seed_everything=7"], "Use --seeds"),
        (["--resume", "last"], "Use `fmnist fit` alone for that"),
        (["--trainer.fast_dev_run=true"], "has trainer.fast_dev_run, which leaves nothing to compare: leave it out"),
    ],
)
def test_wrong_calls_are_user_errors(tmp_path, options, message):
    with pytest.raises(UserError, match=message) as raised:
        call(tmp_path, *options)

    assert raised.value.exit_code == 2


@pytest.mark.parametrize(
    ("variants", "seeds", "message"),
    [
        ([], [0], "No variants"),
        (["sgd"], [], "No seeds"),
        (["sgd"], [-1], "got -1"),
        (["sgd", "sgd.yaml"], [0], "same name: sgd, sgd"),
        (["baseline", "sgd.yaml"], [0], "training_images: None and 500"),
    ],
)
def test_runs_that_cannot_be_compared_are_a_user_error(tmp_path, monkeypatch, variants, seeds, message):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "sgd.yaml").write_text("variant: sgd\ndata:\n  training_images: 500\n")

    with pytest.raises(UserError, match=message) as raised:
        wanted_runs(variants, seeds, [])

    assert raised.value.exit_code == 2


@pytest.mark.parametrize("option", ["--model.depth=3", "--trainer.max_epochs=many"])
def test_options_that_fit_would_not_take_end_the_command(option, capsys):
    with pytest.raises(SystemExit) as raised:
        wanted_runs(["baseline"], [0], [option])

    assert raised.value.code == 2
    assert option.split("=")[0].lstrip("-").split(".")[-1] in capsys.readouterr().err


@pytest.mark.slow
def test_two_real_trainings_end_in_a_table_and_are_not_repeated(tmp_path, monkeypatch, capsys):
    monkeypatch.setenv("OMP_NUM_THREADS", "1")
    options = ("--variants", "baseline", "--seeds", "0", "1", "--jobs", "2")

    assert call(tmp_path, *options) == 0
    first = capsys.readouterr()
    assert call(tmp_path, *options) == 0
    second = capsys.readouterr()

    assert "2 runs: 0 complete, 2 to train." in first.err
    assert "2 runs: 2 complete, 0 to train." in second.err
    assert first.out == second.out
    assert len(list((tmp_path / "logs" / "baseline-synthetic").iterdir())) == 2
    (variant,) = json.loads((tmp_path / "logs" / "compare-synthetic" / "compare.json").read_text())["variants"]
    assert variant["spreads"]["gap"]["sd"] > 0
    assert variant["spreads"]["update_ratio"]["mean"] > 0
    assert [(run["seed"], run["failure"]) for run in variant["runs"]] == [(0, None), (1, None)]
