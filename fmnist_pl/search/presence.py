"""Shows the other searches of this machine whether this one still lives."""

import socket
import uuid
from pathlib import Path

from fmnist_pl.compare.locked_log import BusyError, LockedLog


class Presence:
    """A file that is locked while this process lives; the system frees it however the process ends.

    Args:
        folder: The study's; created.
    """

    def __init__(self, folder: Path) -> None:
        self.folder = folder / "searches"
        self.token = uuid.uuid4().hex
        self._lock = LockedLog(self._path(self.token))

    @property
    def owner(self) -> dict[str, str]:
        """What a trial says of the process that runs it."""
        return {"host": socket.gethostname(), "token": self.token}

    def is_dead(self, owner: object) -> bool | None:
        """Whether the process that said this of itself has ended; None if that cannot be seen from here."""
        if not isinstance(owner, dict) or owner.get("host") != socket.gethostname():
            return None
        token = str(owner.get("token", ""))
        if token == self.token:
            return False
        if not token.isalnum() or not self._path(token).exists():
            return None  # it works in another folder
        try:
            LockedLog(self._path(token)).close()
        except BusyError:
            return False
        return True

    def close(self, *, tidy: bool = True) -> None:
        """Let go.

        Args:
            tidy: Take the file away, and those of dead searches: no trial speaks of them any more.
        """
        self._lock.close()
        for path in self.folder.glob("*.lock") if tidy else ():
            if path.stem == self.token or self.is_dead({**self.owner, "token": path.stem}):
                path.unlink(missing_ok=True)

    def _path(self, token: str) -> Path:
        return self.folder / f"{token}.lock"
