"""One run that a comparison wants."""

from dataclasses import dataclass
from typing import Any


@dataclass(frozen=True)
class WantedRun:
    """One variant with one seed.

    Attributes:
        variant: Packaged name or path, as ``--variant`` takes it.
        name: What the variant is called.
        seed: Of the run.
        epochs: It is to train; 0 if that is not known.
        options: What follows ``fmnist fit``.
        identity: See `fmnist_pl.runs.identity`.
    """

    variant: str
    name: str
    seed: int
    epochs: int
    options: tuple[str, ...]
    identity: dict[str, Any]

    @property
    def digest(self) -> str:
        """The hash that tells it from every other run."""
        return str(self.identity["digest"])

    def __str__(self) -> str:
        return f"{self.name} seed {self.seed}"
