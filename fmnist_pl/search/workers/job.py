"""What a search tells its workers, and what they answer: one JSON object per line."""

import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any


@dataclass(frozen=True)
class TrialJob:
    """One trial as its worker needs it.

    Attributes:
        number: Of the trial.
        overlay: Path of its configuration.
        folder: Takes its run's folder.
        epochs: To train.
        seed: Of the training.
        options: Further options of ``fmnist fit``.
    """

    number: int
    overlay: str
    folder: str
    epochs: int
    seed: int
    options: tuple[str, ...]


# A worker's answers, told apart by "kind":
EPOCH = "epoch"  # an epoch ended: "epoch" from 0, "accuracy". The search answers {"prune": true or false}
DONE = "done"  # trained to the end: "value", "figures"
PRUNED = "pruned"  # told to stop: "figures"
DIVERGED = "diverged"  # its figures are no numbers: "reason", "figures"
ERROR = "error"  # it raised: "reason", "mendable" if by the user, so that the same would end every trial


def encode(message: Mapping[str, Any] | TrialJob) -> bytes:
    """A message as a line."""
    value = asdict(message) if isinstance(message, TrialJob) else message
    return json.dumps(value).encode() + b"\n"


def decode_job(line: bytes | str) -> TrialJob:
    """A line as a job."""
    fields = json.loads(line)
    return TrialJob(**{**fields, "options": tuple(fields["options"])})
