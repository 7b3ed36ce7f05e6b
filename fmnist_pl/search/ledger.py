"""Begins and ends the trials of a study, so that none is counted twice and none that was killed is forgotten."""

import math
import time
from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import optuna
from optuna.distributions import BaseDistribution, CategoricalDistribution, FloatDistribution, IntDistribution
from optuna.exceptions import UpdateFinishedTrialError
from optuna.study import Study
from optuna.trial import FrozenTrial, Trial, TrialState

from fmnist_pl.search.presence import Presence
from fmnist_pl.search.sampler import ConstrainedTPE
from fmnist_pl.search.storage import StudyStorage
from fmnist_pl.search.tally import (
    LOST,
    RETRY_HISTORY,
    RETRY_OF,
    Loss,
    Tally,
    is_one_too_many,
    ordinal,
    retried,
    tally,
    without_retry,
)

if TYPE_CHECKING:  # it imports torch, which takes seconds
    from fmnist_pl.search.space import Space

BEAT_SECONDS, GRACE_SECONDS = 15.0, 90.0
MOST_CRASHES = 3  # of one configuration's process; then it is a result: it cannot be trained here


@dataclass(frozen=True)
class Begun:
    """A trial that is this process's to train.

    Attributes:
        trial: Optuna's.
        overlay: Its configuration.
        retries: Number of the lost trial that it tries again; None if it is new.
    """

    trial: Trial
    overlay: dict[str, Any]
    retries: int | None

    @property
    def number(self) -> int:
        """Of the trial."""
        return self.trial.number


class Ledger:
    """One process's access to a study.

    A search that is killed leaves trials that Optuna shows as running for ever. Who runs a trial is written into it:
    on the same machine a lock tells at once whether that process lives (see `Presence`); from elsewhere its beat does,
    a number that it raises every 15 seconds. Optuna's own heartbeat is for RDB storages and ``study.optimize`` alone,
    and cannot tell a search that was killed and started again from one that is slow.

    Args:
        study: Opened with the space.
        storage: Of the study.
        space: Of the study.
        seed: Of the suggestions.
        presence: Of this process.
        grace: Seconds without a beat after which another machine's process is taken for dead.
    """

    def __init__(
        self,
        study: Study,
        storage: StudyStorage,
        space: "Space",
        seed: int,
        presence: Presence,
        grace: float = GRACE_SECONDS,
    ) -> None:
        self.study, self.storage, self.space, self.seed = study, storage, space, seed
        self.presence, self.grace = presence, grace
        self._running: dict[int, Trial] = {}
        self._beat_at, self._beat = time.monotonic(), 0
        self._watched: dict[int, tuple[Any, float]] = {}  # by trial: its last beat, and when it was first seen

    def close(self) -> None:
        """Let go. Trials that could not be ended, because the storage failed, are left for the next search to find."""
        self.presence.close(tidy=not self._running)

    def trials(self) -> list[FrozenTrial]:
        """All trials of the study as they are now."""
        return self.study.get_trials(deepcopy=False)

    def tally(self) -> Tally:
        """How many there are of which kind."""
        return tally(self.trials())

    def begin(self, target: int) -> Begun | None:
        """Begin a trial if the study has fewer than ``target`` finished or running; one that was lost comes first.

        Raises:
            UserError: No configuration was found that may be trained.
        """
        with self.storage.one_at_a_time():
            self._add_missing_retries()
            counts = self.tally()
            if counts.finished + counts.running >= target:
                return None
            trial = self.study.ask()
            self._running[trial.number] = trial
            try:
                trial.set_user_attr("owner", self.presence.owner)
                trials = self.trials()
                if is_one_too_many(trial.number, target, trials):
                    self.lose(trial.number, "another process began it too", "void")
                    return None
                space, before = self.space, ordinal(trial.number, trials)
                self.study.sampler = ConstrainedTPE(space.distributions, space.refusal, space.first, self.seed, before)
                for name, distribution in space.distributions.items():
                    suggest(trial, name, distribution)
                overlay = space.overlay(trial.params)
                trial.set_user_attr("overlay", overlay)
                trial.set_user_attr("parameters", space.parameters(trial.params))
            except BaseException:
                if trial.number in self._running:
                    self.lose(trial.number, "it was stopped before it began", "void")
                raise
        mine = next(one for one in trials if one.number == trial.number)
        return Begun(trial, overlay, retried(mine))

    def report(self, number: int, epoch: int, accuracy: float) -> bool:
        """Note the accuracy after an epoch (from 0); whether the trial is to be pruned."""
        trial = self._running[number]
        try:
            trial.report(accuracy, epoch)
        except UpdateFinishedTrialError:
            return True  # it was taken for dead: nobody waits for it any more
        return bool(trial.should_prune())

    def finish(self, number: int, figures: Mapping[str, Any], value: float | None) -> bool:
        """End a trial with its figures: complete with a value, else pruned. False if it had been taken for dead."""
        self._note(number, figures)
        state = TrialState.PRUNED if value is None else TrialState.COMPLETE
        return self._tell(number, state, value)

    def fail(self, number: int, reason: str, figures: Mapping[str, Any] | None = None) -> bool:
        """End a trial that cannot be trained. False if it had been taken for dead."""
        self._note(number, {**(figures or {}), "failure": reason})
        return self._tell(number, TrialState.FAIL)

    def crashed(self, number: int, reason: str) -> bool:
        """Its process ended by itself or was killed: try again, but not for ever. Whether it is tried again."""
        times = self._running[number].user_attrs.get("crashes", 0) + 1
        if times >= MOST_CRASHES:
            self.fail(number, f"its process ended {times} times, at last: {reason}")
            return False
        self._running[number].set_user_attr("crashes", times)
        self.lose(number, reason, "killed")
        return True

    def lose(self, number: int, reason: str, loss: Loss = "killed") -> None:
        """End a trial of this process without a result; a killed one waits to be tried again."""
        self._lose(self.trials()[number], reason, loss)

    def beat(self) -> None:
        """Show that this process lives; call it often."""
        if time.monotonic() - self._beat_at >= BEAT_SECONDS:
            self._beat_at, self._beat = time.monotonic(), self._beat + 1
            for number in self._running:
                self._note(number, {"beat": self._beat})

    def retire_dead(self) -> list[int]:
        """End the trials whose processes are dead; their numbers."""
        with self.storage.one_at_a_time():
            dead = [trial for trial in self.trials() if trial.state == TrialState.RUNNING and self._is_dead(trial)]
            for trial in dead:
                self._lose(trial, "the search was killed", "killed")
        return [trial.number for trial in dead]

    def _is_dead(self, trial: FrozenTrial) -> bool:
        owner = trial.user_attrs.get("owner")
        if trial.number in self._running:
            return False
        if owner is None and self.storage.local:
            return True  # whoever began it held the lock that this process holds now
        dead = self.presence.is_dead(owner)
        if dead is not None:
            return dead
        beat = trial.user_attrs.get("beat")
        last, since = self._watched.get(trial.number, (math.nan, 0.0))
        if beat != last:
            self._watched[trial.number] = beat, time.monotonic()
            return False
        return time.monotonic() - since > self.grace

    def _lose(self, trial: FrozenTrial, reason: str, loss: Loss) -> None:
        self._running.pop(trial.number, None)
        if set(trial.params) != set(self.space.distributions):
            loss = "void"
        try:
            for key, value in (("failure", reason), (LOST, loss)):
                self.study._storage.set_trial_user_attr(trial._trial_id, key, value)
            self.study.tell(trial.number, state=TrialState.FAIL)
        except (UpdateFinishedTrialError, ValueError):
            return  # another process was faster
        if loss == "killed":
            self._add_missing_retries()

    def _add_missing_retries(self) -> None:
        for trial in without_retry(self.trials()):
            history = [*trial.system_attrs.get(RETRY_HISTORY, []), trial.number]
            crashes = trial.user_attrs.get("crashes")
            self.study.add_trial(
                optuna.create_trial(
                    state=TrialState.WAITING,
                    params=trial.params,
                    distributions=trial.distributions,
                    user_attrs={} if crashes is None else {"crashes": crashes},
                    system_attrs={RETRY_OF: history[0], RETRY_HISTORY: history},
                )
            )

    def _note(self, number: int, figures: Mapping[str, Any]) -> None:
        for key, value in figures.items():
            try:
                self._running[number].set_user_attr(key, value)
            except UpdateFinishedTrialError:
                return

    def _tell(self, number: int, state: TrialState, value: float | None = None) -> bool:
        trial = self._running.pop(number)
        try:
            self.study.tell(trial, value, state=state)
        except (UpdateFinishedTrialError, ValueError):
            return False
        return True


def suggest(trial: Trial, name: str, distribution: BaseDistribution) -> None:
    """Have the sampler choose a value, unless the trial has one already."""
    if isinstance(distribution, CategoricalDistribution):
        trial.suggest_categorical(name, distribution.choices)
    elif isinstance(distribution, IntDistribution):
        trial.suggest_int(name, distribution.low, distribution.high, step=distribution.step, log=distribution.log)
    elif isinstance(distribution, FloatDistribution):
        trial.suggest_float(name, distribution.low, distribution.high, step=distribution.step, log=distribution.log)
