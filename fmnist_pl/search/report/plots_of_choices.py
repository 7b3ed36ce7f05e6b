"""The report's charts of choices."""

from collections.abc import Sequence

import plotly.graph_objects as go

from fmnist_pl.search.report.chart import BLUE, TEXT, empty_figure, label
from fmnist_pl.search.report.effects import Effect

_PALE = "#c3cad2"


def choices_plot(rows: Sequence[tuple[str, float, bool]]) -> go.Figure:
    """How far apart each choice's best and worst values are.

    Args:
        rows: Name, difference as a fraction, whether it is beyond chance; the first is drawn on top.
    """
    figure = empty_figure("points between best and worst value", "")
    for wanted, colour, title in ((True, BLUE, "beyond chance"), (False, _PALE, "not told from chance")):
        chosen = [(place, row) for place, row in enumerate(rows) if row[2] is wanted]
        figure.add_trace(
            go.Bar(
                x=[100 * row[1] for _, row in chosen],
                y=[place for place, _ in chosen],
                orientation="h",
                name=title,
                marker={"color": colour},
                text=[f"{100 * row[1]:.2f}" for _, row in chosen],
                textposition="outside",
                textfont={"size": 14, "color": TEXT},
                cliponaxis=False,
                hoverinfo="skip",
            )
        )
    _name_rows(figure, [label(name) for name, _, _ in rows])
    figure.update_xaxes(rangemode="tozero")
    figure.update_yaxes(showgrid=False)
    figure.update_layout(height=130 + 34 * len(rows), showlegend=True, bargap=0.35)
    return figure


def effects_plot(groups: Sequence[Sequence[Effect]]) -> go.Figure:
    """The adjusted mean of each value of the choices given, on one axis of accuracy."""
    figure = empty_figure("validation accuracy, %, others held", "")
    rows = [effect for group in groups for effect in group if effect.adjusted is not None]
    figure.add_trace(
        go.Scatter(
            x=[100 * (effect.adjusted or 0.0) for effect in rows],
            y=list(range(len(rows))),
            mode="markers+text",
            text=[f"n = {effect.accuracy.n if effect.accuracy else 0}" for effect in rows],
            textposition="middle right",
            textfont={"size": 13, "color": TEXT},
            cliponaxis=False,
            marker={"color": BLUE, "size": 11},
            hoverinfo="skip",
        )
    )
    _name_rows(figure, [f"{label(effect.choice)} = {label(effect.value)}" for effect in rows])
    figure.update_layout(height=110 + 30 * len(rows), showlegend=False)
    return figure


def _name_rows(figure: go.Figure, names: Sequence[str]) -> None:
    """Rows by number, from the top: two names that are cut short may read the same."""
    figure.update_yaxes(tickvals=list(range(len(names))), ticktext=list(names), automargin=True)
    figure.update_yaxes(range=[len(names) - 0.4, -0.6])
