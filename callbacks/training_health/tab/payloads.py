"""Plain data for the page: what each request answers, as JSON-ready dictionaries. NaN and infinity become null."""

import base64
import json
import math
import sys
from collections.abc import Sequence
from dataclasses import asdict
from itertools import pairwise
from statistics import median
from typing import Any

import numpy as np

from training_health.health.finding import ALARMS, Finding
from training_health.health.findings import verdict
from training_health.health.health_run import Columns, Examples, HealthRun, Site
from training_health.health.unit_life import Counts, dead_since, order_by_death, transitions

MOST_CELLS = 1_000_000  # of a unit x epoch map in one answer, about 8 MB of JSON
FEWEST_EPOCHS = 50  # a map is thinned to no fewer epochs than this; then quiet units come first
MOST_MESSAGES = 20
LARGEST = sys.float_info.max  # JSON may hold larger whole numbers


def as_json(value: object) -> str:
    """Compact JSON; a number that is not finite is an error, for browsers can't read it."""
    return json.dumps(value, allow_nan=False, separators=(",", ":"))


def overview_row(
    run: HealthRun, found: list[Finding], revision: str, scalars: dict[str, float], written: Sequence[float] = ()
) -> dict[str, Any]:
    """One line of the table; ``scalars``, last values of ordinary ones, are used where the monitors say nothing.

    ``written``: when the records of one tag were written, in seconds since 1970.
    """
    counts, gap = run.counts, run.gap.last
    recorded = len(counts.epochs) > 0
    watched = bool(run.last_epoch is not None or run.info or run.cannot_die or run.unwatched)
    state = "newer_format" if run.newer_format else "ok" if watched else "unreadable" if run.problems else "no_monitors"
    if revision and state == "no_monitors":
        state = "ok"  # it has records, none of them of an epoch
    level, words = verdict(run, found)
    return {
        "run": run.name,
        "revision": revision,
        "state": state,
        "message": run.newer_format or " ".join(run.problems[:MOST_MESSAGES]),
        **{key: _text(run.info.get(key)) for key in ("variant", "dataset", "optimizer", "options")},
        **{key: finite(run.info.get(key)) for key in ("seed", "parameters", "learning_rate", "max_epochs")},
        "epochs": (run.last_epoch + 1) if run.last_epoch is not None else None,
        "finished": run.result.get("status") == "finished",
        "written": finite(max(written, default=None)),
        "seconds_per_epoch": finite(median(b - a for a, b in pairwise(written))) if len(written) > 1 else None,
        "units": counts.units,
        "n": _sizes(counts.n[-1:])[0] if recorded else None,
        "dead": int(counts.dead[-1]) if recorded else None,
        "nan": int(counts.nan[-1]) if recorded else None,
        "dead_fraction": float(counts.dead[-1] / counts.known) if counts.known else None,
        "gap": finite(gap["accuracy_gap"]),
        "gap_margin": finite(gap["accuracy_gap_margin"]),
        "loss_gap": finite(gap["loss_gap"]),
        "loss_gap_margin": finite(gap["loss_gap_margin"]),
        "n_val": run.gap.n_val,
        "val_accuracy": finite(gap["val_accuracy"], scalars.get("val_accuracy")),
        "val_loss": finite(gap["val_loss"], scalars.get("val_loss")),
        "test_accuracy": finite(run.result.get("test_accuracy"), scalars.get("test_accuracy")),
        "verdict": {"level": level, "words": words if state in ("ok", "newer_format") else ""},
        "alarms": sum(finding.severity in ALARMS for finding in found),
        "findings": [asdict(finding) for finding in found],
    }


def run_payload(run: HealthRun) -> dict[str, Any]:
    """Everything the charts of one run need, except the maps of single units."""
    return {
        "run": run.name,
        "total": _counts(run.counts) if run.sites else None,
        "sites": [
            _site_header(site)
            | _counts(site.counts)
            | {"sparsity": _sparsity(site), "dead_units": _dead_units(site), "filters": _filters(site)}
            for site in run.sites
        ],
        "cannot_die": run.cannot_die,
        "unwatched": run.unwatched,
        "gap": _columns(run.gap) | {"n_train": run.gap.n_train, "n_val": run.gap.n_val},
        "update_ratio": _columns(run.update_ratio),
        "nonfinite": _columns(run.nonfinite),
        "nonfinite_gradients": _columns(run.nonfinite_gradients),
        "activation_scale": _columns(run.activation_scale) | {"n": _sizes(run.activation_scale.n)},
        "gradient_scale": _columns(run.gradient_scale) | {"n": _sizes(run.gradient_scale.n)},
        "class_accuracy": _columns(run.class_accuracy) | {"n": _sizes(run.class_accuracy.n)},
        "examples": _examples(run.examples),
    }


def units_payload(run: HealthRun, site: Site) -> dict[str, Any]:
    """The unit x epoch map of one site: ``activity`` has a row per entry of ``order`` and a column per epoch.

    A map above ``MOST_CELLS`` is thinned, in epochs first and then in units; ``note`` then says so.
    """
    order = order_by_death(site.activity)
    rows, units = _thinned(len(site.epochs), site.units)
    chosen = order[:units]
    notes = []
    if len(rows) < len(site.epochs):
        notes.append(f"{len(rows)} of {len(site.epochs)} epochs are drawn")
    if units < site.units:
        notes.append(f"{units} of {site.units} units are drawn, the dead and the quietest")
    deaths, revivals = transitions(site.activity)
    return _site_header(site) | {
        "run": run.name,
        "epochs": site.epochs[rows].tolist(),
        "n": _sizes(site.n[rows]),
        "order": chosen.tolist(),
        "activity": [numbers(site.activity[rows, unit]) for unit in chosen],
        "deaths": _pairs(deaths, site, chosen, rows),
        "revivals": _pairs(revivals, site, chosen, rows),
        "new_weights": _pairs(new_weights(site), site, chosen, rows),
        "note": ", ".join(notes),
    }


def new_weights(site: Site) -> np.ndarray:
    """(E, U) bool: the units that got new weights before an epoch, at those epochs that have a record of activity."""
    given = np.zeros_like(site.activity, dtype=bool)
    if site.revived is not None:
        _, ours, theirs = np.intersect1d(site.epochs, site.revived.epochs, return_indices=True)
        given[ours] = site.revived.units[theirs]
    return given


def numbers(values: np.ndarray) -> list[float | None]:
    """Six significant digits, so that a unit that fired at all never becomes dead; null for what is not finite."""
    with np.errstate(all="ignore"):
        scale = 10.0 ** (5 - np.floor(np.log10(np.abs(values))))
        rounded = np.round(values * scale) / scale
    rounded = np.where(np.isfinite(rounded), rounded, values)  # 0, and what is too small to be scaled
    return [value if math.isfinite(value) else None for value in rounded.tolist()]


def _thinned(epochs: int, units: int) -> tuple[np.ndarray, int]:
    """Rows (epochs) and the number of units that fit into ``MOST_CELLS``; the last epoch is always kept."""
    most_epochs = max(FEWEST_EPOCHS, MOST_CELLS // max(units, 1))
    rows = np.arange(epochs)
    if epochs > most_epochs:
        rows = np.unique(np.linspace(0, epochs - 1, most_epochs).round().astype(int))
    return rows, min(units, MOST_CELLS // max(len(rows), 1))


def _pairs(events: np.ndarray, site: Site, chosen: np.ndarray, rows: np.ndarray) -> list[list[int]]:
    """``[unit, epoch]`` of each event that is drawn."""
    hits = np.argwhere(events[np.ix_(rows, chosen)])
    return [[int(chosen[unit]), int(site.epochs[rows[row]])] for row, unit in hits]


def _site_header(site: Site) -> dict[str, Any]:
    names = ("index", "positions", "window", "activation", "first_layer", "rare_below")
    return {"site": site.name} | {name: getattr(site, name) for name in names}


def _sparsity(site: Site) -> list[float | None]:
    """Fraction of zero outputs per epoch, of the units whose output is a number."""
    known = np.isfinite(site.activity)
    fired = np.where(known, site.activity, 0).sum(axis=1)
    with np.errstate(invalid="ignore"):
        return numbers(1 - fired / known.sum(axis=1))


def _dead_units(site: Site) -> dict[str, Any]:
    """The units that are dead at the last record, a list per property; ``cause`` and ``depth`` where they are recorded.

    ``since``: the epoch, 0-based, from which on each was dead at every record; -1: from before the first step on;
    ``first``: that is the first record, so that it may have been dead before; ``revived``: how often it had come back.
    """
    rows = dead_since(site.activity)
    unit = np.flatnonzero(rows < len(site.epochs))
    died = site.died_in[unit]
    unknown = np.isnan(died)  # when it was first looked at it was dead already
    _, revivals = transitions(site.activity)
    recorded = site.causes is not None and len(site.causes.epochs) > 0
    depth = site.causes.field("depth")[-1, unit] if site.causes is not None and recorded else np.empty(0)
    return {
        "unit": unit.tolist(),
        "since": np.where(unknown, site.epochs[rows[unit]], died).astype(int).tolist(),
        "first": unknown.tolist(),
        "revived": revivals[:, unit].sum(axis=0).tolist(),
    } | ({"cause": [site.causes_now[i] for i in unit], "depth": numbers(depth)} if recorded else {})


def _filters(site: Site) -> dict[str, Any] | None:
    """Each filter as a picture, a byte per pixel: 128 is 0, and its ``largest`` weight is as far from it as can be."""
    if site.filters is None:
        return None
    rows = site.filters.weights.reshape(site.units, -1)
    with np.errstate(all="ignore"):
        largest = np.abs(rows).max(axis=1)
        pixels = np.clip(128 + np.nan_to_num(127 * rows / np.where(largest > 0, largest, 1)[:, None]), 0, 255)
    last = site.activity[-1] if len(site.activity) else np.full(site.units, np.nan)
    states = np.select([np.isnan(last), last == 0, last < site.rare_below], ["not a number", "dead", "rare"], "alive")
    return {
        "epoch": site.filters.epoch,
        "shape": site.filters.weights.shape[1:],
        "state": states.tolist(),
        "norm": numbers(np.sqrt(np.square(rows).sum(axis=1))),
        "largest": numbers(largest),
        "pixels": _base64(pixels.round().astype(np.uint8).tobytes()),
    }


def _examples(examples: Examples | None) -> dict[str, Any] | None:
    if examples is None:
        return None
    units = [
        {"site": one.site[:200], "unit": one.unit, "activity": finite(one.activity)}
        | {"values": numbers(np.array(one.values)), "pixels": _base64(one.pixels)}
        for one in examples.units
    ]
    return {"epoch": examples.epoch, "n": examples.n, "shape": examples.shape, "units": units}


def _base64(pixels: bytes) -> str:
    return base64.b64encode(pixels).decode()


def _counts(counts: Counts) -> dict[str, Any]:
    series = ("epochs", "dead", "rare", "nan", "deaths", "revivals")
    lists = {name: getattr(counts, name).tolist() for name in series}
    return {"units": counts.units, "n": _sizes(counts.n)} | lists


def _sizes(n: np.ndarray) -> list[int | None]:
    """Numbers of examples; null where unknown."""
    return [int(size) or None for size in n]


def _columns(part: Columns) -> dict[str, Any]:
    return {"epochs": part.epochs.tolist(), "columns": {name: numbers(column) for name, column in part.columns.items()}}


def _text(value: object) -> str:
    return str(value)[:200] if isinstance(value, str | int | float) else ""


def finite(*values: object) -> float | None:
    """The first of the values that is a finite number."""
    return next((float(v) for v in values if isinstance(v, int | float) and abs(v) <= LARGEST), None)
