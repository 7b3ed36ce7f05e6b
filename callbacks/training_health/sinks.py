"""Where the monitors' records go: every TensorBoard logger of the run."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import Any
from weakref import WeakSet

from training_health import lightning as pl
from training_health.log_format import Record, tensor_record, text_record

_SAID: WeakSet[pl.Trainer] = WeakSet()  # whose user knows that there will be no records


def write_records(trainer: pl.Trainer, records: Iterable[Record]) -> None:
    """Write records, whose vectors are ``[n, v_1 ... v_k]``, with the epoch in front at the running epoch's step."""
    if writers := _file_writers(trainer):
        for tag, kind, vector, content in records:
            record = tensor_record(tag, kind, [trainer.current_epoch, *vector], **content)
            for writer in writers:
                writer.add_summary(record, global_step=pl.epoch_end_step(trainer))


def write_text(trainer: pl.Trainer, kind: str, value: dict[str, Any]) -> None:
    """Write ``value``, JSON without NaN, as the text record ``training_health/<kind>`` at the current step.

    The kind is "run" for the description at the start, "result" for the final metrics.
    """
    for writer in _file_writers(trainer):
        writer.add_summary(text_record(kind, value), global_step=trainer.global_step)


def tensorboard_writers(trainer: pl.Trainer) -> Iterator[Any]:
    """Yield the ``SummaryWriter`` of every TensorBoard logger, on the global-zero rank only."""
    if trainer.is_global_zero:
        yield from (logger.experiment for logger in filter(_is_tensorboard, trainer.loggers))  # type: ignore[attr-defined]


def warn_without_tensorboard(trainer: pl.Trainer) -> None:
    """Say once per trainer that a fit leaves no histograms and records, and what to add."""
    debugging = trainer.fast_dev_run  # type: ignore[attr-defined] # set by a connector
    if trainer in _SAID or debugging or any(map(_is_tensorboard, trainer.loggers)):
        return
    _SAID.add(trainer)
    found = ", ".join(type(logger).__name__ for logger in trainer.loggers)
    pl.rank_zero_warn(
        f"The monitors' histograms and records need a `TensorBoardLogger`; this trainer has {found or 'no logger'} and "
        "keeps no more than their scalars. Add one to `Trainer(logger=[...])` for the Training Health tab."
    )


def _is_tensorboard(logger: object) -> bool:
    """Whether it is the TensorBoard logger of either Lightning package, or derived from one."""
    return any(kind.__name__ == "TensorBoardLogger" for kind in type(logger).__mro__)


def _file_writers(trainer: pl.Trainer) -> list[Any]:
    """Give what takes ready-made protobufs, which no public method of ``SummaryWriter`` does, nor tensorboardX.

    The private ``_get_file_writer`` also opens a closed writer again. Without it a warning takes the records' place.
    """
    found = []
    for writer in tensorboard_writers(trainer):
        if hasattr(writer, "_get_file_writer") and not type(writer).__module__.startswith("tensorboardX"):
            found.append(writer._get_file_writer())
        else:
            pl.rank_zero_warn(
                f"{type(writer).__module__}.{type(writer).__name__} takes no records: the Training Health tab stays "
                "empty. Install `tensorboard`, or a version of torch that these monitors were tried with."
            )
    return found
