"""Which runs are wanted."""

import pytest

from fmnist_pl.compare.plan import wanted_runs
from training_health.errors import UserError

TINY = ["--data.dataset=synthetic", "--data.training_images=50", "--trainer.max_epochs=2"]


@pytest.fixture(scope="module")
def runs():
    return wanted_runs(["baseline", "no_dropout"], [0, 1, 0], TINY)


def test_every_variant_is_paired_with_every_seed_once(runs):
    assert list(map(str, runs)) == ["baseline seed 0", "no_dropout seed 0", "baseline seed 1", "no_dropout seed 1"]


def test_a_run_knows_its_options(runs):
    assert runs[2].options == ("--variant", "baseline", *TINY, "--seed_everything=1")


def test_every_run_has_an_identity_of_its_own(runs):
    assert len({run.digest for run in runs}) == 4
    assert wanted_runs(["baseline"], [1], TINY)[0].identity == runs[2].identity


def test_a_file_with_a_variants_content_is_the_same_run(runs, tmp_path):
    copy = tmp_path / "copy.yaml"
    copy.write_text("variant: copy\nmodel:\n  conv_dropout: 0.0\n  hidden_dropout: 0.0\n")

    assert wanted_runs([str(copy)], [0], TINY)[0].digest == runs[1].digest


@pytest.mark.parametrize(
    ("variants", "seeds", "message"),
    [
        ([], [0], "No variants"),
        (["baseline"], [], "No seeds"),
        (["baseline"], [-1], "got -1"),
        (["basline"], [0], "Did you mean baseline"),
    ],
)
def test_wrong_calls_are_user_errors(variants, seeds, message):
    with pytest.raises(UserError, match=message) as raised:
        wanted_runs(variants, seeds, [])

    assert raised.value.exit_code == 2


@pytest.mark.parametrize(
    ("setting", "difference"),
    [
        ("dataset: synthetic", "dataset: fashion_mnist for baseline, synthetic for other"),
        ("training_images: 500", "training_images: None for baseline, 500 for other"),
    ],
)
def test_different_data_are_not_mixed(tmp_path, setting, difference):
    other = tmp_path / "other.yaml"
    other.write_text(f"variant: other\ndata:\n  {setting}\n")

    with pytest.raises(UserError, match=difference):
        wanted_runs(["baseline", str(other)], [0], [])


def test_two_variants_of_one_name_are_a_user_error(tmp_path):
    (tmp_path / "sgd.yaml").write_text("variant: sgd\n")

    with pytest.raises(UserError, match="same name: sgd, sgd"):
        wanted_runs(["sgd", str(tmp_path / "sgd.yaml")], [0], [])


@pytest.mark.parametrize("option", ["--model.depth=3", "--trainer.max_epochs=many"])
def test_options_that_fit_would_not_take_end_the_command(option, capsys):
    with pytest.raises(SystemExit) as raised:
        wanted_runs(["baseline"], [0], [option])

    assert raised.value.code == 2
    assert option.split("=")[0].lstrip("-").split(".")[-1] in capsys.readouterr().err
