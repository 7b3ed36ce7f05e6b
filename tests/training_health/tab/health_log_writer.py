"""Writes logs in the format the monitors write, from numbers that a test knows."""

from pathlib import Path

from tensorboard.compat.proto.event_pb2 import Event
from tensorboard.compat.proto.summary_pb2 import Summary
from tensorboard.summary.writer.record_writer import RecordWriter

from training_health.health.health_run import GAP_COLUMNS
from training_health.log_format import tensor_record, text_record

STEPS_PER_EPOCH = 100


class HealthLogWriter:
    """One event file of one run. Records of an epoch carry the step ``100 * (epoch + 1) - 1``.

    Args:
        directory: The run's folder.
        wall_time: Time stamp of the first event; each further one is a second later, so files are reproducible.
    """

    def __init__(self, directory: Path, wall_time: float = 1_700_000_000.0) -> None:
        directory.mkdir(parents=True, exist_ok=True)
        # Files are read in the order of their names: a folder's second file after its first.
        number = len(list(directory.glob("events.*")))
        self._file = (directory / f"events.out.tfevents.{number:010}.host").open("wb")
        self._writer = RecordWriter(self._file)
        self._writer.write(Event(wall_time=wall_time, file_version="brain.Event:2").SerializeToString())
        self._wall_time = wall_time

    def __enter__(self) -> "HealthLogWriter":
        return self

    def __exit__(self, *error: object) -> None:
        self._file.close()

    def flush(self) -> None:
        self._file.flush()

    def activity(self, epoch: int, site: str, index: int, activity, n: int = 5000, positions: int = 1, **extra) -> None:
        content = {"site": site, "index": index, "units": len(activity), "positions": positions, "window": "validation"}
        content |= {"activation": "relu", "first_layer": index == 0, "rare_below": 0.01}
        self.numeric(f"activity/{site}", "activity", epoch, [n, *activity], **content | extra)

    def gap(self, epoch: int, n: int = 5000, **columns: float) -> None:
        values = [columns.get(name, float("nan")) for name in GAP_COLUMNS]
        self.numeric("gap", "gap", epoch, [n, *values], columns=GAP_COLUMNS, n_train=n, n_val=n, se_method="binomial")

    def parameters(self, kind: str, epoch: int, values: dict[str, float]) -> None:
        """``kind``: update_ratio, nonfinite or nonfinite_gradients."""
        self.numeric(kind, kind, epoch, [1, *values.values()], parameters=list(values))

    def text(self, kind: str, value: dict, step: int = 0) -> None:
        """``kind``: run or result."""
        self.add(step, text_record(kind, value))

    def scalar(self, tag: str, step: int, value: float) -> None:
        """An ordinary scalar, as Lightning's logger writes it."""
        self.add(step, Summary(value=[Summary.Value(tag=tag, simple_value=value)]))

    def numeric(self, tag: str, kind: str, epoch: int, values, **content) -> None:
        self.add(STEPS_PER_EPOCH * (epoch + 1) - 1, tensor_record(tag, kind, [epoch, *values], **content))

    def newer_format(self) -> None:
        """A record of a version to come."""
        record = tensor_record("gap", "gap", [0, 1])
        record.value[0].metadata.plugin_data.content = b'{"version": 2, "kind": "gap"}'
        self.add(STEPS_PER_EPOCH - 1, record)

    def add(self, step: int, summary: Summary) -> None:
        self._wall_time += 1.0
        event = Event(wall_time=self._wall_time, step=step, summary=summary)
        self._writer.write(event.SerializeToString())
