"""The log format ``training_health``, version 1: what the monitors write besides scalars.

Every record is a TensorBoard tensor summary under the plugin name ``training_health``. It holds one float32 vector
``[epoch, n, v_1 ... v_k]``: the 0-based epoch, what the values were measured on (images, or 1 for one step), and the
values. The metadata is JSON with ``version``, ``kind`` and what it takes to read the values without the code that wrote
them. A tag carries one record per step, and its step is that of Lightning's own epoch-end scalars.
"""

import json
from collections.abc import Iterable, Iterator, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
import pytorch_lightning as pl
from pytorch_lightning.loggers import TensorBoardLogger

from callbacks.epoch_clock import epoch_end_step

if TYPE_CHECKING:
    from tensorboard.compat.proto.summary_pb2 import Summary

PLUGIN_NAME = "training_health"
VERSION = 1


def tensor_record(tag: str, kind: str, vector: Sequence[float], **content: object) -> "Summary":
    """Build one numeric record.

    Args:
        tag: What follows ``training_health/`` in TensorBoard.
        kind: The record's kind, which says what the values are.
        vector: Epoch, n and the values.
        **content: Further metadata of this kind; must be JSON.

    Returns:
        The summary protobuf, for a file writer's ``add_summary``.
    """
    # Imported here: TensorBoard is needed where there is something to write, not to import a monitor.
    from tensorboard.compat.proto.summary_pb2 import Summary, SummaryMetadata
    from tensorboard.compat.proto.tensor_pb2 import TensorProto
    from tensorboard.compat.proto.tensor_shape_pb2 import TensorShapeProto
    from tensorboard.compat.proto.types_pb2 import DT_FLOAT

    values = np.asarray(vector, dtype="<f4")
    shape = TensorShapeProto(dim=[TensorShapeProto.Dim(size=len(values))])
    metadata = SummaryMetadata(
        plugin_data=SummaryMetadata.PluginData(
            plugin_name=PLUGIN_NAME,
            content=json.dumps({"version": VERSION, "kind": kind, **content}).encode(),
        ),
        data_class="DATA_CLASS_TENSOR",
    )
    tensor = TensorProto(dtype=DT_FLOAT, tensor_shape=shape, tensor_content=values.tobytes())
    return Summary(value=[Summary.Value(tag=f"{PLUGIN_NAME}/{tag}", metadata=metadata, tensor=tensor)])


def write_records(
    trainer: pl.Trainer,
    records: Iterable[tuple[str, str, Sequence[float], dict[str, Any]]],
    step: int | None = None,
) -> None:
    """Write records to every TensorBoard logger of the run; does nothing for other loggers and on other ranks.

    Args:
        trainer: The running trainer.
        records: Tuples of tag, kind, values and metadata. The epoch is put in front: a vector is ``[n, v_1 ... v_k]``.
        step: The step to write at; the running epoch's by default.
    """
    writers = list(tensorboard_writers(trainer))
    if not writers:
        return
    step = epoch_end_step(trainer) if step is None else step
    for tag, kind, vector, content in records:
        record = tensor_record(tag, kind, [trainer.current_epoch, *vector], **content)
        for writer in writers:
            writer._get_file_writer().add_summary(record, global_step=step)


def tensorboard_writers(trainer: pl.Trainer) -> Iterator[Any]:
    """Yield the ``SummaryWriter`` of every TensorBoard logger, on the global-zero rank only."""
    if not trainer.is_global_zero:
        return
    for logger in trainer.loggers:
        if isinstance(logger, TensorBoardLogger) and hasattr(logger.experiment, "_get_file_writer"):
            yield logger.experiment
