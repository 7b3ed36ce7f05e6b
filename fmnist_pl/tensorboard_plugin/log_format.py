"""Log format ``training_health``, version 1: from TensorBoard's tensor records to plain arrays.

A numeric record is a 1-D tensor ``[epoch, n, v_1 ... v_k]``; a text record is a scalar string that holds JSON. What the
values are is said by the JSON in the tag's summary metadata (``version``, ``kind`` and more). A log may come from
another machine, another year or a hostile hand, so nothing in it is trusted: what can't be read becomes a problem in
words, never an exception.
"""

import json
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, Protocol, TypeVar

import numpy as np

FORMAT_VERSION = 1
MOST_EPOCHS = 2**31
MOST_SAMPLES = 2**53

T = TypeVar("T")


class UnreadableError(Exception):
    """A tag that can't be used; the message says why."""


class NewerFormatError(Exception):
    """A tag written by a later version of the monitors."""

    def __init__(self, version: int) -> None:
        super().__init__(
            f"Written by a newer version of the monitors: log format {version}, this tab reads up to {FORMAT_VERSION}. "
            "Start TensorBoard from an environment with an up-to-date fmnist_pl to see this run."
        )


class Datum(Protocol):
    """One record as TensorBoard's data provider hands it out."""

    step: int
    numpy: np.ndarray


@dataclass(frozen=True)
class Series:
    """All numeric records of one tag, one row per epoch, steps and epochs strictly increasing.

    Attributes:
        content: The tag's metadata.
        epochs: (E,) int64, Lightning's 0-based epochs.
        n: (E,) int64, images or steps that a row was measured on.
        values: (E, k) float64; NaN where unknown.
        last_step: TensorBoard step of the last row, -1 without rows.
    """

    content: dict[str, Any]
    epochs: np.ndarray
    n: np.ndarray
    values: np.ndarray
    last_step: int


def parse_content(raw: bytes) -> dict[str, Any]:
    """Reads a tag's metadata.

    Raises:
        NewerFormatError: if its version is later than this reader's.
        UnreadableError: if it is not a JSON object with a version and a kind.
    """
    try:
        content = json.loads(raw.decode("utf-8"))
    except ValueError as error:  # includes UnicodeDecodeError and JSONDecodeError
        raise UnreadableError("its metadata is not JSON") from error
    except RecursionError as error:
        raise UnreadableError("its metadata is nested too deeply") from error
    if not isinstance(content, dict) or type(content.get("version")) is not int:
        raise UnreadableError("its metadata names no format version")
    if content["version"] > FORMAT_VERSION:
        raise NewerFormatError(content["version"])
    if not isinstance(content.get("kind"), str):
        raise UnreadableError("its metadata names no kind of record")
    return content


def drop_superseded(records: Sequence[T], key: Callable[[T], int]) -> list[T]:
    """Keeps what a resumed run wrote last: a record removes every earlier one whose key is not smaller.

    TensorBoard's Rust loader does this by itself, its Python loader hands out ``0..9, 5, 6, 7`` as written.
    """
    kept: list[T] = []
    for record in records:
        while kept and key(kept[-1]) >= key(record):
            kept.pop()
        kept.append(record)
    return kept


def read_series(content: dict[str, Any], data: Sequence[Datum], width: int) -> Series:
    """Stacks a tag's numeric records.

    Args:
        content: The tag's metadata.
        data: Its records, in the order in which they were written.
        width: Values per record; further ones are ignored.

    Raises:
        UnreadableError: if a record is not a vector of at least ``2 + width`` numbers that starts with an epoch.
    """
    records = drop_superseded(data, lambda datum: datum.step)
    for datum in records:
        vector = datum.numpy
        if vector.dtype.kind not in "fiu" or vector.ndim != 1 or len(vector) < 2 + width:
            raise UnreadableError(f"a record at step {datum.step} is not a vector of {2 + width} numbers")
    table = np.empty((len(records), 2 + width))
    for row, datum in enumerate(records):
        table[row] = datum.numpy[: 2 + width]
    head = table[:, :2]
    unusable = ~(np.isfinite(head) & (head >= 0) & (head < [MOST_EPOCHS, MOST_SAMPLES])).all(axis=1)
    if unusable.any():
        step = records[int(np.argmax(unusable))].step
        raise UnreadableError(f"a record at step {step} has no usable epoch and sample count")
    rows = drop_superseded(range(len(records)), lambda row: int(table[row, 0]))
    return Series(
        content=content,
        epochs=table[rows, 0].astype(np.int64),
        n=table[rows, 1].astype(np.int64),
        values=table[rows, 2:],
        last_step=records[-1].step if rows else -1,
    )


def read_text(data: Sequence[Datum]) -> dict[str, Any]:
    """The JSON object in the last text record of a tag; empty if there is none.

    Raises:
        UnreadableError: if the record holds something else.
    """
    if not data:
        return {}
    raw = data[-1].numpy
    if raw.ndim != 0:
        raise UnreadableError("its record is not one string")
    value = raw.item()
    try:
        parsed = json.loads(value.decode("utf-8") if isinstance(value, bytes) else str(value))
    except (ValueError, RecursionError) as error:
        raise UnreadableError("its record is not JSON") from error
    if not isinstance(parsed, dict):
        raise UnreadableError("its record is not a JSON object")
    return parsed
