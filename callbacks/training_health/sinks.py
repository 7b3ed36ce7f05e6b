"""Where the monitors' records go: every TensorBoard logger of the run."""

from collections.abc import Iterable, Iterator, Sequence
from typing import Any

import pytorch_lightning as pl
from pytorch_lightning.loggers import TensorBoardLogger

from training_health.epoch_clock import epoch_end_step
from training_health.log_format import tensor_record, text_record


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


def write_text(trainer: pl.Trainer, kind: str, value: dict[str, Any]) -> None:
    """Write ``value`` as the text record ``training_health/<kind>`` at the current step.

    Args:
        trainer: The trainer whose TensorBoard loggers take it; without one nothing happens.
        kind: "run" for the description at the start, "result" for the final metrics.
        value: Must be JSON without NaN.
    """
    for writer in tensorboard_writers(trainer):
        writer._get_file_writer().add_summary(text_record(kind, value), global_step=trainer.global_step)


def tensorboard_writers(trainer: pl.Trainer) -> Iterator[Any]:
    """Yield the ``SummaryWriter`` of every TensorBoard logger, on the global-zero rank only."""
    if not trainer.is_global_zero:
        return
    for logger in trainer.loggers:
        if isinstance(logger, TensorBoardLogger) and hasattr(logger.experiment, "_get_file_writer"):
            yield logger.experiment
