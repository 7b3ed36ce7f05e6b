"""Log format ``training_health``, version 1: what the monitors write besides scalars, and how it is read.

Every record is a TensorBoard tensor summary under the plugin name ``training_health``. A numeric record is a float32
vector ``[epoch, n, v_1 ... v_k]``: the 0-based epoch, what the values were measured on (examples, or 1 for one step;
NaN or 0 where unknown), and the values. A unit's activity of NaN says that its output was not a number. A text record
is a scalar string that holds JSON. The tag's summary metadata is JSON with ``version``, ``kind`` and what it takes to
read the values without the code that wrote them. A tag carries one record per step, and its step is that of Lightning's
own epoch-end scalars. TensorBoard hands out the metadata of a tag's first record only, so an event file holds those of
numeric records once for each tag; later ones name the plugin alone. Of several files the metadata of the last one hold,
where the reader can open the files; ``resumed`` in them is true in a fit that began from a checkpoint.

What the monitor of dead units records, besides the activity itself:

``activity/<site>``
    the activity of each unit over the epoch's window; its n, as that of the next two, is of the batches that reached
    the site.
``start/<site>``
    the same, with the same metadata, over the sanity check's window: before the first step. It comes
    once per fit, with the first epoch's records; the epoch in it is the one that it was written in. Without a sanity
    check there is none, and whether a unit was born dead is unknown.
``cause/<site>``
    why units are dead: F x U numbers, row by row, a row for each name in ``fields``, a number for each
    unit; NaN where it is unknown or does not apply. ``fields`` begins with ``cause``, an index into the list
    ``causes``, and is NaN for a unit that fired. The other rows are the numbers that decided: `CAUSE_FIELDS`.
``window``
    how the number of dead units of all sites falls with the examples seen: the numbers named in
    ``columns``, `WINDOW_COLUMNS`. NaN where unknown.

``activation_scale``
    the root mean square of what goes into each ReLU, over the examples of each process's first batch of the window,
    as many as its n says; NaN for a ReLU that they did not reach. The names of the ReLUs are in ``sites``.
``filters/<site>``
    the weights of a first layer that is a convolution of 1 or 3 channels, at most 64 wide and high, row by row;
    ``shape`` is [U, C, H, W]. They come after epochs 1, 2, 4, 8, ... and the last planned one.
``examples``
    a text record: the examples on which the units that fire least have their highest pre-activation. ``shape`` is
    [C, H, W] of an example, ``epoch`` and ``n`` are as above; each of ``units`` has a ``site``, its number ``unit``,
    its ``activity``, ``values``, the pre-activations from the highest on, and ``pixels``, a byte for each, example
    after example, in base64. The last record counts.

``gradient_scale``, from the monitor of weights: the root mean square of each gradient, in the optimiser step whose
update ratio is recorded; the names are in ``parameters``.

``class_accuracy``, from whoever knows classes: the fraction of each one's examples that were classified correctly, of n
examples of all; the names are in ``classes``.

``revived/<site>``, from what gives units new weights: 1 for each unit that got some before the first step of this
epoch, else 0, with the ``method`` that chose them and the n that it judged by. There is one for each epoch that could
begin so.

The text record ``run`` describes the run. It may hold ``advice``, {lever: what it is called here}, which is put behind
the findings' general advice, and ``limits``, {name: fraction}, in place of the rules' own: see `health.finding`. A gap
record's metadata may hold ``metrics``: what "val_accuracy" and "val_loss" are called in the run's own logs; and
``mode``, where both sides were measured in the mode of validation, which was not eval mode throughout.

A log may come from another machine, another year or a hostile hand, so a reader trusts nothing in it: what cannot be
read becomes a problem in words, never an exception.
"""

import json
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Protocol, TypeVar

import numpy as np

if TYPE_CHECKING:
    from tensorboard.compat.proto.summary_pb2 import Summary
    from tensorboard.compat.proto.tensor_pb2 import TensorProto

PLUGIN_NAME = "training_health"
FORMAT_VERSION = 1
MOST_EPOCHS = 2**31
# Why a unit is dead; a record holds its own list, so that one may be added here.
CAUSE_WORDS = {  # how a sentence says that a unit is dead, by cause; the order is that of the codes
    "unknown": "for an unknown cause",
    "not a number": "by NaN or infinity before the ReLU",
    "dead inputs": "by dead inputs",
    "killed": "killed between two epochs",
    "any input": "for any input",
    "mean shift": "by mean shift",
    "bias": "by their bias",
}
CAUSES = tuple(CAUSE_WORDS)
CAUSE_FIELDS = (
    "cause",
    "depth",  # how far below zero its largest pre-activation of the window lies, in that one's standard deviations
    "max",  # that pre-activation
    "sd",  # the standard deviation of its pre-activation over examples and positions
    "bound",  # the largest pre-activation that any input within the range below can give
    "low", "high",  # the range of all inputs of the layer before it, over the window; with 0 where it pads
    "mean_shift",  # what the mean input adds to the pre-activation: below zero it kills
    "bias",  # what the bias adds, behind a batch normalisation its own
    "weight_change",  # at death, at least so much did the incoming weights change since the window before: / their norm
    "since",  # the epoch in which it died; -1: before the first step; NaN: at the first record or before
)  # fmt: skip
# Parts of the window, in the order in which the loader gave the examples, with the units dead on them; then what is
# expected on ten times the window's examples, with a 95 % interval.
WINDOW_COLUMNS = (
    "n_1", "dead_1", "n_2", "dead_2", "n_3", "dead_3", "n_4", "dead_4", "units",
    "predicted_n", "predicted", "predicted_low", "predicted_high",
)  # fmt: skip
MOST_SAMPLES = 2**53
MOST_FILTERS, MOST_SIDE = 4096, 64  # of a layer, and pixels of a picture

T = TypeVar("T")

Record = tuple[str, str, Sequence[float], dict[str, Any]]  # tag, kind, [n, v_1 ... v_k], metadata


class UnreadableError(Exception):
    """A tag that can't be used, raised by every reader below; the message says why."""


class NewerFormatError(Exception):
    """A tag written by a later version of the monitors."""


class Datum(Protocol):
    """One record as TensorBoard's data provider hands it out."""

    step: int
    wall_time: float
    numpy: np.ndarray


@dataclass(frozen=True)
class Series:
    """All numeric records of one tag, one row per epoch, steps and epochs strictly increasing.

    Attributes:
        epochs: (E,) int64, Lightning's 0-based epochs.
        n: (E,) int64, examples or steps that a row was measured on; 0 where unknown.
        values: (E, k) float64; NaN where unknown.
    """

    epochs: np.ndarray
    n: np.ndarray
    values: np.ndarray


def parse_content(raw: bytes) -> dict[str, Any]:
    """Reads a tag's metadata: a JSON object with a version, not later than this reader's, and a kind."""
    content = _parse_object(raw, "metadata")
    if type(content.get("version")) is not int:
        raise UnreadableError("its metadata names no format version")
    if content["version"] > FORMAT_VERSION:
        raise NewerFormatError(
            f"Written by a newer version of the monitors: log format {content['version']}, this tab reads up to "
            f"{FORMAT_VERSION}. Start TensorBoard where training_health is up to date to see this run."
        )
    if not isinstance(content.get("kind"), str):
        raise UnreadableError("its metadata names no kind of record")
    return content


def _parse_object(raw: bytes, what: str) -> dict[str, Any]:
    try:
        value = json.loads(raw.decode("utf-8"))
    except (ValueError, RecursionError) as error:  # ValueError: not UTF-8, not JSON, or a number that is too long
        raise UnreadableError(f"its {what} is not JSON") from error
    if not isinstance(value, dict):
        raise UnreadableError(f"its {what} is not a JSON object")
    return value


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


def read_series(data: Sequence[Datum], width: int) -> Series:
    """Stacks a tag's numeric records, given in the order in which they were written.

    Of those that are as wide as the last one: others are of an earlier run in the same folder. Where that width is not
    ``width``, the tag's metadata is that run's too. ``UnreadableError`` is raised for a record that is not a vector of
    numbers that starts with an epoch and n.
    """
    records = drop_superseded(data, lambda datum: datum.step)
    for datum in records:
        vector = datum.numpy
        if vector.dtype.kind not in "fiu" or vector.ndim != 1 or len(vector) < 2:
            raise UnreadableError(f"a record at step {datum.step} is not a vector of {2 + width} numbers")
        if not 0 <= vector[0] < MOST_EPOCHS or vector[1] >= MOST_SAMPLES:
            raise UnreadableError(f"a record at step {datum.step} has no usable epoch and sample count")
    rows = drop_superseded([datum.numpy for datum in records], lambda vector: int(vector[0]))
    length = len(rows[-1]) if rows else 2 + width
    rows = [row for row in rows if len(row) == length]
    table = np.array(rows, dtype=np.float64).reshape(len(rows), length)
    n = np.where(table[:, 1] >= 1, table[:, 1], 0)  # NaN, 0 and -1 are unknown
    return Series(epochs=table[:, 0].astype(np.int64), n=n.astype(np.int64), values=table[:, 2:])


def read_text(data: Sequence[Datum]) -> dict[str, Any]:
    """The JSON object in the last text record of a tag; empty if there is none."""
    if not data:
        return {}
    value = data[-1].numpy.item() if data[-1].numpy.ndim == 0 else None
    if not isinstance(value, bytes):
        raise UnreadableError("its record is not one string")
    return _parse_object(value, "record")


def tensor_record(
    tag: str, kind: str, vector: Sequence[float], /, *, described: bool = False, **content: object
) -> "Summary":
    """Builds one numeric record, for a file writer's ``add_summary``.

    Args:
        tag: What follows ``training_health/`` in TensorBoard.
        kind: The record's kind, which says what the values are.
        vector: Epoch, n and the values.
        described: Whether the file holds the tag's metadata already.
        **content: Further metadata of this kind; must be JSON.
    """
    from tensorboard.compat.proto.tensor_pb2 import TensorProto
    from tensorboard.compat.proto.tensor_shape_pb2 import TensorShapeProto
    from tensorboard.compat.proto.types_pb2 import DT_FLOAT

    numbers = np.asarray(vector, dtype="<f4")  # `make_tensor_proto` takes several times as long
    shape = TensorShapeProto(dim=[TensorShapeProto.Dim(size=len(numbers))])
    tensor = TensorProto(dtype=DT_FLOAT, tensor_shape=shape, tensor_content=numbers.tobytes())
    return _summary(tag, tensor, None if described else {"kind": kind, **content})


def text_record(kind: str, value: dict[str, Any]) -> "Summary":
    """Builds the text record ``training_health/<kind>``; ``value`` must be JSON without NaN."""
    from tensorboard.util.tensor_util import make_tensor_proto

    return _summary(kind, make_tensor_proto(json.dumps(value, allow_nan=False).encode()), {"kind": kind})


def _summary(tag: str, tensor: "TensorProto", content: dict[str, object] | None) -> "Summary":
    # Imported here: TensorBoard is needed where there is something to write, not to import a monitor.
    from tensorboard.compat.proto.summary_pb2 import DATA_CLASS_TENSOR, Summary

    record = Summary.Value(tag=f"{PLUGIN_NAME}/{tag}", tensor=tensor)
    record.metadata.plugin_data.plugin_name = PLUGIN_NAME
    if content is not None:
        record.metadata.plugin_data.content = json.dumps({"version": FORMAT_VERSION, **content}).encode()
        record.metadata.data_class = DATA_CLASS_TENSOR
    return Summary(value=[record])
