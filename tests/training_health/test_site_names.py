"""Short names of sites."""

import pytest

from training_health.relu.site_names import shorten


@pytest.mark.parametrize(
    ("names", "short"),
    [
        (["net.conv1.relu", "net.conv2.relu", "net.fc1.relu"], ["conv1", "conv2", "fc1"]),
        (
            ["net.relu", "net.layer1.0.relu", "net.layer1.0.relu:2"],
            ["relu", "layer1.0.relu", "layer1.0.relu:2"],
        ),
        (["net.relu", "net.relu:2"], ["relu", "relu:2"]),
        (["relu"], ["relu"]),
        (["net.conv1.relu"], ["conv1"]),
        (["net.1", "net.3"], ["1", "3"]),
        (["a.relu", "a.b.relu"], ["a", "a.b"]),
        (["net.total.relu", "net.fc.relu"], ["relu.total", "fc"]),  # would collide with dead_relu/total
        ([], []),
    ],
)
def test_what_all_names_share_is_dropped(names, short):
    assert shorten(names) == short
