"""Where the monitors' numbers go: TensorBoard's and W&B's loggers, and with any other an event file of our own.

Lightning hands scalars to every logger. Histograms and records, which it knows nothing of, go to each *sink* of a run.
Only the global-zero rank writes, and what an epoch has measured can be read when the epoch is over.
"""

from __future__ import annotations

import contextlib
import itertools
import math
import os
import socket
import time
from collections.abc import Callable, Iterable, Iterator, Mapping
from importlib.util import find_spec
from pathlib import Path
from typing import Any
from weakref import WeakKeyDictionary

import numpy as np
import torch
from torch import Tensor
from typing_extensions import override

from training_health import lightning as pl
from training_health.log_format import PLUGIN_NAME, Record, tensor_record, text_record
from training_health.record_writer import hasten, write_record
from training_health.tensor_statistics import TensorStatistics

WANDB_BUCKETS = 512  # the most that a W&B histogram takes


class Sink:
    """Drops all that it is given; each kind of sink takes what it can show."""

    def scalars(self, step: int, values: Mapping[str, float]) -> None:
        """Take the monitors' values by tag; loggers get them from Lightning."""

    def metrics(self, step: int, values: Mapping[str, Tensor]) -> None:
        """Take all that is known of the epoch, of earlier ones too."""

    def histograms(self, step: int, rows: Mapping[str, TensorStatistics]) -> None:
        """Take histograms by tag."""

    def records(self, step: int, epoch: int, records: list[Record]) -> None:
        """Take records, whose vectors lack the epoch in front."""

    def text(self, step: int, kind: str, value: dict[str, Any]) -> None:
        """Take a text record."""


class _EventSink(Sink):
    """What takes TensorBoard's protobufs."""

    @override
    def records(self, step: int, epoch: int, records: list[Record]) -> None:
        described = self._described()
        summaries = [
            tensor_record(tag, kind, [epoch, *row], described=tag in described, **content)
            for tag, kind, row, content in records
        ]
        self._write(step, summaries)
        described.update(tag for tag, *_ in records)

    @override
    def text(self, step: int, kind: str, value: dict[str, Any]) -> None:
        self._write(step, [text_record(kind, value)])

    @override
    def histograms(self, step: int, rows: Mapping[str, TensorStatistics]) -> None:
        from tensorboard.compat.proto.histogram_pb2 import HistogramProto

        names = ("min", "max", "num", "sum", "sum_squares", "bucket_limit", "bucket")
        protos = {tag: HistogramProto(**dict(zip(names, row, strict=False))) for tag, row in rows.items()}
        self._write(step, [_summary(tag, histo=proto) for tag, proto in protos.items()])

    def _write(self, step: int, summaries: list[Any]) -> None:
        raise NotImplementedError

    def _described(self) -> set[str]:
        """The tags whose metadata are in the file; to be added to."""
        raise NotImplementedError


def _summary(tag: str, **value: Any) -> Any:  # noqa: ANN401
    from tensorboard.compat.proto.summary_pb2 import Summary

    return Summary(value=[Summary.Value(tag=tag, **value)])


_TAGS: WeakKeyDictionary[Any, set[str]] = WeakKeyDictionary()  # with their metadata in it, by the writer of a file


class TensorBoardSink(_EventSink):
    """The event file of a `TensorBoardLogger`.

    No public method of ``SummaryWriter`` takes ready-made protobufs, nor does any of tensorboardX's. The private
    ``_get_file_writer`` also opens a closed writer again. Without it the records go to an event file of our own.
    """

    def __init__(self, logger: Any) -> None:  # noqa: ANN401 - of either package
        self._writer = logger.experiment
        tensorboardx = type(self._writer).__module__.startswith("tensorboardX")
        self.takes_records = hasattr(self._writer, "_get_file_writer") and not tensorboardx
        # Whether the logger and its writer write every value under its own name, and no user's own does more.
        stock = (
            self.takes_records
            and logger.log_metrics.__module__.endswith("fabric.loggers.tensorboard")
            and self._writer.add_scalar.__module__ == "torch.utils.tensorboard.writer"
        )
        self._is_plain = stock and not getattr(logger, "_prefix", "unknown")
        self._logger = logger

    def log_metrics(self, values: Mapping[str, float], step: int) -> None:
        """Do what the logger's method does; in one event, where it writes one for each value, which takes longer."""
        if self._is_plain:
            self._write(step, [_summary(tag, simple_value=value) for tag, value in values.items()])
        else:
            self._logger.log_metrics(values, step=step)

    @override
    def histograms(self, step: int, rows: Mapping[str, TensorStatistics]) -> None:
        if self.takes_records:
            super().histograms(step, rows)
            return
        for tag, row in rows.items():
            self._writer.add_histogram_raw(tag, *row[:7], global_step=step)
        self._writer.flush()

    @override
    def _described(self) -> set[str]:
        return _TAGS.setdefault(self._writer._get_file_writer(), set()) if self.takes_records else set()

    @override
    def _write(self, step: int, summaries: list[Any]) -> None:
        if self.takes_records and summaries:
            # In one event: each is handed to the writer's thread, which takes longer than writing it.
            for summary in summaries[1:]:
                summaries[0].MergeFrom(summary)
            file_writer = self._writer._get_file_writer()
            hasten(file_writer)
            file_writer.add_summary(summaries[0], global_step=step)
            self._writer.flush()


class WandbSink(Sink):
    """W&B's own histograms, and a table of the dead units."""

    def __init__(self, logger: Any) -> None:  # noqa: ANN401 - of either package
        self._log = logger.log_metrics

    @override
    def histograms(self, step: int, rows: Mapping[str, TensorStatistics]) -> None:
        import wandb

        self._log({tag: wandb.Histogram(np_histogram=_numpy_histogram(row)) for tag, row in rows.items()}, step)

    @override
    def records(self, step: int, epoch: int, records: list[Record]) -> None:
        import wandb

        table = wandb.Table(columns=["site", "units", "dead", "rare", "not a number", "dead units"])
        for _, _, (_, *activity), content in (record for record in records if record[1] == "activity"):
            dead = [str(unit) for unit, fired in enumerate(activity) if fired == 0]
            rare = sum(0 < fired < content["rare_below"] for fired in activity)
            nan = sum(math.isnan(fired) for fired in activity)
            table.add_data(content["site"], len(activity), len(dead), rare, nan, ", ".join(dead))
        if table.data:
            self._log({"dead_units": table}, step)


def _numpy_histogram(row: TensorStatistics) -> tuple[np.ndarray, np.ndarray]:
    """Give counts and edges as NumPy does, neighbouring buckets joined where there are too many."""
    width = row.limits[1] - row.limits[0] if len(row.limits) > 1 else 2 * (row.limits[0] - row.minimum)
    starts = range(0, len(row.counts), -(-len(row.counts) // WANDB_BUCKETS))
    edges = np.array([row.limits[0] - width, *row.limits])
    return np.add.reduceat(row.counts, starts), edges[[*starts, -1]]


class EventFile(_EventSink):
    """An event file of our own, open only while it is written to."""

    _numbers = itertools.count()

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._path: Path | None = None
        self._tags = set[str]()  # with their metadata in it
        self._monitors: set[str] = set()  # tags
        self._metrics: dict[str, tuple[int, Tensor]] = {}  # last step and value by tag

    @override
    def scalars(self, step: int, values: Mapping[str, float]) -> None:
        self._monitors |= set(values)
        self._write(step, [_summary(tag, simple_value=value) for tag, value in values.items()])

    @override
    def metrics(self, step: int, values: Mapping[str, Tensor]) -> None:
        # Lightning keeps values of earlier epochs as the objects that they were then.
        new = {}
        for tag, value in values.items():
            last_step, last = self._metrics.get(tag, (-1, None))
            if tag not in self._monitors and last_step != step and last is not value:
                new[tag], self._metrics[tag] = value, (step, value)
        self._write(step, [_summary(tag, simple_value=float(value)) for tag, value in new.items()])

    @override
    def _described(self) -> set[str]:
        if self._path is not None and not self._path.exists():  # deleted while the run goes on
            self._path, self._tags = None, set()
        return self._tags

    @override
    def _write(self, step: int, summaries: list[Any]) -> None:
        self._described()
        from tensorboard.compat.proto.event_pb2 import Event

        now = time.time()
        events = [Event(wall_time=now, step=step, summary=summary) for summary in summaries]
        if self._path is None:
            name = f"events.out.tfevents.{int(now):010d}.{socket.gethostname()}.{os.getpid()}.{next(self._numbers):06}"
            self._folder.mkdir(parents=True, exist_ok=True)
            self._path, events = self._folder / name, [Event(wall_time=now, file_version="brain.Event:2"), *events]
        try:
            with self._path.open("ab") as file:
                for event in events:
                    write_record(file, event.SerializeToString())
        except OSError:
            self._path, self._tags = None, set()  # it may end in half a record, behind which nothing is read
            raise


# ---- what the monitors call

_MANY_VALUES = 20
_FILES: WeakKeyDictionary[pl.Trainer, EventFile] = WeakKeyDictionary()
_SAID: WeakKeyDictionary[pl.Trainer, set[str]] = WeakKeyDictionary()


def sinks_of(trainer: pl.Trainer) -> list[Sink]:
    """Give what takes this run's records: nothing on ranks but the first, or where the trainer leaves nothing."""
    if not trainer.is_global_zero or _leaves_nothing(trainer):
        return []
    boards = [TensorBoardSink(logger) for logger in trainer.loggers if _is(logger, "TensorBoardLogger")]
    others = [WandbSink(logger) for logger in trainer.loggers if _is(logger, "WandbLogger")]
    file = [] if any(board.takes_records for board in boards) else _event_file(trainer)
    return [*boards, *others, *file]


def log_scalars(
    trainer: pl.Trainer,
    pl_module: pl.LightningModule,
    values: Mapping[str, float],
    parts: Mapping[str, float] | None = None,
) -> None:
    """Log values that are the same on every rank; unknown ones (NaN) are left out. All ranks must call.

    Lightning takes a third of a millisecond or more for each value: more than 20 values of the network's ``parts``, its
    sites or parameters, go past it to the loggers and to ``callback_metrics``.
    """
    known = {key: float(value) for key, value in values.items() if not math.isnan(value)}
    of_parts = {key: float(value) for key, value in (parts or {}).items() if not math.isnan(value)}
    if trainer.state.fn == "fit":  # what Lightning does not write: to the event file of our own
        written = known | of_parts
        _to_each(trainer, lambda sink: sink.scalars(pl.epoch_end_step(trainer), written))
    if len(of_parts) > _MANY_VALUES:
        for logger in trainer.loggers:
            board = trainer.is_global_zero and _is(logger, "TensorBoardLogger")
            log = TensorBoardSink(logger).log_metrics if board else logger.log_metrics
            log({**of_parts, "epoch": trainer.current_epoch}, step=pl.epoch_end_step(trainer))
        trainer.callback_metrics.update({key: torch.tensor(value) for key, value in of_parts.items()})
        of_parts = {}
    pl.log_scalars(trainer, pl_module, known | of_parts)


def write_metrics(trainer: pl.Trainer) -> None:
    """Write the epoch's metrics, the module's own too, where no logger of TensorBoard does. All ranks must call."""
    if _wants_event_file(trainer) and not any(_is(logger, "TensorBoardLogger") for logger in trainer.loggers):
        metrics = dict(trainer.callback_metrics)  # on all ranks: it may average over them
        _to_each(trainer, lambda sink: sink.metrics(pl.epoch_end_step(trainer), metrics))


def write_histograms(trainer: pl.Trainer, rows: Mapping[str, TensorStatistics]) -> None:
    """Write the histograms of tensors that have any finite element."""
    drawn = {tag: row for tag, row in rows.items() if row.finite}
    _to_each(trainer, lambda sink: sink.histograms(pl.epoch_end_step(trainer), drawn))


def write_records(trainer: pl.Trainer, records: Iterable[Record]) -> None:
    """Write records, whose vectors are ``[n, v_1 ... v_k]``, with the epoch in front at the running epoch's step."""
    resumed = {"resumed": True} if trainer.ckpt_path else {}  # else it would pass for another run in the same folder
    written = [(tag, kind, row, content | resumed) for tag, kind, row, content in records]
    _to_each(trainer, lambda sink: sink.records(pl.epoch_end_step(trainer), trainer.current_epoch, written))


def write_text(trainer: pl.Trainer, kind: str, value: dict[str, Any]) -> None:
    """Write ``value``, JSON without NaN, as the text record ``training_health/<kind>`` at the current step.

    The kind is "run" for the description at the start, "result" for the final metrics, "examples" for what fires units.
    """
    _to_each(trainer, lambda sink: sink.text(trainer.global_step, kind, value))


def tensorboard_writers(trainer: pl.Trainer) -> Iterator[Any]:
    """Yield the ``SummaryWriter`` of every TensorBoard logger, on the global-zero rank only."""
    if trainer.is_global_zero:
        yield from (logger.experiment for logger in trainer.loggers if _is(logger, "TensorBoardLogger"))  # type: ignore[attr-defined]


def warn_without_tensorboard(trainer: pl.Trainer) -> None:
    """Say once that a fit leaves no records, because TensorBoard's package is missing, and what to install."""
    if _wants_event_file(trainer) and not find_spec("tensorboard"):
        message = "The monitors' histograms and records need TensorBoard: `pip install tensorboard`. "
        hint = "This run keeps their scalars; `event_file=False` says that this is meant."
        _warn_once(trainer, "TensorBoard", message + hint)


def _to_each(trainer: pl.Trainer, write: Callable[[Sink], None]) -> None:
    """Let every sink write; one that cannot is named in a warning, and the run goes on."""
    for sink in sinks_of(trainer):
        try:
            write(sink)
        except Exception as error:
            name = type(sink).__name__
            _warn_once(trainer, name, f"{name} could not write what the monitors measured: {error}")


def _warn_once(trainer: pl.Trainer, topic: str, message: str) -> None:
    pl.warn_once(_SAID.setdefault(trainer, set()), topic, message)


# ---- the event file and its folder


def _wants_event_file(trainer: pl.Trainer) -> bool:
    """Whether the monitors, all of them, allow an event file; the same on every rank."""
    allowed = [callback.event_file for callback in trainer.callbacks if hasattr(callback, "event_file")]  # type: ignore[attr-defined]
    return bool(allowed) and all(allowed) and not _leaves_nothing(trainer)


def _leaves_nothing(trainer: pl.Trainer) -> bool:
    return trainer.fast_dev_run or trainer.barebones  # type: ignore[attr-defined] # set by a connector


def _event_file(trainer: pl.Trainer) -> list[EventFile]:
    """Open the trainer's event file, which serves all its fits, and say where it is."""
    if not _wants_event_file(trainer) or not find_spec("tensorboard"):
        return []
    if trainer not in _FILES:
        try:
            folder = _run_folder(trainer)
        except Exception as error:  # no folder can be made, or the logger knows none
            _warn_once(trainer, "folder", f"The monitors' records have nowhere to go: {error}")
            return []
        _FILES[trainer] = EventFile(folder)
        pl.rank_zero_info(f"The monitors write to {folder}. To see it: tensorboard --logdir {folder.parent}")
    return [_FILES[trainer]]


def _run_folder(trainer: pl.Trainer) -> Path:
    """Choose the folder of the first logger's run, where Lightning's checkpoints go too.

    Without a logger each run gets the next ``version_N``; one that resumes gets the last one that had begun when the
    checkpoint was saved, if any had. The working directory stands in for a remote folder.
    """
    root = str(trainer.default_root_dir)
    for logger in trainer.loggers[:1]:
        version = logger.version if isinstance(logger.version, str) else f"version_{logger.version}"
        folder = getattr(logger, "log_dir", None) or os.path.join(logger.save_dir or root, str(logger.name), version)
        if "://" not in str(folder):
            return Path(folder, PLUGIN_NAME)
    runs = (Path.cwd() if "://" in root else Path(root)) / PLUGIN_NAME
    versions = {int(path.name[8:]): path for path in runs.glob("version_*") if path.name[8:].isdecimal()}
    if checkpoint := trainer.ckpt_path:
        saved = os.path.getmtime(checkpoint) if os.path.exists(checkpoint) else math.inf
        if before := [number for number, folder in versions.items() if _begun(folder) <= saved]:
            return versions[max(before)]
    number = max(versions, default=-1)
    while True:
        number += 1
        with contextlib.suppress(FileExistsError):  # of a run that has just begun
            (runs / f"version_{number}").mkdir(parents=True)
            return runs / f"version_{number}"


def _begun(run: Path) -> float:
    """When the first event file in a folder was made, in seconds; infinity without one."""
    stamps = [path.name.split(".")[3] for path in run.glob("events.out.tfevents.*")]
    return min((int(stamp) for stamp in stamps if stamp.isdecimal()), default=math.inf)


def _is(logger: object, name: str) -> bool:
    """Whether it is the logger of that name of either Lightning package, or derived from one."""
    return any(kind.__name__ == name for kind in type(logger).__mro__)
