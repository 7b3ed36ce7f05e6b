"""The run's own records for the Training Health tab: JSON texts beside the monitors' numbers."""

import json
from typing import Any

import pytorch_lightning as pl

from callbacks.training_health_log import PLUGIN_NAME, VERSION, tensorboard_writers


def write_text(trainer: pl.Trainer, kind: str, value: dict[str, Any]) -> None:
    """Write ``value`` as the record ``training_health/<kind>`` at the current step.

    Args:
        trainer: The trainer whose TensorBoard loggers take it; without one nothing happens.
        kind: "run" for the description at the start, "result" for the final figures.
        value: Must be JSON without NaN.
    """
    # Imported here: TensorBoard's protos are needed where there is something to write.
    from tensorboard.compat.proto.summary_pb2 import Summary, SummaryMetadata
    from tensorboard.compat.proto.tensor_pb2 import TensorProto
    from tensorboard.compat.proto.tensor_shape_pb2 import TensorShapeProto
    from tensorboard.compat.proto.types_pb2 import DT_STRING

    content = json.dumps({"version": VERSION, "kind": kind}).encode()
    metadata = SummaryMetadata(
        plugin_data=SummaryMetadata.PluginData(plugin_name=PLUGIN_NAME, content=content),
        data_class="DATA_CLASS_TENSOR",
    )
    text = json.dumps(value, allow_nan=False).encode()
    tensor = TensorProto(dtype=DT_STRING, tensor_shape=TensorShapeProto(), string_val=[text])
    record = Summary(value=[Summary.Value(tag=f"{PLUGIN_NAME}/{kind}", metadata=metadata, tensor=tensor)])
    for writer in tensorboard_writers(trainer):
        writer._get_file_writer().add_summary(record, global_step=trainer.global_step)
