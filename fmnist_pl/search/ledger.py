"""Begins and ends the trials of a study, so that none is counted twice and none that was killed is forgotten."""

import time
from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from optuna.exceptions import UpdateFinishedTrialError
from optuna.study import Study
from optuna.trial import FrozenTrial, Trial, TrialState

from fmnist_pl.search import losses
from fmnist_pl.search.liveness import GRACE_SECONDS, Liveness
from fmnist_pl.search.presence import Presence
from fmnist_pl.search.sampler import ConstrainedTPE, suggest
from fmnist_pl.search.storage import StudyStorage
from fmnist_pl.search.tally import Loss, Tally, is_one_too_many, ordinal, retried, tally
from training_health.errors import UserError

if TYPE_CHECKING:  # it imports torch, which takes seconds
    from fmnist_pl.search.space import Space

BEAT_SECONDS = 15.0
MOST_CRASHES = 3  # of one configuration's process; then it is a result: it cannot be trained here


@dataclass(frozen=True)
class Begun:
    """A trial that is this process's to train.

    Attributes:
        trial: Optuna's.
        overlay: Its configuration.
        parameters: Weights in its network.
        retries: Number of the lost trial that it tries again; None if it is new.
    """

    trial: Trial
    overlay: dict[str, Any]
    parameters: int
    retries: int | None

    @property
    def number(self) -> int:
        """Of the trial."""
        return self.trial.number


class Ledger:
    """One process's access to a study.

    Args:
        study: Opened with the space.
        storage: Of the study.
        space: Of the study.
        seed: Of the suggestions.
        presence: Of this process.
        grace: See `Liveness`.
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
        self.study, self.storage, self.space, self.seed, self.presence = study, storage, space, seed, presence
        self._liveness = Liveness(presence, grace)
        self._running: dict[int, Trial] = {}
        self._beat_at, self._beat = time.monotonic(), 0

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
            losses.add_missing_retries(self.study)
            counts = self.tally()
            if counts.finished + counts.running >= target:
                return None
            trial = self.study.ask()
            self._running[trial.number] = trial
            try:
                return self._configure(trial, target)
            except BaseException:
                self.lose(trial.number, "it was stopped before it began", "void")
                raise

    def _configure(self, trial: Trial, target: int) -> Begun | None:
        """Choose the configuration of a trial, unless it turns out to be one too many."""
        trial.set_user_attr("owner", self.presence.owner)
        trials = self.trials()
        if is_one_too_many(trial.number, target, trials):
            self.lose(trial.number, "another process began it too", "void")
            return None
        space, before = self.space, ordinal(trial.number, trials)
        self.study.sampler = ConstrainedTPE(space.distributions, space.refusal, space.first, self.seed, before)
        for name, distribution in space.distributions.items():
            suggest(trial, name, distribution)
        if reason := space.refusal(trial.params):  # nothing was drawn: every name has one value
            raise UserError(
                f"The only configuration of the space may not be trained: {reason}. "
                "Widen the space, or raise its limits.",
                exit_code=2,
            )
        overlay, parameters = space.overlay(trial.params), space.parameters(trial.params)
        trial.set_user_attr("overlay", overlay)
        trial.set_user_attr("parameters", parameters)
        mine = next(one for one in trials if one.number == trial.number)
        return Begun(trial, overlay, parameters, retried(mine))

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
        return self._tell(number, TrialState.PRUNED if value is None else TrialState.COMPLETE, value)

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
        self._note(number, {"crashes": times})
        self.lose(number, reason)
        return True

    def lose(self, number: int, reason: str, loss: Loss = "killed") -> None:
        """End a trial of this process without a result, if it has not ended; a killed one waits to be tried again."""
        if number in self._running:
            self._lose(self.trials()[number], reason, loss)
            del self._running[number]

    def beat(self) -> None:
        """Show that this process lives; call it often."""
        if time.monotonic() - self._beat_at >= BEAT_SECONDS:
            self._beat_at, self._beat = time.monotonic(), self._beat + 1
            for number in self._running:
                self._note(number, {"beat": self._beat})

    def retire_dead(self) -> list[int]:
        """End the trials whose processes are dead; their numbers."""
        with self.storage.one_at_a_time():
            others = [trial for trial in self.trials() if trial.number not in self._running]
            running = [trial for trial in others if trial.state == TrialState.RUNNING]
            dead = [trial for trial in running if self._liveness.is_dead(trial, local=self.storage.local)]
            for trial in dead:
                self._lose(trial, "the search was killed", "killed")
        return [trial.number for trial in dead]

    def _lose(self, trial: FrozenTrial, reason: str, loss: Loss) -> None:
        has_all = set(trial.params) == set(self.space.distributions)
        losses.lose(self.study, trial, reason, loss if has_all else "void")

    def _note(self, number: int, figures: Mapping[str, Any]) -> None:
        for key, value in figures.items():
            try:
                self._running[number].set_user_attr(key, value)
            except UpdateFinishedTrialError:
                return

    def _tell(self, number: int, state: TrialState, value: float | None = None) -> bool:
        counted = True
        try:
            self.study.tell(self._running[number], value, state=state)
        except (UpdateFinishedTrialError, ValueError):
            counted = False
        del self._running[number]
        return counted
