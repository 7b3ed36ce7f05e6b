"""Plain data for the page: what each request answers, as JSON-ready dictionaries. NaN and infinity become null."""

import math
from typing import Any

import numpy as np

from training_health.health.finding import SEVERITIES, Finding
from training_health.health.findings import verdict
from training_health.health.health_run import HealthRun, Parameters, Site
from training_health.health.unit_life import Counts, network_counts, order_by_death, site_counts, transitions

SMALLEST = 1e-9  # finest activity that is sent: one firing in 10^9 pairs; less is sent as this, never as 0
MOST_CELLS = 1_000_000  # of a unit x epoch map in one answer, about 8 MB of JSON
FEWEST_EPOCHS = 50  # a map is thinned to no fewer epochs than this; then quiet units come first
MOST_MESSAGES = 20


def overview_row(run: HealthRun, found: list[Finding], revision: str, scalars: dict[str, float]) -> dict[str, Any]:
    """One line of the table.

    Args:
        run: The run; without any record if it had no monitors.
        found: Its findings.
        revision: Changes when the log has grown.
        scalars: Last values of ordinary scalars, used where the monitors say nothing.
    """
    counts = network_counts(run)
    last = len(counts.epochs) - 1 if counts else -1
    gap = {name: float(column[-1]) for name, column in run.gap.columns.items() if len(column)} if run.gap else {}
    level, words = verdict(run, found)
    watched = bool(run.last_epoch is not None or run.info or run.cannot_die or run.unwatched)
    state = "refused" if run.refused else "ok" if watched else "unreadable" if run.problems else "no_monitors"
    return {
        "run": run.name,
        "revision": revision,
        "state": state,
        "message": run.refused or " ".join(run.problems[:MOST_MESSAGES]),
        "variant": _text(run.info.get("variant")),
        "dataset": _text(run.info.get("dataset")),
        "seed": _whole(run.info.get("seed")),
        "parameters": _whole(run.info.get("parameters")),
        "optimizer": _text(run.info.get("optimizer")),
        "learning_rate": _number(run.info.get("learning_rate")),
        "epochs": (run.last_epoch + 1) if run.last_epoch is not None else None,
        "max_epochs": _whole(run.info.get("max_epochs")),
        "finished": run.result.get("status") == "finished",
        "last_step": run.last_step if run.last_step >= 0 else None,
        "units": counts.units if counts else None,
        "n": int(counts.n[last]) if counts and last >= 0 else None,
        "dead": int(counts.dead[last]) if counts and last >= 0 else None,
        "dead_share": float(counts.dead_share[last]) if counts and last >= 0 else None,
        "rare_share": float(counts.rare_share[last]) if counts and last >= 0 else None,
        "gap": _number(gap.get("accuracy_gap")),
        "gap_se": _number(gap.get("accuracy_gap_se")),
        "val_accuracy": _first_number(gap.get("val_accuracy"), scalars.get("val/accuracy")),
        "test_accuracy": _first_number(run.result.get("test_accuracy"), scalars.get("test/accuracy")),
        "verdict": {"level": level, "words": "" if state in ("no_monitors", "unreadable") else words},
        "counts": {severity: sum(f.severity == severity for f in found) for severity in SEVERITIES},
        "findings": [finding.as_dict() for finding in found],
    }


def run_payload(run: HealthRun) -> dict[str, Any]:
    """Everything the charts of one run need, except the maps of single units."""
    counts = network_counts(run)
    return {
        "run": run.name,
        "message": run.refused,
        "total": _counts(counts) if counts else None,
        "sites": [
            _site_header(site) | _counts(site_counts(site)) | {"sparsity": _sparsity(site)} for site in run.sites
        ],
        "cannot_die": run.cannot_die,
        "unwatched": run.unwatched,
        "gap": None
        if run.gap is None
        else {
            "epochs": run.gap.epochs.tolist(),
            "n_train": run.gap.n_train,
            "n_val": run.gap.n_val,
            "se_method": run.gap.se_method,
            "columns": {name: numbers(column) for name, column in run.gap.columns.items()},
        },
        "update_ratio": _parameters(run.update_ratio),
        "nonfinite": _parameters(run.nonfinite),
        "nonfinite_gradients": _parameters(run.nonfinite_gradients),
    }


def units_payload(run: HealthRun, site: Site) -> dict[str, Any]:
    """The unit x epoch map of one site: ``activity`` has a row per entry of ``units`` and a column per epoch.

    A map above ``MOST_CELLS`` is thinned, in epochs first and then in units; ``note`` then says so.
    """
    order = order_by_death(site.activity)
    deaths, revivals = transitions(site.activity)
    epochs, units = _thinned(len(site.epochs), site.units)
    rows, chosen = epochs, order[:units]
    notes = []
    if len(rows) < len(site.epochs):
        notes.append(f"{len(rows)} of {len(site.epochs)} epochs are drawn")
    if units < site.units:
        notes.append(f"{units} of {site.units} units are drawn, the dead and the quietest")
    return _site_header(site) | {
        "run": run.name,
        "epochs": site.epochs[rows].tolist(),
        "n": site.n[rows].tolist(),
        "order": chosen.tolist(),
        "activity": [activities(site.activity[rows, unit]) for unit in chosen],
        "deaths": _pairs(deaths, site, chosen, rows),
        "revivals": _pairs(revivals, site, chosen, rows),
        "note": ", ".join(notes),
    }


def numbers(values: np.ndarray) -> list[float | None]:
    """Six significant digits; null for what is not finite."""
    return [float(f"{value:.6g}") if math.isfinite(value) else None for value in values.tolist()]


def activities(values: np.ndarray) -> list[float | None]:
    """Nine decimals, fast; a unit that fired at all is never rounded to dead."""
    rounded = np.round(values, 9)
    rounded[(values > 0) & (rounded == 0)] = SMALLEST
    plain: list[float | None] = rounded.tolist()
    return plain if np.isfinite(rounded).all() else [v if v is not None and math.isfinite(v) else None for v in plain]


def _thinned(epochs: int, units: int) -> tuple[np.ndarray, int]:
    """Rows (epochs) and the number of units that fit into ``MOST_CELLS``; the last epoch is always kept."""
    most_epochs = max(FEWEST_EPOCHS, MOST_CELLS // max(units, 1))
    rows = np.arange(epochs)
    if epochs > most_epochs:
        rows = np.unique(np.linspace(0, epochs - 1, most_epochs).round().astype(int))
    return rows, min(units, MOST_CELLS // max(len(rows), 1))


def _pairs(events: np.ndarray, site: Site, chosen: np.ndarray, rows: np.ndarray) -> list[list[int]]:
    """``[unit, epoch]`` of each event that is drawn."""
    kept = np.zeros(events.shape, dtype=bool)
    kept[np.ix_(rows, chosen)] = events[np.ix_(rows, chosen)]
    return [[int(unit), int(site.epochs[row])] for row, unit in zip(*np.nonzero(kept), strict=True)]


def _site_header(site: Site) -> dict[str, Any]:
    return {
        "site": site.name,
        "index": site.index,
        "positions": site.positions,
        "window": site.window,
        "activation": site.activation,
        "first_layer": site.first_layer,
        "rare_below": site.rare_below,
    }


def _counts(counts: Counts) -> dict[str, Any]:
    return {
        "epochs": counts.epochs.tolist(),
        "n": counts.n.tolist(),
        "units": counts.units,
        "dead": counts.dead.tolist(),
        "rare": counts.rare.tolist(),
        "deaths": counts.deaths.tolist(),
        "revivals": counts.revivals.tolist(),
    }


def _sparsity(site: Site) -> list[float | None]:
    return numbers(1 - site.activity.mean(axis=1)) if site.units else []


def _parameters(part: Parameters | None) -> dict[str, Any] | None:
    """``values`` has a row per parameter and a column per epoch."""
    if part is None:
        return None
    return {"parameters": part.names, "epochs": part.epochs.tolist(), "values": [numbers(row) for row in part.values.T]}


def _text(value: object) -> str:
    return str(value)[:200] if isinstance(value, str | int | float) else ""


def _whole(value: object) -> int | None:
    return value if type(value) is int and abs(value) < 2**53 else None


def _number(value: object) -> float | None:
    return float(value) if isinstance(value, int | float) and math.isfinite(value) else None


def _first_number(*values: object) -> float | None:
    return next((number for number in map(_number, values) if number is not None), None)
