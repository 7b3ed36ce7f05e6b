"""Writes logs in the format the monitors write, from numbers that a test knows; independent of the monitors."""

import json
from pathlib import Path

import numpy as np
from tensorboard.compat.proto import event_pb2, summary_pb2, tensor_pb2, tensor_shape_pb2, types_pb2
from tensorboard.summary.writer.event_file_writer import EventFileWriter

PLUGIN = "training_health"
STEPS_PER_EPOCH = 100
GAP_COLUMNS = [
    "running_accuracy",
    "train_eval_accuracy",
    "val_accuracy",
    "accuracy_gap",
    "accuracy_gap_se",
    "mode_effect",
    "running_loss",
    "train_eval_loss",
    "val_loss",
    "loss_gap",
    "loss_gap_se",
]


class HealthLogWriter:
    """One event file of one run. Records of an epoch carry the step ``100 * (epoch + 1) - 1``.

    Args:
        directory: The run's folder.
        wall_time: Time stamp of the first event; each further one is a second later, so files are reproducible.
    """

    def __init__(self, directory: Path, wall_time: float = 1_700_000_000.0, suffix: str = "") -> None:
        self._writer = EventFileWriter(str(directory), filename_suffix=suffix)
        self._wall_time = wall_time

    def __enter__(self) -> "HealthLogWriter":
        return self

    def __exit__(self, *error: object) -> None:
        self._writer.close()

    def flush(self) -> None:
        self._writer.flush()

    def activity(self, epoch: int, site: str, index: int, shares, n: int = 5000, positions: int = 1, **extra) -> None:
        content = {
            "kind": "activity",
            "site": site,
            "index": index,
            "units": len(shares),
            "positions": positions,
            "window": "validation",
            "activation": "relu",
            "first_layer": index == 0,
            "rare_below": 0.01,
        }
        self.numeric(f"{PLUGIN}/activity/{site}", content | extra, epoch, n, shares)

    def gap(self, epoch: int, n_train: int = 5000, n_val: int = 5000, **columns: float) -> None:
        content = {"kind": "gap", "columns": GAP_COLUMNS, "n_train": n_train, "n_val": n_val, "se_method": "binomial"}
        values = [columns.get(name, float("nan")) for name in GAP_COLUMNS]
        self.numeric(f"{PLUGIN}/gap", content, epoch, n_val, values)

    def parameters(self, kind: str, epoch: int, values: dict[str, float]) -> None:
        """``kind``: update_ratio, nonfinite or nonfinite_gradients."""
        content = {"kind": kind, "parameters": list(values)}
        self.numeric(f"{PLUGIN}/{kind}", content, epoch, 1, list(values.values()))

    def cannot_die(self, sites: list[dict], unwatched: list[dict] = []) -> None:  # noqa: B006
        content = {"kind": "cannot_die", "sites": sites, "unwatched": unwatched}
        self.numeric(f"{PLUGIN}/cannot_die", content, 0, 0, [])

    def text(self, kind: str, value: dict, step: int = 0) -> None:
        """``kind``: run or result."""
        tensor = tensor_pb2.TensorProto(dtype=types_pb2.DT_STRING, string_val=[json.dumps(value).encode()])
        self.tensor(f"{PLUGIN}/{kind}", {"kind": kind}, step, tensor)

    def scalar(self, tag: str, step: int, value: float) -> None:
        """An ordinary scalar, as Lightning's logger writes it."""
        self._add(step, summary_pb2.Summary.Value(tag=tag, simple_value=value))

    def numeric(self, tag: str, content: dict, epoch: int, n: int, values) -> None:
        vector = np.array([epoch, n, *values], dtype=np.float32)
        shape = tensor_shape_pb2.TensorShapeProto(dim=[tensor_shape_pb2.TensorShapeProto.Dim(size=len(vector))])
        tensor = tensor_pb2.TensorProto(dtype=types_pb2.DT_FLOAT, tensor_shape=shape, tensor_content=vector.tobytes())
        self.tensor(tag, content, STEPS_PER_EPOCH * (epoch + 1) - 1, tensor)

    def tensor(self, tag: str, content: dict | bytes, step: int, tensor: tensor_pb2.TensorProto) -> None:
        raw = content if isinstance(content, bytes) else json.dumps({"version": 1} | content).encode()
        metadata = summary_pb2.SummaryMetadata(
            plugin_data=summary_pb2.SummaryMetadata.PluginData(plugin_name=PLUGIN, content=raw),
            data_class=summary_pb2.DATA_CLASS_TENSOR,
        )
        self._add(step, summary_pb2.Summary.Value(tag=tag, tensor=tensor, metadata=metadata))

    def _add(self, step: int, value: summary_pb2.Summary.Value) -> None:
        self._wall_time += 1.0
        summary = summary_pb2.Summary(value=[value])
        self._writer.add_event(event_pb2.Event(wall_time=self._wall_time, step=step, summary=summary))
