"""Spaces of few configurations."""

import pytest

from fmnist_pl.search.small_space import count_configurations
from fmnist_pl.search.space import DEFAULT, read_space


@pytest.mark.parametrize(
    ("space", "count"),
    [
        ("{activation: [relu, gelu, silu]}", 3),
        ("{activation: [relu, gelu], conv_layers: {from: 1, to: 3}, channels: [4]}", 6),
        ("{conv_dropout: {from: 0.0, to: 0.5, step: 0.1}, hidden_dropout: {from: 0.5, to: 0.5}}", 6),
        ("{hidden_width: [64, 9999]}", 1),
        ("{hidden_width: [9999]}", 0),
        ("{conv_dropout: {from: 0.0, to: 0.5}}", None),
        ("{hidden_width: {from: 1, to: 101}}", None),
        ("{hidden_width: {from: 1, to: 20}, channels: {from: 1, to: 20}}", None),
    ],
)
def test_few_configurations_are_counted(tmp_path, space, count):
    path = tmp_path / "mine.yaml"
    path.write_text(f"space: {space}")

    assert count_configurations(read_space(path)) == count


def test_the_packaged_space_has_more_than_are_counted():
    assert count_configurations(read_space(DEFAULT)) is None
