"""Short names of sites."""

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from training_health.relu.site_names import shorten


@pytest.mark.parametrize(
    ("names", "short"),
    [
        (["net.conv1.relu", "net.conv2.relu", "net.fc1.relu"], ["conv1", "conv2", "fc1"]),
        (["net.relu", "net.layer1.0.relu", "net.layer1.0.relu:2"], ["relu", "layer1.0.relu", "layer1.0.relu:2"]),
        (["net.conv1.relu"], ["conv1"]),
        (["a.relu", "a.b.relu"], ["a", "a.b"]),
        (["net.total.relu", "net.fc.relu"], ["relu.total", "fc"]),  # would collide with dead_relu/total
        ([], []),
    ],
)
def test_what_all_names_have_in_common_is_dropped(names, short):
    assert shorten(names) == short


segment = st.sampled_from(["net", "relu", "relu:2", "0", "total", "n", "fc"])


@settings(deadline=None, max_examples=200)
@given(st.lists(st.lists(segment, min_size=1, max_size=4).map(".".join), unique=True, max_size=6))
def test_short_names_are_distinct_and_no_reserved_key(names):
    short = shorten(names)

    assert len(set(short)) == len(names)
    assert not {"total", "deaths", "revivals", "n", ""} & set(short)
