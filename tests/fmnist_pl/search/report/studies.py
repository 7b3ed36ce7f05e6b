"""Studies in memory whose trials nobody trained."""

import optuna
from optuna.distributions import CategoricalDistribution, FloatDistribution, IntDistribution
from optuna.trial import TrialState

SPACE = {
    "conv_layers": IntDistribution(1, 4),
    "optimizer": CategoricalDistribution(["adam", "sgd"]),
    "learning_rate": FloatDistribution(1e-4, 1e-1, log=True),
}


def trial(value=None, params=None, *, reported=(), state=None, retries=None, space=SPACE, **attributes):
    """Completed if it has a value, else pruned, unless ``state`` says otherwise."""
    params = {"conv_layers": 1} if params is None else params
    if state is None:
        state = TrialState.PRUNED if value is None else TrialState.COMPLETE
    return optuna.create_trial(
        state=state,
        value=value,
        params=params,
        distributions={name: space[name] for name in params},
        user_attrs=attributes,
        system_attrs={} if retries is None else {"failed_trial": retries, "retry_history": [retries]},
        intermediate_values=dict(enumerate(reported)),
    )


def study(*trials, name="made", **settings):
    made = optuna.create_study(direction="maximize", study_name=name)
    for key, value in {"data": "fashion_mnist", "images": 1000, "epochs": 2, "seed": 0, **settings}.items():
        made.set_user_attr(key, value)
    made.add_trials(trials)
    return made


def every_kind_of_trial():
    """Two points of accuracy per layer; the optimiser does nothing, the learning rate next to nothing; some scatter."""
    trials = [trial(0.9, {"conv_layers": 4, "optimizer": "adam", "learning_rate": 0.001}, parameters=9000, seconds=9.5)]
    for i in range(60):
        layers, optimizer = 1 + (i + i // 8) % 4, ["adam", "sgd"][i * 7 % 5 % 2]
        rate = 10 ** (-4 + 3 * (i * 13 % 31) / 31)
        params = {"conv_layers": layers, "optimizer": optimizer, "learning_rate": rate}
        value = 0.8 + 0.02 * layers + 0.0005 * (i * 37 % 17)
        metrics = {"parameters": 1000 * layers + i, "seconds": 5.0 + i % 7, "run": f"logs/version_{i}"}
        dead = None if i % 3 == 0 else i * 11 % 23 / 50
        trials.append(trial(value, params, reported=[value - 0.1, value], dead_fraction=dead, **metrics))
    trials += [
        trial(params=params, reported=[0.55]),
        trial(params=params, failure="600,000 parameters, at most 500,000"),
        trial(params=params, state=TrialState.FAIL, failure="train/loss was nan after epoch 1"),
        trial(params=params, state=TrialState.FAIL),
        trial(0.1, params, reported=[0.1, 0.1], retries=64),
    ]
    return study(*trials, space={"space": {"conv_layers": {"from": 1, "to": 4}}, "first": [{"conv_layers": 4}]})
