"""The command as a whole."""

import json

import pytest

from fmnist_pl.compare.command import main
from training_health.errors import UserError


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
        (["--seeds"], "No seeds were given"),
        (["--variants", "nothing"], "no variant named 'nothing'"),
        (["--variants", "sgd", "--reference", "baseline"], "The reference 'baseline' is not among the variants"),
        (["--jobs", "0"], "--jobs must be at least 1, got 0"),
    ],
)
def test_wrong_calls_are_refused(tmp_path, options, message):
    with pytest.raises(UserError, match=message) as raised:
        call(tmp_path, *options)

    assert raised.value.exit_code == 2


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
    assert variant["n"] == 2
    assert variant["figures"]["gap"]["sd"] > 0
    assert variant["figures"]["update_ratio"]["mean"] > 0
    assert [run["seed"] for run in variant["runs"]] == [0, 1]
