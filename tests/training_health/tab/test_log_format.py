from types import SimpleNamespace

import numpy as np
import pytest

from training_health.log_format import (
    NewerFormatError,
    UnreadableError,
    drop_superseded,
    parse_content,
    read_series,
    read_text,
)


def datum(step: int, *vector: float) -> SimpleNamespace:
    return SimpleNamespace(step=step, numpy=np.array(vector, dtype=np.float32))


def test_resumed_steps_replace_the_earlier_ones():
    assert drop_superseded([0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 5, 6, 7], lambda step: step) == [0, 1, 2, 3, 4, 5, 6, 7]


def test_series_stacks_records_and_ignores_further_columns():
    series = read_series({}, [datum(9, 0, 50, 0.5, 0.25, 99), datum(19, 1, 60, 0, 1, 99)], width=2)
    assert series.epochs.tolist() == [0, 1]
    assert series.n.tolist() == [50, 60]
    assert series.values.tolist() == [[0.5, 0.25], [0.0, 1.0]]
    assert series.last_step == 19


def test_the_later_record_of_an_epoch_counts():
    series = read_series({}, [datum(9, 0, 5, 1), datum(19, 1, 5, 2), datum(25, 1, 5, 3)], width=1)
    assert series.values.tolist() == [[1.0], [3.0]]


def test_nan_values_are_kept():
    assert np.isnan(read_series({}, [datum(9, 0, 5, np.nan)], width=1).values).all()


@pytest.mark.parametrize(
    "vector",
    [
        np.array([0, 5], dtype=np.float32),
        np.array([[0, 5, 1]], dtype=np.float32),
        np.array([np.nan, 5, 1], dtype=np.float32),
        np.array([-1, 5, 1], dtype=np.float32),
        np.array([0, np.inf, 1], dtype=np.float32),
        np.array([b"0", b"5", b"1"], dtype=object),
    ],
)
def test_a_record_of_the_wrong_shape_or_type_is_unreadable(vector):
    with pytest.raises(UnreadableError, match="step 9"):
        read_series({}, [SimpleNamespace(step=9, numpy=vector)], width=1)


@pytest.mark.parametrize(
    "raw", [b"", b"\xff", b"[]", b"{}", b'{"version": "1"}', b'{"version": true}', b'{"version": 1}', b"[" * 100_000]
)
def test_metadata_that_is_not_of_this_format_is_unreadable(raw):
    with pytest.raises(UnreadableError):
        parse_content(raw)


def test_a_newer_version_is_refused_in_words():
    with pytest.raises(NewerFormatError, match="Written by a newer version of the monitors: log format 2"):
        parse_content(b'{"version": 2, "shape": "unheard of"}')


def test_text_records_hold_json_and_the_last_one_counts():
    data = [SimpleNamespace(step=i, numpy=np.array(text, dtype=object)) for i, text in enumerate([b"1", b'{"a": 2}'])]
    assert read_text(data) == {"a": 2}


def test_no_text_record_is_an_empty_description():
    assert read_text([]) == {}


@pytest.mark.parametrize("value", [np.array(b"{", dtype=object), np.array(b"[]", dtype=object), np.zeros(3)])
def test_text_that_is_no_json_object_is_unreadable(value):
    with pytest.raises(UnreadableError):
        read_text([SimpleNamespace(step=0, numpy=value)])
