"""The report's charts, most of them Optuna's own. Plotly reads markup, so names are escaped, and shortened."""

import html
import zlib
from collections.abc import Sequence
from typing import Any

import optuna
import plotly.graph_objects as go
from optuna.distributions import CategoricalDistribution
from optuna.study import Study
from optuna.trial import FrozenTrial, TrialState
from optuna.visualization import plot_optimization_history, plot_pareto_front, plot_slice

from fmnist_pl.search.report.statistics import Analysis, lower_fence
from fmnist_pl.search.report.trials import accuracy

_ACCURACY = "validation accuracy, %"
_SLICES = 6  # choices that are drawn one by one


def draw(trials: Sequence[FrozenTrial], analysis: Analysis, first_guided: int | None) -> dict[str, go.Figure]:
    """The charts by name; without those for which fewer than two completed trials have what they show.

    Args:
        trials: All of them.
        analysis: The analysis of their choices.
        first_guided: Number of the first trial that was not random; None without any.
    """
    percents = [100 * accuracy(trial) for trial in trials if trial.state == TrialState.COMPLETE]
    if len(percents) < 2:
        return {}
    study = for_display(trials)
    charts = {"history": plot_optimization_history(study, target_name=_ACCURACY)}
    charts["history"].update_traces(name="best so far", selector={"mode": "lines"})
    if first_guided is not None:
        charts["history"].add_vline(first_guided - 0.5, line={"dash": "dot", "color": "grey"})
    for name in ("parameters", "seconds", "dead_fraction"):
        costs = for_display(trials, name)
        if len(costs.get_trials(deepcopy=False, states=(TrialState.COMPLETE,))) > 1:
            charts[name] = plot_pareto_front(costs, target_names=[name.replace("_", " "), _ACCURACY])
            for trace, colour in zip(charts[name].data, ("#8fa8c8", "#d62728"), strict=True):  # all others, the front
                trace.marker = {"color": colour}
    if analysis.effects:
        drawn = [_label(effect.choice) for effect in analysis.effects[:_SLICES]]
        charts["values"] = plot_slice(study, params=drawn, target_name=_ACCURACY)
    low, high = max(min(percents), lower_fence(percents)), max(percents)
    for chart in charts.values():  # trials that learned nothing must not squeeze all others into a line
        chart.update_yaxes(range=[low - 0.05 * (high - low) - 0.1, high + 0.05 * (high - low) + 0.1])
    if tested := [effect for effect in analysis.effects if effect.verdict != "unknown"]:
        x, names = [100 * effect.difference for effect in tested], [_label(effect.choice) for effect in tested]
        bars = {"array": [100 * effect.half_width for effect in tested]}
        charts["effects"] = go.Figure(go.Scatter(x=x, y=names, error_x=bars, mode="markers"))
        charts["effects"].update_xaxes(title="points")
        charts["effects"].update_yaxes(autorange="reversed", automargin=True)
    for name, chart in charts.items():
        height = 120 + 32 * len(tested) if name == "effects" else 420
        chart.update_layout(template="plotly_white", title=None, height=height, margin={"t": 40, "r": 20}, font_size=14)
        chart.update_traces(marker_size=8).update_layout(legend={"orientation": "h", "y": 1.02, "yanchor": "bottom"})
    return charts


def for_display(trials: Sequence[FrozenTrial], cost: str | None = None) -> Study:
    """A study in memory: the completed trials' accuracy in percent, and if wanted a metric to be minimised.

    Trials keep their numbers; one whose metric is unknown counts as failed.
    """
    study = optuna.create_study(directions=["minimize", "maximize"] if cost else ["maximize"])
    for trial in trials:
        values = [trial.user_attrs.get(cost)] if cost else []
        values.append(100 * accuracy(trial) if trial.state == TrialState.COMPLETE else None)
        made: dict[str, Any] = {"state": TrialState.FAIL} if None in values else {"values": values}
        made["params"] = {_label(name): _label(value) for name, value in trial.params.items()}
        made["distributions"] = {
            _label(name): CategoricalDistribution([*map(_label, kind.choices)]) if hasattr(kind, "choices") else kind
            for name, kind in trial.distributions.items()
        }
        study.add_trial(optuna.create_trial(**made))
    return study


def _label(value: Any) -> Any:  # noqa: ANN401
    """Text as Plotly shall show it; names that are cut short stay different. Anything but text is as it is."""
    if not isinstance(value, str):
        return value
    return html.escape(value if len(value) <= 32 else f"{value[:20]}… {zlib.crc32(value.encode()):x}", quote=False)
