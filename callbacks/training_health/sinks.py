"""Where the monitors' records go: every TensorBoard logger of the run."""

from collections.abc import Iterable, Iterator
from typing import Any

from pytorch_lightning.loggers import TensorBoardLogger

from training_health.lightning import Trainer, epoch_end_step, rank_zero_warn
from training_health.log_format import Record, tensor_record, text_record


def write_records(trainer: Trainer, records: Iterable[Record]) -> None:
    """Write records at the running epoch's step; does nothing for other loggers and on other ranks.

    Args:
        trainer: The running trainer.
        records: Tuples of tag, kind, values and metadata. The epoch is put in front: a vector is ``[n, v_1 ... v_k]``.
    """
    if writers := list(tensorboard_writers(trainer)):
        for tag, kind, vector, content in records:
            record = tensor_record(tag, kind, [trainer.current_epoch, *vector], **content)
            for writer in writers:
                add_summary(writer, record, epoch_end_step(trainer))


def write_text(trainer: Trainer, kind: str, value: dict[str, Any]) -> None:
    """Write ``value`` as the text record ``training_health/<kind>`` at the current step.

    Args:
        trainer: The trainer whose TensorBoard loggers take it; without one nothing happens.
        kind: "run" for the description at the start, "result" for the final metrics.
        value: Must be JSON without NaN.
    """
    for writer in tensorboard_writers(trainer):
        add_summary(writer, text_record(kind, value), trainer.global_step)


def tensorboard_writers(trainer: Trainer) -> Iterator[Any]:
    """Yield the ``SummaryWriter`` of every TensorBoard logger, on the global-zero rank only."""
    if trainer.is_global_zero:
        yield from (logger.experiment for logger in trainer.loggers if isinstance(logger, TensorBoardLogger))


def add_summary(writer: Any, summary: Any, step: int | None = None) -> None:  # noqa: ANN401
    """Write a ready-made ``Summary`` protobuf.

    No public method of ``SummaryWriter`` takes one; its private ``_get_file_writer`` also opens a closed writer again.
    Without it the records are left out with a warning; scalars and histograms do not depend on it.
    """
    if not hasattr(writer, "_get_file_writer"):
        rank_zero_warn("This version of torch's SummaryWriter takes no records: the Training Health tab stays empty.")
        return
    writer._get_file_writer().add_summary(summary, global_step=step)
