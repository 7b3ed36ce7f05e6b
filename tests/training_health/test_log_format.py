import json
from types import SimpleNamespace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from tensorboard.util import tensor_util

from training_health import log_format
from training_health.log_format import NewerFormatError, UnreadableError, parse_content, read_series, read_text

few = settings(deadline=None, max_examples=50)
floats32 = st.floats(width=32)
texts = st.text(st.characters(exclude_categories=["Cs"]))


def datum(step: int, *vector: float) -> SimpleNamespace:
    return SimpleNamespace(step=step, numpy=np.array(vector, dtype=np.float32))


def read_back(summary) -> tuple[dict, np.ndarray]:
    """Metadata and value of a record that went through protobuf, as TensorBoard hands them out."""
    (value,) = type(summary).FromString(summary.SerializeToString()).value
    return parse_content(value.metadata.plugin_data.content), tensor_util.make_ndarray(value.tensor)


@few
@given(epochs=st.sets(st.integers(0, 1000), max_size=5), n=st.integers(1, 2**24), data=st.data())
def test_numbers_are_read_as_they_were_written(epochs, n, data):
    width = data.draw(st.integers(0, 4))
    written = {epoch: data.draw(st.lists(floats32, min_size=width, max_size=width)) for epoch in sorted(epochs)}
    records = [
        read_back(log_format.tensor_record("tag", "gap", [epoch, n, *row], a="b")) for epoch, row in written.items()
    ]

    series = read_series([SimpleNamespace(step=i, numpy=array) for i, (_, array) in enumerate(records)], width)

    assert all(content == {"version": 1, "kind": "gap", "a": "b"} for content, _ in records)
    assert series.epochs.tolist() == list(written)
    assert series.n.tolist() == [n] * len(written)
    np.testing.assert_array_equal(series.values, np.array(list(written.values())).reshape(len(written), width))


@few
@given(st.dictionaries(texts, st.none() | st.booleans() | st.integers() | texts | st.lists(st.integers())))
def test_text_is_read_as_it_was_written(value):
    content, array = read_back(log_format.text_record("run", value))

    assert content == {"version": 1, "kind": "run"}
    assert read_text([SimpleNamespace(step=0, numpy=array)]) == value


@few
@given(st.binary() | st.recursive(st.none() | st.integers() | texts, st.lists).map(lambda v: json.dumps(v).encode()))
def test_any_bytes_are_metadata_or_unreadable(raw):
    try:
        content = parse_content(raw)
    except (UnreadableError, NewerFormatError):
        return
    assert isinstance(content["kind"], str)


def test_metadata_nested_without_end_is_unreadable():
    with pytest.raises(UnreadableError, match="not JSON"):
        parse_content(b"[" * 100_000)


def test_a_newer_version_is_named():
    with pytest.raises(NewerFormatError, match="log format 2"):
        parse_content(b'{"version": 2, "shape": "unheard of"}')


def test_steps_of_a_resumed_run_replace_the_earlier_ones():
    assert log_format.drop_superseded([0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 5, 6, 7], lambda step: step) == [
        0,
        1,
        2,
        3,
        4,
        5,
        6,
        7,
    ]


def test_the_later_record_of_an_epoch_counts():
    series = read_series([datum(9, 0, 5, 1), datum(19, 1, 5, 2), datum(25, 1, 5, 3)], width=1)

    assert series.values.tolist() == [[1.0], [3.0]]


def test_of_two_runs_in_a_tag_the_later_ones_width_counts():
    first = [datum(9, 0, 5, 1, 1, 1), datum(19, 1, 5, 1, 1, 1), datum(29, 2, 5, 1, 1, 1)]

    series = read_series([*first, datum(19, 0, 7, 0.5, 0.25), datum(39, 1, 7, 0, 0.25)], width=3)

    assert (series.epochs.tolist(), series.n.tolist()) == ([0, 1], [7, 7])
    assert series.values.tolist() == [[0.5, 0.25], [0.0, 0.25]]


@pytest.mark.parametrize("n", [np.nan, 0, -1, 0.5])
def test_an_unknown_number_of_examples_is_zero(n):
    assert read_series([datum(9, 0, n, 1)], width=1).n.tolist() == [0]


@pytest.mark.parametrize("vector", [[0], [[0, 5, 1]], [np.nan, 5, 1], [-1, 5, 1], [0, np.inf, 1], [b"0", b"5", b"1"]])
def test_a_record_of_the_wrong_shape_or_type_is_unreadable(vector):
    with pytest.raises(UnreadableError, match="step 9"):
        read_series([SimpleNamespace(step=9, numpy=np.array(vector))], width=1)


@pytest.mark.parametrize("value", [np.array(b"{", dtype=object), np.array(b"[]", dtype=object), np.zeros(3)])
def test_text_that_is_no_json_object_is_unreadable(value):
    with pytest.raises(UnreadableError):
        read_text([SimpleNamespace(step=0, numpy=value)])


def test_the_last_text_counts_and_none_is_empty():
    texts = [SimpleNamespace(numpy=np.array(text, dtype=object)) for text in (b"1", b'{"a": 2}')]

    assert (read_text(texts), read_text([])) == ({"a": 2}, {})
