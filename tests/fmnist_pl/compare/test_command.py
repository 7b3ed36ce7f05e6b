"""The command as a whole."""

import json
import sys

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
        (["--variants", "nothing"], "no variant named 'nothing'"),
        (["--variants", "sgd", "--reference", "baseline"], "'baseline' is not among the variants"),
        (["--jobs", "0"], "got 0"),
    ],
)
def test_wrong_calls_are_user_errors(tmp_path, options, message):
    with pytest.raises(UserError, match=message) as raised:
        call(tmp_path, *options)

    assert raised.value.exit_code == 2


def test_a_missing_scipy_is_told_with_the_extra_to_install(tmp_path, monkeypatch):
    for module in [name for name in sys.modules if name.startswith("fmnist_pl.compare.")]:
        monkeypatch.delitem(sys.modules, module)
    monkeypatch.setitem(sys.modules, "scipy", None)

    with pytest.raises(UserError, match=r"pip install \"fmnist_pl\[compare\]\""):
        call(tmp_path)


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
