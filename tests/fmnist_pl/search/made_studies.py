"""Studies in memory whose trials nobody trained."""

from collections.abc import Sequence
from typing import Any

import optuna
from optuna.distributions import BaseDistribution, CategoricalDistribution, FloatDistribution, IntDistribution
from optuna.study import Study
from optuna.trial import FrozenTrial, TrialState

LAYERS = IntDistribution(1, 4)
RATE = FloatDistribution(1e-4, 1e-1, log=True)
OPTIMIZER = CategoricalDistribution(["adam", "sgd"])
MOMENTUM = FloatDistribution(0.0, 1.0)
SPACE = {"conv_layers": LAYERS, "learning_rate": RATE, "optimizer": OPTIMIZER, "momentum": MOMENTUM}
SETTINGS = {
    "space": {"space": {"conv_layers": {"from": 1, "to": 4}}},
    "data": "fashion_mnist",
    "epochs": 2,
    "seed": 0,
    "images": 1000,
    "options": [],
}


def trial(
    value: float | None = None,
    params: dict[str, Any] | None = None,
    *,
    state: TrialState = TrialState.COMPLETE,
    space: dict[str, BaseDistribution] = SPACE,
    retries: Sequence[int] = (),
    reported: Sequence[float] | None = None,
    **attributes: Any,
) -> FrozenTrial:
    params = {"conv_layers": 1} if params is None else params
    reported = ([] if value is None else [value]) if reported is None else reported
    return optuna.trial.create_trial(
        state=state,
        value=value,
        params=params,
        distributions={name: space[name] for name in params},
        user_attrs=attributes,
        system_attrs={"failed_trial": retries[0], "retry_history": list(retries)} if retries else {},
        intermediate_values=dict(enumerate(reported)),
    )


def pruned(reported: Sequence[float], params: dict[str, Any] | None = None, **attributes: Any) -> FrozenTrial:
    return trial(None, params, state=TrialState.PRUNED, reported=reported, **attributes)


def failed(failure: str | None = None, params: dict[str, Any] | None = None, **attributes: Any) -> FrozenTrial:
    reason = {} if failure is None else {"failure": failure}
    return trial(None, params, state=TrialState.FAIL, **reason, **attributes)


def study(*trials: FrozenTrial, name: str = "made", **settings: Any) -> Study:
    made = optuna.create_study(direction="maximize", study_name=name)
    for key, value in {**SETTINGS, **settings}.items():
        made.set_user_attr(key, value)
    made.add_trials(trials)
    return made


def layers_matter(n: int = 40) -> Study:
    """Two points of accuracy per layer; the optimiser and SGD's momentum do nothing; a little scatter."""
    trials = []
    for i in range(n):
        optimizer = "sgd" if i % 3 == 0 else "adam"
        params = {"conv_layers": 1 + i % 4, "optimizer": optimizer}
        if optimizer == "sgd":
            params["momentum"] = (i * 7 % 11) / 11
        value = 0.8 + 0.02 * params["conv_layers"] + 0.0005 * ((i * 37) % 17)
        figures = {"parameters": 1000 * params["conv_layers"] + i, "seconds": 5.0 + i % 7, "dead_fraction": i % 10 / 20}
        trials.append(trial(value, params, run=f"logs/version_{i}", **figures))
    return study(*trials)
