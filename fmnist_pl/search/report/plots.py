"""The report's charts of trials."""

from collections.abc import Sequence

import plotly.graph_objects as go

from fmnist_pl.search.report.chart import BLUE, GREY, ORANGE, TEXT, Cost, empty_figure, focus, note, points
from fmnist_pl.search.report.trial_records import TrialRecord, completed, in_state


def best_against_trials(records: Sequence[TrialRecord], first_guided: int | None) -> go.Figure:
    """Each trial's accuracy, the best so far, and where the sampler began to learn."""
    done = completed(records)
    pruned = [(r, r.accuracy) for r in in_state(records, "pruned") if r.accuracy is not None]
    figure = empty_figure("trial", "validation accuracy, %")
    figure.add_trace(points(pruned, lambda r: r.number, "pruned, at its last epoch", GREY, hollow=True))
    figure.add_trace(points(done, lambda r: r.number, "completed", BLUE))
    best, so_far = 0.0, []
    for _, accuracy in done:
        best = max(best, accuracy)
        so_far.append(100 * best)
    numbers = [record.number for record, _ in done]
    if numbers:  # the line goes on to the last trial
        numbers.append(max(record.number for record in records))
        so_far.append(so_far[-1])
    line = {"color": ORANGE, "width": 2, "shape": "hv"}
    figure.add_trace(go.Scatter(x=numbers, y=so_far, mode="lines", name="best so far", line=line, hoverinfo="skip"))
    if first_guided is not None:
        figure.add_vline(x=first_guided - 0.5, line={"color": GREY, "dash": "dot", "width": 1.5})
        note(figure, "guided from here on", x=first_guided - 0.5, y=0.02, xanchor="left")
    focus(figure, done, pruned)
    return figure


def against_cost(
    records: Sequence[TrialRecord], front: Sequence[TrialRecord], cost: Cost, title: str, *, log: bool = False
) -> go.Figure:
    """Accuracy of the completed trials against a cost, with the Pareto front."""
    known = [(record, accuracy) for record, accuracy in completed(records) if cost(record) is not None]
    figure = empty_figure(title, "validation accuracy, %")
    figure.add_trace(points(known, cost, "completed", BLUE))
    figure.add_trace(
        go.Scatter(
            x=[cost(record) for record in front],
            y=[100 * (record.accuracy or 0.0) for record in front],
            text=[str(record.number) for record in front],
            mode="lines+markers+text",
            name="Pareto front, with the trial's number",
            textposition="top left",
            textfont={"size": 13, "color": TEXT},
            line={"color": ORANGE, "width": 2, "shape": "hv"},
            marker={"color": ORANGE, "size": 10},
            hoverinfo="skip",
        )
    )
    if log:
        figure.update_xaxes(type="log", dtick="D2", tickformat="~s")
    focus(figure, known, [])
    return figure


def dead_against_accuracy(records: Sequence[TrialRecord]) -> go.Figure:
    """Accuracy against dead share; pruned trials hollow."""
    done = [(record, accuracy) for record, accuracy in completed(records) if record.dead_share is not None]
    given_up = in_state(records, "pruned")
    pruned = [(r, r.accuracy) for r in given_up if r.accuracy is not None and r.dead_share is not None]
    figure = empty_figure("dead share, %", "validation accuracy, %")
    figure.add_trace(points(pruned, _dead_percent, "pruned, at its last epoch", GREY, hollow=True))
    figure.add_trace(points(done, _dead_percent, "completed", BLUE))
    figure.update_xaxes(rangemode="tozero")
    focus(figure, done, pruned)
    return figure


def _dead_percent(record: TrialRecord) -> float | None:
    return None if record.dead_share is None else 100 * record.dead_share
