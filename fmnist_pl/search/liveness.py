"""Tells the trials whose processes are dead from those that are slow."""

import math
import time
from typing import Any

from optuna.trial import FrozenTrial

from fmnist_pl.search.presence import Presence

GRACE_SECONDS = 90.0


class Liveness:
    """Judges running trials by what their processes wrote into them.

    On the same machine a lock tells at once whether a process lives (see `Presence`); from elsewhere its beat does, a
    number that it raises every few seconds, by this process's clock alone: those of two machines may differ. Optuna's
    own heartbeat is for RDB storages and ``study.optimize``, and cannot tell a search that was killed and started
    again from one that is slow.

    Args:
        presence: Of this process.
        grace: Seconds without a beat after which another machine's process is taken for dead.
    """

    def __init__(self, presence: Presence, grace: float = GRACE_SECONDS) -> None:
        self.presence, self.grace = presence, grace
        self._watched: dict[int, tuple[Any, float]] = {}  # by trial: its last beat, and when it was first seen

    def is_dead(self, trial: FrozenTrial, *, local: bool) -> bool:
        """Whether nobody trains this running trial of another process any more.

        Args:
            trial: As it is now.
            local: Whether the storage is a file, and this process holds its lock.
        """
        owner = trial.user_attrs.get("owner")
        if owner is None and local:
            return True  # whoever began it held the lock that this process holds now
        dead = self.presence.is_dead(owner)
        return self._is_silent(trial) if dead is None else dead

    def _is_silent(self, trial: FrozenTrial) -> bool:
        beat = trial.user_attrs.get("beat")
        last, since = self._watched.get(trial.number, (math.nan, 0.0))
        if beat != last:
            self._watched[trial.number] = beat, time.monotonic()
            return False
        return time.monotonic() - since > self.grace
