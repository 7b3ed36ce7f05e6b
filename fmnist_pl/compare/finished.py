"""What earlier commands left in the log folder: finished runs by their identity, and interrupted ones."""

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from fmnist_pl.compare.wanted_run import WantedRun
from fmnist_pl.runs.identity import FILE_NAME

RESUMABLE_CHECKPOINTS = ("last.ckpt", "previous.ckpt")  # what `fmnist fit --resume FOLDER` goes on from


@dataclass(frozen=True)
class FinishedRun:
    """A run folder with its summary."""

    folder: Path
    summary: dict[str, Any]

    @property
    def identity(self) -> dict[str, Any]:
        """Empty for runs from before identities were recorded."""
        return self.summary.get("identity") or {}

    @property
    def failure(self) -> str | None:
        """Why its figures cannot be compared, or None if they can."""
        for number, entry in enumerate(self.summary.get("history", []), start=1):
            for key in ("train/loss", "val/loss"):
                if key in entry and entry[key] is None:  # JSON has no NaN
                    return f"{key} was not a finite number in epoch {number}"
        return None


class LogFolder:
    """Reads ``<logdir>/<variant>/version_N``; the folders' names mean nothing here.

    Args:
        path: The log folder; need not exist.
        any_code: Accept finished runs of other versions of the code and the libraries.
    """

    def __init__(self, path: Path, *, any_code: bool = False) -> None:
        self.path, self.any_code = path, any_code

    def finished(self, run: WantedRun) -> FinishedRun | None:
        """The first finished run with the wanted identity."""
        found = [self._read(path) for path in sorted(self.path.glob("*/version_*/summary.json"), key=_by_version)]
        runs = [candidate for candidate in found if candidate is not None]
        exact = [candidate for candidate in runs if candidate.identity.get("digest") == run.digest]
        accepted = exact or ([candidate for candidate in runs if _same_setup(candidate, run)] if self.any_code else [])
        return accepted[0] if accepted else None

    def of_other_code(self, run: WantedRun) -> bool:
        """Whether there is a finished run that differs in the version of code or libraries alone."""
        found = [self._read(path) for path in self.path.glob("*/version_*/summary.json")]
        return any(
            _same_setup(candidate, run) and candidate.identity.get("digest") != run.digest
            for candidate in found
            if candidate is not None
        )

    def interrupted(self, run: WantedRun) -> Path | None:
        """The newest folder of a run with this identity that can be gone on with: begun, saved, not finished."""
        for path in sorted(self.path.glob(f"*/version_*/{FILE_NAME}"), key=_by_version, reverse=True):
            folder = path.parent
            if (folder / "summary.json").exists() or _json_object(path).get("digest") != run.digest:
                continue
            if any((folder / "checkpoints" / name).is_file() for name in RESUMABLE_CHECKPOINTS):
                return folder
        return None

    def _read(self, path: Path) -> FinishedRun | None:
        summary = _json_object(path)
        return FinishedRun(path.parent, summary) if summary else None


def _same_setup(candidate: FinishedRun, run: WantedRun) -> bool:
    return all(candidate.identity.get(key) == run.identity[key] for key in ("config", "data"))


def _by_version(path: Path) -> tuple[str, int]:
    version = path.parent.name.removeprefix("version_")
    return path.parent.parent.name, int(version) if version.isdigit() else -1


def _json_object(path: Path) -> dict[str, Any]:
    """Empty for a file that cannot be read: a run that cannot be understood is not a finished run."""
    try:
        value = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return {}
    return value if isinstance(value, dict) else {}
