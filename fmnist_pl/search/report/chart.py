"""What the report's charts share. Names come from users: whatever Plotly would read as markup is escaped."""

import html
from collections.abc import Callable, Sequence
from typing import Any

import plotly.graph_objects as go

from fmnist_pl.search.report.trial_records import TrialRecord

BLUE, ORANGE, GREY, TEXT, LINE = "#0b5cad", "#d55e00", "#8a939e", "#1b2430", "#dfe4ea"
_LONGEST = 32  # characters of a label
Cost = Callable[[TrialRecord], float | None]


def label(text: str) -> str:
    """``text`` as Plotly shall show it: as it is, but short."""
    short = text if len(text) <= _LONGEST else text[: _LONGEST - 1] + "…"
    return html.escape(short, quote=False)


def empty_figure(x_title: str, y_title: str) -> go.Figure:
    """Axes without data, in the report's style."""
    figure = go.Figure()
    figure.update_layout(
        template="none",
        height=440,
        margin={"l": 70, "r": 30, "t": 44, "b": 60},
        font={"family": "Roboto, Helvetica Neue, Segoe UI, Arial, sans-serif", "size": 14, "color": TEXT},
        legend={"orientation": "h", "x": 0, "y": 1.02, "yanchor": "bottom", "font": {"size": 14}},
        hoverlabel={"font": {"size": 14}, "align": "left"},
        hovermode="closest",
    )
    axis = {"gridcolor": LINE, "zeroline": False, "linecolor": GREY, "ticks": "outside", "tickcolor": GREY}
    figure.update_xaxes(title={"text": x_title, "font": {"size": 15}}, **axis)
    figure.update_yaxes(title={"text": y_title, "font": {"size": 15}}, **axis)
    return figure


def points(
    known: Sequence[tuple[TrialRecord, float]], x: Cost, name: str, colour: str, *, hollow: bool = False
) -> go.Scatter:
    """Trials as points that name their choices when they are pointed at."""
    return go.Scatter(
        x=[x(record) for record, _ in known],
        y=[100 * accuracy for _, accuracy in known],
        text=[_hover(record) for record, _ in known],
        mode="markers",
        name=name,
        showlegend=bool(known),
        hovertemplate="%{text}<extra></extra>",
        marker={"color": colour, "size": 9, "symbol": "circle-open" if hollow else "circle", "line": {"width": 1.5}},
    )


def _hover(record: TrialRecord) -> str:
    choices = [f"{label(name)} = {label(str(value))}" for name, value in record.choices.items()]
    accuracy = f"trial {record.number}: {100 * (record.accuracy or 0.0):.2f} % after {record.epochs} epochs"
    return "<br>".join([accuracy, *choices])


def focus(
    figure: go.Figure, done: Sequence[tuple[TrialRecord, float]], pruned: Sequence[tuple[TrialRecord, float]]
) -> None:
    """Keep a few trials that never learned from squeezing all others into a line; they stay below, and are counted."""
    accuracies = sorted(100 * accuracy for _, accuracy in [*done, *pruned])
    if len(accuracies) < 8:
        return
    top, quarter = accuracies[-1], accuracies[len(accuracies) // 4]
    low = min(accuracy for accuracy in accuracies if accuracy >= top - 4 * max(top - quarter, 0.5))
    if low > accuracies[0]:
        margin = 0.06 * (top - low)
        hidden = sum(accuracy < low for accuracy in accuracies)
        figure.update_yaxes(range=[low - margin, top + 2 * margin])
        note(figure, f"{hidden} below the axis", x=1.0, y=0.0, xref="paper", xanchor="right")


def note(figure: go.Figure, text: str, **place: Any) -> None:  # noqa: ANN401
    """Write a line into a figure, ``y`` from 0 at its bottom to 1; ``place`` as for Plotly's annotations."""
    font = {"size": 14, "color": TEXT}
    figure.add_annotation(text=text, yref="paper", yanchor="bottom", showarrow=False, font=font, **place)
