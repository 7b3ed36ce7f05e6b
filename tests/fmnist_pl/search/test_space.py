"""Spaces, good and bad."""

import pytest
from optuna.distributions import CategoricalDistribution, FloatDistribution, IntDistribution

from fmnist_pl.search.space import DEFAULT, read_space
from training_health.errors import UserError


@pytest.fixture
def read(tmp_path):
    """Read a space from its text."""

    def from_text(text):
        path = tmp_path / "mine.yaml"
        path.write_text(text)
        return read_space(path)

    return from_text


def test_the_packaged_space_varies_what_the_notebooks_asked_about():
    space = read_space(DEFAULT)

    asked = {"conv_layers", "channels", "kernel_size", "stride", "convs_per_pool", "normalization", "activation"}
    asked |= {"conv_dropout", "hidden_dropout", "hidden_width", "initialization", "optimizer", "learning_rate"}
    assert asked | {"batch_size", "weight_decay"} <= set(space.distributions)
    assert space.parameters_at_most == 500_000


def test_the_packaged_space_begins_with_the_baselines_network():
    (baseline,) = read_space(DEFAULT).first

    assert read_space(DEFAULT).parameters(baseline) == 412_778


def test_lists_are_choices_and_ranges_are_ranges(read):
    space = read("""
        space:
          activation: [relu, gelu]
          conv_layers: {from: 1, to: 4}
          conv_dropout: {from: 0, to: 0.5}
          learning_rate: {from: 1e-4, to: 1.0e-1, log: true}
          hidden_width: {from: 32, to: 128, step: 32}
          widening: [1, 2]
    """)

    assert space.distributions == {
        "activation": CategoricalDistribution(("relu", "gelu")),
        "conv_layers": IntDistribution(1, 4),
        "conv_dropout": FloatDistribution(0.0, 0.5),
        "learning_rate": FloatDistribution(1e-4, 0.1, log=True),
        "hidden_width": IntDistribution(32, 128, step=32),
        "widening": CategoricalDistribution((1.0, 2.0)),
    }


def test_parameters_become_an_overlay(read):
    space = read("""
        space: {conv_layers: [1, 3], channels: [8, 16], widening: [1, 2], hidden_width: [0, 64], batch_size: [32, 64]}
        fixed: {momentum: 0.9, hidden_layers: 2}
    """)

    wide = {"conv_layers": 3, "channels": 16, "widening": 2.0, "hidden_width": 64, "batch_size": 32}
    assert space.overlay(wide) == {
        "model": {"momentum": 0.9, "conv_channels": [16, 32, 64], "hidden_units": [64, 64]},
        "data": {"batch_size": 32},
    }
    assert space.overlay({**wide, "hidden_width": 0})["model"]["hidden_units"] == []


def test_what_is_not_named_stays_as_it_is_in_the_base(read):
    assert read("space: {activation: [relu, gelu]}").overlay({"activation": "gelu"}) == {
        "model": {"activation": "gelu"}
    }


def test_choices_may_be_lists(read):
    space = read("space: {conv_channels: [[64, 32], [32, 64]]}")
    first, second = space.distributions["conv_channels"].choices

    assert space.overlay({"conv_channels": first}) == {"model": {"conv_channels": [64, 32]}}
    assert space.overlay({"conv_channels": second}) == {"model": {"conv_channels": [32, 64]}}


def test_too_many_parameters_are_refused(read):
    space = read("{space: {hidden_width: [256, 512]}, parameters_at_most: 500_000}")

    assert space.refusal({"hidden_width": 256}) is None
    assert space.refusal({"hidden_width": 512}) == "817,002 parameters, and 500,000 are allowed"


def test_a_network_that_multiplies_too_often_may_not_be_trained(read):
    space = read("{space: {stride: [1, 2]}, multiplications_at_most: 2_000_000}")

    # conv1: 4 x 64 weights at 28 x 28 positions, conv2: 4 x 64 x 32 at 14 x 14; then 1,568 x 256 and 256 x 10.
    assert space.refusal({"stride": 1}) == "2,210,304 multiplications per image, and 2,000,000 are allowed"
    assert space.refusal({"stride": 2}) is None


def test_an_image_that_shrinks_to_nothing_is_refused(read):
    space = read("space: {conv_layers: [2, 6], channels: [4]}")

    assert space.refusal({"conv_layers": 2, "channels": 4}) is None
    assert "conv5 would leave an image of 0 pixels" in space.refusal({"conv_layers": 6, "channels": 4})


def test_layout_and_comments_do_not_make_another_space(read):
    one = read("space: {kernel_size: [2, 3]}")
    same = read("# why\nspace:\n  kernel_size:\n    - 2\n    - 3\n")

    assert one.digest == same.digest
    assert one.digest != read("space: {kernel_size: [2, 5]}").digest


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", "must be a mapping with the key `space`"),
        ("[1, 2]", "must be a mapping with the key `space`"),
        ("space: {a: [", "is not valid YAML"),
        ("space: {}", "the space is empty"),
        ("fixed: {momentum: 0.9}", "the space is empty"),
        ("space: [kernel_size]", "space must map names to values"),
        ("{space: {stride: [1, 2]}, spaces: {}}", "unknown key 'spaces'. Known: space, fixed"),
        ("space: {kernal_size: [2, 3]}", "unknown name 'kernal_size'. Did you mean kernel_size?"),
        ("space: {image_size: [28, 32]}", "unknown name 'image_size'"),
        ("space: {1: [2]}", "unknown name 1"),
        ("space: {stride: []}", "stride has no choices"),
        ("space: {stride: [1, 1]}", "stride names a choice twice"),
        ("space: {stride: 2}", "A single value belongs under `fixed`"),
        ("space: {stride: {from: 1}}", "stride must be a list of choices or a range"),
        ("space: {stride: {from: 1, to: 2, scale: log}}", "stride must be a list of choices or a range"),
        ("space: {stride: {from: 1, to: 2.5}}", "stride must be a whole number, got 2.5"),
        ("space: {stride: {from: 1, to: 2, step: 0.5}}", "step of stride must be a whole number"),
        ("space: {stride: [one, two]}", "stride must be a whole number, got 'one'"),
        ("space: {stride: [0, 1]}", "stride must be from 1 to 28, got 0"),
        ("space: {stride: [true, 2]}", "stride must be a whole number, got True"),
        ("space: {conv_dropout: [0.5, 1.0]}", "conv_dropout must be from 0 to 0.99, got 1.0"),
        ("space: {learning_rate: [.nan, 0.1]}", "learning_rate must be a number, got nan"),
        ("space: {learning_rate: {from: 0, to: 1, log: true}}", "the range of learning_rate cannot be drawn from"),
        ("space: {learning_rate: {from: 1, to: 0.1}}", "the range of learning_rate cannot be drawn from"),
        ("space: {learning_rate: {from: 0.1, to: 1, log: 2}}", "log of learning_rate must be true or false"),
        ("space: {activation: [relu, rleu]}", "activation must be one of relu, leaky_relu, gelu, silu, got 'rleu'"),
        ("space: {activation: {from: 1, to: 2}}", "activation has no range"),
        ("space: {conv_channels: [64, 32]}", "each value of conv_channels must be a list, got 64"),
        ("space: {conv_channels: [[64, 0]]}", "conv_channels must hold whole numbers from 1"),
        ("space: {conv_channels: [[64]], channels: [8]}", "conv_channels and channels contradict each other"),
        ("{space: {channels: [8]}, fixed: {conv_channels: [8]}}", "conv_channels and channels contradict each other"),
        ("{space: {stride: [1, 2]}, fixed: {stride: 1}}", "stride is both varied and fixed"),
        ("{space: {stride: [1, 2]}, fixed: {momentum: fast}}", "momentum must be a number, got 'fast'"),
        ("{space: {stride: [1, 2]}, parameters_at_most: many}", "parameters_at_most must be a whole number from 1"),
        (
            "{space: {stride: [1, 2]}, multiplications_at_most: 0}",
            "multiplications_at_most must be a whole number from 1",
        ),
        ("{space: {stride: [1, 2]}, first: {stride: 1}}", "first must be a list of configurations"),
        ("{space: {stride: [1, 2]}, first: [{}]}", "Differing: stride"),
        ("{space: {stride: [1, 2]}, first: [{stride: 3}]}", "first has stride 3, which the space does not contain"),
        ("{space: {hidden_width: [9999]}, first: [{hidden_width: 9999}]}", "under first cannot be trained"),
    ],
)
def test_a_bad_space_is_refused_with_the_file_and_the_name(read, text, message):
    with pytest.raises(UserError) as raised:
        read(text)

    assert message in str(raised.value)
    assert "mine.yaml" in str(raised.value)
    assert raised.value.exit_code == 2


def test_a_space_that_is_not_there_is_refused(tmp_path):
    with pytest.raises(UserError, match="There is no configuration"):
        read_space(tmp_path / "none.yaml")
