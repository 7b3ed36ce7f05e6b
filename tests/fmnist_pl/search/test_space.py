"""Spaces, good and bad."""

import inspect
import re

import optuna
import pytest
import yaml
from hypothesis import given, settings
from hypothesis import strategies as st
from optuna.distributions import CategoricalDistribution, FloatDistribution, IntDistribution

from fmnist_pl.configuration import load_yaml
from fmnist_pl.network import FashionCNN, parameter_count
from fmnist_pl.search.space import DEFAULT, Space
from training_health.errors import UserError

DEFAULT_SPACE = load_yaml(DEFAULT)


def read(text):
    return Space(yaml.safe_load(text), "mine.yaml")


def test_the_packaged_space_begins_with_the_baselines_network():
    space = Space(DEFAULT_SPACE)
    (baseline,) = space.first

    assert {"conv_layers", "kernel_size", "activation", "optimizer", "learning_rate"} <= set(space.distributions)
    assert space.size(baseline)[0] == 412_778


def test_lists_are_choices_and_ranges_are_ranges():
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


def test_parameters_become_an_overlay():
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


def test_choices_may_be_lists_and_what_is_not_named_stays_as_it_is_in_the_base():
    space = read("space: {conv_channels: [[64, 32], [32, 64]]}")
    first, second = space.distributions["conv_channels"].choices

    assert space.overlay({"conv_channels": first}) == {"model": {"conv_channels": [64, 32]}}
    assert space.overlay({"conv_channels": second}) == {"model": {"conv_channels": [32, 64]}}


def test_a_network_beyond_a_limit_may_not_be_trained():
    space = read("{space: {stride: [1, 2]}, parameters_at_most: 200_000, multiplications_at_most: 2_000_000}")

    # conv1: 4 x 64 weights at 28 x 28 positions, conv2: 4 x 64 x 32 at 14 x 14; then 1,568 x 256 and 256 x 10.
    _, excess, violation = space.size({"stride": 1})
    assert excess == {"parameters": pytest.approx(1.06389), "multiplications": pytest.approx(0.105152)}
    assert "412,778 parameters, and 200,000 are allowed; 2,210,304 multiplications" in violation
    assert space.size({"stride": 2})[2] == ""
    assert "conv5" in read("space: {conv_layers: [2, 6]}").size({"conv_layers": 6})[2]  # the image shrinks to nothing


@settings(deadline=None, max_examples=5)
@given(seed=st.integers(0, 2**32 - 1))
def test_what_may_be_trained_is_a_network_within_the_limits(seed):
    space = Space(DEFAULT_SPACE)
    params = space.suggest(optuna.create_study(sampler=optuna.samplers.RandomSampler(seed)).ask())
    parameters, excess, violation = space.size(params)

    assert (max(excess.values()) > 0) == bool(violation)
    if not violation:
        known = inspect.signature(FashionCNN).parameters
        arguments = {key: value for key, value in space.overlay(params)["model"].items() if key in known}
        assert parameter_count(FashionCNN(**arguments)) == parameters <= 500_000


@pytest.mark.parametrize(
    ("space", "count"),
    [
        ("{activation: [relu, gelu, silu]}", 3),
        ("{activation: [relu, gelu], conv_layers: {from: 1, to: 3}, channels: [4]}", 6),
        ("{conv_dropout: {from: 0.0, to: 0.5, step: 0.1}, hidden_dropout: {from: 0.5, to: 0.5}}", 6),
        ("{hidden_width: [64, 9999]}", 1),
        ("{conv_dropout: {from: 0.0, to: 0.5}}", None),
        ("{hidden_width: {from: 1, to: 20}, channels: {from: 1, to: 20}}", None),
    ],
)
def test_few_configurations_are_listed(space, count):
    grid = read(f"space: {space}").trainable(at_most=100)

    assert (None if grid is None else len(grid)) == count


@pytest.mark.parametrize(
    ("text", "named"),
    [
        ("[1, 2]", "key `space`"),
        ("space: {}", "key `space`"),
        ("space: [kernel_size]", "space"),
        ("{space: {stride: [1, 2]}, spaces: 1}", "spaces"),
        ("space: {kernal_size: [2, 3]}", "Did you mean kernel_size?"),
        ("space: {image_size: [28, 32]}", "unknown name 'image_size'"),
        ("space: {stride: []}", "stride cannot be sampled"),
        ("space: {stride: [1, 1]}", "stride cannot be sampled"),
        ("space: {stride: {from: 1}}", "it must be a list"),
        ("space: {stride: {from: 1, to: 2.5}}", "stride"),
        ("space: {stride: [true, 2]}", "stride"),
        ("space: {learning_rate: {from: 0, to: 1, log: true}}", "learning_rate cannot be sampled"),
        ("space: {activation: [relu, rleu]}", "activation"),
        ("space: {conv_channels: [64, 32]}", "conv_channels"),
        ("space: {conv_channels: [[64]], channels: [8]}", "conv_channels gets its value twice"),
        ("{space: {stride: [1, 2]}, fixed: {stride: 1}}", "stride gets its value twice"),
        ("{space: {stride: [1, 2]}, fixed: {momentum: fast}}", "momentum"),
        ("{space: {stride: [1, 2]}, multiplications_at_most: 0}", "multiplications_at_most"),
        ("{space: {stride: [1, 2]}, first: {stride: 1}}", "first"),
        ("{space: {stride: [1, 2]}, first: [{}]}", "first must name what space names"),
        ("{space: {stride: [1, 2]}, first: [{stride: 3}]}", "first must name what space names"),
        ("{space: {hidden_width: [9999]}, first: [{hidden_width: 9999}]}", "under first may not be trained"),
    ],
)
def test_a_bad_space_is_refused_with_the_file_and_the_name(text, named):
    with pytest.raises(UserError, match=f"mine.yaml: .*{re.escape(named)}") as raised:
        read(text)

    assert raised.value.exit_code == 2
