"""What earlier commands left in the log folder: finished runs by their identity, and interrupted ones."""

import contextlib
import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from fmnist_pl.checkpoints.checkpoint_file import RESUMABLE
from fmnist_pl.compare.run_metrics import METRICS
from fmnist_pl.runs.identity import IDENTITY_FILE


@dataclass(frozen=True)
class WantedRun:
    """One variant with one seed."""

    name: str  # of the variant
    seed: int
    options: tuple[str, ...]  # what follows `fmnist fit`
    identity: dict[str, Any]  # see `fmnist_pl.runs.identity`

    @property
    def digest(self) -> str:
        """The hash that tells it from every other run."""
        return str(self.identity["digest"])

    def __str__(self) -> str:
        return f"{self.name} seed {self.seed}"


@dataclass(frozen=True)
class RunResult:
    """What became of a wanted run: its metrics, or why it has none."""

    variant: str
    seed: int
    failure: str | None = None
    metrics: Mapping[str, float | None] = field(default_factory=dict)  # by key; None where it was not measured
    summary: Mapping[str, Any] = field(default_factory=dict)  # the run's own
    folder: str | None = None


class LogFolder:
    """Reads ``<logdir>/<variant>/version_N``, if there are any; the folders' names mean nothing here.

    With ``any_code`` finished runs of other versions of the code and the libraries count too.
    """

    def __init__(self, path: Path, *, any_code: bool = False) -> None:
        self.path, self.any_code = path, any_code

    def finished(self, run: WantedRun) -> RunResult | None:
        """The first finished run with the wanted identity."""
        for keys in (("digest",), ("config", "data"))[: 1 + self.any_code]:
            for folder, summary in self._read("summary.json"):
                found = summary.get("identity") or {}
                if all(found.get(key) == run.identity[key] for key in keys):
                    metrics = {metric.key: metric.read(summary) for metric in METRICS}
                    return RunResult(run.name, run.seed, _not_finite(summary), metrics, summary, str(folder))
        return None

    def of_other_code(self, run: WantedRun) -> bool:
        """Whether a run that is not finished was finished by another version of the code or the libraries."""
        return self.finished(run) is None and LogFolder(self.path, any_code=True).finished(run) is not None

    def interrupted(self, run: WantedRun) -> Path | None:
        """The newest folder of a run with this identity that can be resumed: begun, saved, not finished."""
        for folder, identity in reversed(self._read(IDENTITY_FILE)):
            saved = any((folder / "checkpoints" / name).is_file() for name in RESUMABLE)
            if saved and identity.get("digest") == run.digest and not (folder / "summary.json").exists():
                return folder
        return None

    def _read(self, name: str) -> list[tuple[Path, dict[str, Any]]]:
        """Each run's folder with its file of this name, without those that cannot be understood."""
        found, files = [], self.path.glob(f"*/version_*/{name}")
        for file in sorted(files, key=lambda file: (len(str(file)), file)):  # version_9 before version_10
            with contextlib.suppress(OSError, ValueError):
                content = json.loads(file.read_text(encoding="utf-8")) if file.is_file() else None  # a pipe would wait
                found += [(file.parent, content)] if isinstance(content, dict) else []
        return found


def _not_finite(summary: Mapping[str, Any]) -> str | None:
    """Why the run's metrics cannot be compared, or None if they can."""
    for number, entry in enumerate(summary.get("history", []), start=1):
        for key in ("train/loss", "val/loss"):
            if entry.get(key, 0.0) is None:  # JSON has no NaN
                return f"{key} was not a finite number in epoch {number}"
    return None
