"""A search's study whose names are markup."""

from optuna.distributions import CategoricalDistribution, FloatDistribution
from optuna.study import Study

from tests.fmnist_pl.search.report.studies import study, trial

HOSTILE = '<img src=x onerror=alert(1)><a href="http://example.com/">link</a> <b>bold</b> `|'
ENDING = "</script><script>alert(2)</script>"
SPACE = {HOSTILE: CategoricalDistribution([HOSTILE, ENDING]), "<b>x": FloatDistribution(0.0, 1.0)}


def hostile_study() -> Study:
    """Forty completed trials and a failed one: enough for every chart."""
    trials = []
    for i in range(40):
        metrics = {"parameters": 10 + i, "seconds": 3.0 + i, "dead_fraction": i / 60, "run": HOSTILE}
        params = {HOSTILE: [HOSTILE, ENDING][i % 2], "<b>x": i * 7 % 40 / 40}
        trials.append(trial(0.8 + 0.05 * (i % 2) + 0.0007 * i, params, space=SPACE, **metrics))
    return study(*trials, trial(failure=HOSTILE), name=HOSTILE, options=[ENDING])
