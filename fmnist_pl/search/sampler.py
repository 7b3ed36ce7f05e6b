"""TPE that only suggests what may be trained, and suggests the same again after an interruption."""

import json
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np
from optuna.distributions import BaseDistribution, CategoricalDistribution, FloatDistribution, IntDistribution
from optuna.samplers import TPESampler
from optuna.study import Study
from optuna.trial import FrozenTrial, Trial

from fmnist_pl.search.tally import LOST
from training_health.errors import UserError

# Drawn at random before the estimators are asked. With Optuna's ten they settled on the first good corner of sixteen
# choices and tried hardly anything else, which is neither a good search nor data that tell what matters.
RANDOM_TRIALS = 30
_MOST_DRAWS = 1_000  # before a space is taken to hold nothing that may be trained
_ESTIMATED_DRAWS = 50  # of these; then at random
_DRAWS_FOR_SOMETHING_NEW = 800

Refusal = Callable[[Mapping[str, Any]], str | None]


class ConstrainedTPE(TPESampler):
    """Draws all parameters at once, among those that may be trained, so that no trial is spent on others.

    A tree-structured Parzen estimator (Bergstra et al. 2011), multivariate, with Optuna's "constant liar" for trials
    that run at the same time. Candidates that break a constraint are taken out before the best one is chosen. To draw
    again until the best one keeps to the constraints would not do: nothing was ever tried where nothing may be, so
    that just there the estimators would expect the most.

    What it suggests is a function of the study's seed, of how many suggestions came before and of the finished trials
    alone: where one process searches, a search that was killed goes on as if it had not been. A configuration that was
    tried already is not drawn again while there are others.

    Args:
        distributions: The whole space.
        refusal: Why parameters must not be trained; None if they may.
        first: Suggested before any is drawn.
        seed: Of the study.
        ordinal: How many suggestions came before this one.
    """

    def __init__(
        self,
        distributions: Mapping[str, BaseDistribution],
        refusal: Refusal,
        first: Sequence[Mapping[str, Any]],
        seed: int,
        ordinal: int,
    ) -> None:
        mixed = int(np.random.SeedSequence([seed, ordinal]).generate_state(1)[0])
        super().__init__(seed=mixed, n_startup_trials=RANDOM_TRIALS, multivariate=True, constant_liar=True)
        self.refusal, self.first, self.ordinal = refusal, first, ordinal
        self.space = {name: one for name, one in distributions.items() if not one.single()}
        self.only = {name: _only_value(one) for name, one in distributions.items() if one.single()}

    def infer_relative_search_space(self, study: Study, trial: FrozenTrial) -> dict[str, BaseDistribution]:
        """The whole space from the first trial on; it is the same for all."""
        return self.space

    def sample_relative(
        self, study: Study, trial: FrozenTrial, search_space: dict[str, BaseDistribution]
    ) -> dict[str, Any]:
        """Parameters that may be trained.

        Raises:
            UserError: None were found.
        """
        if self.ordinal < len(self.first):
            return {name: self.first[self.ordinal][name] for name in search_space}
        tried = {_key(one.params) for one in study.get_trials(deepcopy=False) if one.user_attrs.get(LOST) != "void"}
        reason = None
        for draw in range(_MOST_DRAWS):
            estimated = super().sample_relative(study, trial, search_space) if draw < _ESTIMATED_DRAWS else {}
            params = estimated or self._random(study, trial)
            if reason := self.refusal({**self.only, **params}):
                continue
            if draw >= _DRAWS_FOR_SOMETHING_NEW or _key({**self.only, **params}) not in tried:
                return params
        raise UserError(
            f"Of {_MOST_DRAWS:,} configurations drawn from the space none may be trained. The last: {reason}. "
            "Widen the space, or raise parameters_at_most or multiplications_at_most.",
            exit_code=2,
        )

    def _compute_acquisition_func(self, samples: dict[str, np.ndarray], *estimators: Any) -> np.ndarray:  # noqa: ANN401
        """Nothing to expect from what may not be trained. ``samples`` holds one array (N,) per name."""
        expected = super()._compute_acquisition_func(samples, *estimators)
        for index in range(len(expected)):
            params = {name: one.to_external_repr(samples[name][index]) for name, one in self.space.items()}
            if self.refusal({**self.only, **params}):
                expected[index] = -np.inf
        return expected

    def _random(self, study: Study, trial: FrozenTrial) -> dict[str, Any]:
        draw = self._random_sampler.sample_independent
        return {name: draw(study, trial, name, one) for name, one in self.space.items()}


def suggest(trial: Trial, name: str, distribution: BaseDistribution) -> None:
    """Have the sampler choose a value, unless the trial has one already."""
    if isinstance(distribution, CategoricalDistribution):
        trial.suggest_categorical(name, distribution.choices)
    elif isinstance(distribution, IntDistribution):
        trial.suggest_int(name, distribution.low, distribution.high, step=distribution.step, log=distribution.log)
    elif isinstance(distribution, FloatDistribution):
        trial.suggest_float(name, distribution.low, distribution.high, step=distribution.step, log=distribution.log)


def _only_value(distribution: BaseDistribution) -> Any:  # noqa: ANN401
    choices = getattr(distribution, "choices", None)
    return choices[0] if choices else distribution.low  # type: ignore[attr-defined]


def _key(params: Mapping[str, Any]) -> str:
    return json.dumps(dict(params), sort_keys=True)
