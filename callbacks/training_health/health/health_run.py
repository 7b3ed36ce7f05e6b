"""One run's monitors, read into typed parts: sites, gap, weight movement, what the run says about itself."""

import base64
import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property, reduce
from itertools import groupby, pairwise
from operator import itemgetter
from typing import Any, TypeVar

import numpy as np

from training_health.health.unit_life import Counts, count_units, died_in
from training_health.log_format import (
    MOST_EPOCHS,
    MOST_FILTERS,
    MOST_SAMPLES,
    MOST_SIDE,
    Datum,
    NewerFormatError,
    Series,
    UnreadableError,
    drop_superseded,
    parse_content,
    read_series,
    read_text,
)

ACCURACIES = ("running_accuracy", "train_eval_accuracy", "val_accuracy", "accuracy_gap", "accuracy_gap_se")
LOSSES = ("running_loss", "train_eval_loss", "val_loss", "loss_gap", "loss_gap_se")
GAP_COLUMNS = (*ACCURACIES, "mode_effect", *LOSSES)
MOST_UNITS = 10_000_000  # of one site: beyond any layer, and still an array that fits
MOST_FIELDS = 1_000  # of a unit's cause
MOST_PICTURED = 100  # units whose examples are shown
RARE_BELOW = 0.01  # activity under which a unit that fires counts as rare, where a log doesn't say


@dataclass(frozen=True)
class Causes:
    """Why the units of a site are dead, and the numbers that decided, over epochs.

    Attributes:
        epochs: (E,), 0-based.
        names: Causes by code.
        fields: Each (E, U), by the names in the record, such as `log_format.CAUSE_FIELDS`; NaN where unknown. "cause"
            is among them, a code, NaN for a unit that fired.
    """

    epochs: np.ndarray
    names: tuple[str, ...]
    fields: dict[str, np.ndarray]

    def at(self, row: int) -> list[str]:
        """The cause of each unit at one record; empty for a unit that fired."""
        codes = self.fields["cause"][row]
        return [self.names[int(code)] if 0 <= code < len(self.names) else "" for code in codes]

    def field(self, name: str) -> np.ndarray:
        """One of the fields, (E, U); NaN everywhere if the record has it not."""
        return self.fields.get(name, np.full_like(self.fields["cause"], np.nan))


@dataclass(frozen=True)
class Start:
    """The activity of each unit before the first step, (U,), and the examples that it was measured on; 0: unknown."""

    activity: np.ndarray
    n: int


@dataclass(frozen=True)
class Revived:
    """Which units of a site got new weights before an epoch.

    Attributes:
        epochs: (E,), 0-based: the epochs that began so, or could have.
        units: (E, U) bool.
    """

    epochs: np.ndarray
    units: np.ndarray


@dataclass(frozen=True)
class Filters:
    """The weights of a first layer, (U, C, H, W), and the epoch, 0-based, at whose end they were."""

    weights: np.ndarray
    epoch: int


@dataclass(frozen=True)
class Examples:
    """The examples on which some units fire most.

    Attributes:
        epoch: 0-based.
        n: The examples of the window; None where unknown.
        shape: (C, H, W) of each.
        units: What is known of each.
    """

    epoch: int
    n: int | None
    shape: tuple[int, int, int]
    units: list["PicturedUnit"]


@dataclass(frozen=True)
class PicturedUnit:
    """A unit, its activity, and the pre-activation on each example with a byte for each of the example's pixels."""

    site: str
    unit: int
    activity: float
    values: list[float]
    pixels: bytes


@dataclass(frozen=True)
class Site:
    """One ReLU call and the activity of its units.

    Attributes:
        activity: (E, U) fraction of (example, position) pairs with output > 0; exactly 0 is dead; NaN: not a number.
        epochs: (E,), 0-based.
        n: (E,), the examples that each epoch's activity was measured on; 0 where unknown.
        causes: Why its units are dead; None in a log without such records.
        start: Its units before the first step; None where that was not measured.
        revived: Which units got new weights; None where nothing did that.
        filters: Its units' weights, where they are pictures and recorded.
    """

    name: str
    activity: np.ndarray
    epochs: np.ndarray
    n: np.ndarray
    index: int = 0
    positions: int = 1
    window: str = "unknown"
    activation: str = "relu"
    first_layer: bool = False
    rare_below: float = RARE_BELOW
    causes: Causes | None = None
    start: Start | None = None
    revived: Revived | None = None
    filters: Filters | None = None

    @cached_property
    def counts(self) -> Counts:
        """Dead and rare units, deaths and revivals per epoch."""
        return count_units(self.epochs, self.n, self.activity, self.rare_below)

    @property
    def units(self) -> int:
        """Number of units."""
        return self.activity.shape[1]

    @property
    def dead_now(self) -> int:
        """Units that are dead at the last record; 0 without records."""
        return int(self.counts.dead[-1]) if len(self.epochs) else 0

    @cached_property
    def causes_now(self) -> list[str]:
        """The cause of each unit at the last record; empty for one that fired, "unknown" where none is recorded."""
        if not len(self.epochs):
            return [""] * self.units
        known = self.causes is not None and len(self.causes.epochs) and self.causes.epochs[-1] == self.epochs[-1]
        names = self.causes.at(-1) if self.causes is not None and known else [""] * self.units
        dead = self.activity[-1] == 0
        return [name or ("unknown" if is_dead else "") for name, is_dead in zip(names, dead, strict=True)]

    @cached_property
    def died_in(self) -> np.ndarray:
        """As `unit_life.died_in`, (U,)."""
        return died_in(self.epochs, self.activity, None if self.start is None else self.start.activity)


@dataclass(frozen=True)
class Columns:
    """Named numbers over epochs: each column is (E,), as ``epochs`` is; NaN where unknown. ``n``: see `Series`."""

    epochs: np.ndarray = field(default_factory=lambda: np.empty(0, np.int64))
    columns: dict[str, np.ndarray] = field(default_factory=dict)
    n: np.ndarray = field(default_factory=lambda: np.empty(0, np.int64), kw_only=True)


@dataclass(frozen=True)
class Gap(Columns):
    """Both sides' accuracy and loss, and how many examples they were measured on; all ``GAP_COLUMNS`` are there."""

    columns: dict[str, np.ndarray] = field(default_factory=lambda: dict.fromkeys(GAP_COLUMNS, np.empty(0)))
    n_train: int | None = None
    n_val: int | None = None
    metrics: dict[str, object] = field(default_factory=dict)  # what val_accuracy and val_loss are called, if known
    in_eval_mode: bool = True  # else both sides were measured in the mode of validation, which is another

    def __post_init__(self) -> None:
        """Add half of the 95 % bands, ``*_gap_margin``, where the log has none: two standard errors."""
        for metric in ("accuracy", "loss"):
            self.columns.setdefault(f"{metric}_gap_margin", 2 * self.columns[f"{metric}_gap_se"])

    @property
    def last(self) -> dict[str, float]:
        """The last record; NaN without one."""
        return {name: float(column[-1]) if len(column) else np.nan for name, column in self.columns.items()}

    def metric(self, column: str, words: str) -> str:
        """The name of a metric in the run's own logs, as code; ``words`` where the record doesn't have it."""
        name = self.metrics.get(column)
        return f"`{name[:200]}`" if name and isinstance(name, str) else words


@dataclass
class HealthRun:
    """Everything the tab knows about one run; parts that were not logged are empty."""

    name: str
    sites: list[Site] = field(default_factory=list)
    gap: Gap = field(default_factory=Gap)
    update_ratio: Columns = field(default_factory=Columns)
    nonfinite: Columns = field(default_factory=Columns)
    nonfinite_gradients: Columns = field(default_factory=Columns)
    cannot_die: list[dict[str, str]] = field(default_factory=list)
    unwatched: list[dict[str, str]] = field(default_factory=list)
    info: dict[str, Any] = field(default_factory=dict)
    result: dict[str, Any] = field(default_factory=dict)
    newer_format: str = ""
    problems: list[str] = field(default_factory=list)
    replaced: list[str] = field(default_factory=list)  # what an earlier run in the same folder wrote, in words
    activation_scale: Columns = field(default_factory=Columns)  # by site
    gradient_scale: Columns = field(default_factory=Columns)  # by parameter
    class_accuracy: Columns = field(default_factory=Columns)
    examples: Examples | None = None
    history: bool = True  # False for a model that was looked at once, of whose epochs nothing is known

    @cached_property
    def counts(self) -> Counts:
        """Counts over all sites, at the epochs that every site has.

        A run that is writing, or was killed while it wrote, has an epoch for some sites only: that epoch is left out.
        """
        if not self.sites:
            return count_units(np.empty(0, np.int64), np.empty(0, np.int64), np.empty((0, 0)), RARE_BELOW)
        epochs = self.sites[0].epochs
        if all(np.array_equal(site.epochs, epochs) for site in self.sites):
            parts = [site.counts for site in self.sites]
        else:
            epochs = reduce(np.intersect1d, [site.epochs for site in self.sites])
            kept = [np.isin(site.epochs, epochs) for site in self.sites]
            parts = [
                count_units(epochs, site.n[rows], site.activity[rows], site.rare_below)
                for site, rows in zip(self.sites, kept, strict=True)
            ]
        states = zip(*((part.dead, part.rare, part.nan, part.deaths, part.revivals) for part in parts), strict=True)
        n = np.min([part.n for part in parts], axis=0)
        return Counts(epochs, n, sum(part.units for part in parts), *(np.sum(state, axis=0) for state in states))

    def dated(self, words: str, epoch: int) -> str:
        """``words`` with the epoch's number behind them; nothing for a model without a history."""
        return f"{words} {epoch + 1}" if self.history else ""

    def supplied(self, part: str, key: str) -> object:
        """What the run's own record says of ``key`` under "advice" or "limits"; None if nothing."""
        mapping = self.info.get(part)
        return mapping.get(key) if isinstance(mapping, dict) else None

    @property
    def last_epoch(self) -> int | None:
        """Latest epoch of any record, 0-based."""
        kinds = (self.gap, self.update_ratio, self.nonfinite, self.nonfinite_gradients)
        epochs = [part.epochs for parts in (self.sites, kinds) for part in parts]
        return max((int(known[-1]) for known in epochs if len(known)), default=None)


def read_run(
    name: str,
    contents: Mapping[str, bytes],
    data: Mapping[str, Sequence[Datum]],
    later: Mapping[str, bytes] | None = None,
    *,
    again: bool = False,
) -> HealthRun:
    """Builds a run from the metadata per tag and the records per tag, which may lack some.

    ``later`` are the newest metadata of tags that were described more than once, and ``again`` says that another run
    in the folder began with epoch 1.

    If any tag is of a newer format, nothing but ``newer_format`` is set. Tags that can't be read are named in
    ``problems``; kinds that this version doesn't know are ignored.
    """
    run = HealthRun(name)
    if again:
        run.replaced.append("epoch 1 was recorded again, by a fit that resumed from no checkpoint")
    current, parts = _of_the_last_run(data), _SiteParts()
    for tag in sorted(contents):
        try:
            first = parse_content(contents[tag])
            content = parse_content(later[tag]) if later and tag in later else first
            if data.get(tag) and not current[tag]:
                if content["kind"] == "activity":
                    run.replaced.append(f"{content.get('site')} is not in the later one")
                continue
            if content["kind"] == "activity" and content.get("units") != first.get("units"):
                run.replaced.append(_other_units(content.get("site"), content.get("units"), first.get("units")))
            _read_tag(run, content, current.get(tag, ()), parts)
        except NewerFormatError as error:
            return HealthRun(name, newer_format=str(error))
        except UnreadableError as error:
            run.problems.append(f"{tag} can't be shown: {error}.")
    run.sites = [
        replace(
            site,
            causes=_fitting(parts.causes, site, run),
            start=_fitting(parts.start, site, run),
            revived=_fitting(parts.revived, site, run),
            filters=_fitting(parts.filters, site, run),
        )
        for site in run.sites
    ]
    # loaders hand out tags in any order; forward order is in the metadata
    run.sites.sort(key=lambda site: (site.index, site.name))
    run.history = not run.sites or any(site.window != "given" for site in run.sites)  # as `inspect` writes
    return run


def _of_the_last_run(data: Mapping[str, Sequence[Datum]]) -> dict[str, Sequence[Datum]]:
    """The records without those of an earlier run in the same folder, in tags that the later run did not write again.

    Within a run the epochs never fall. Where they do, a later run began or one was resumed, and what was written before
    of that epoch or later ones no longer holds. That needs the records' times: where a tag's own order shows that the
    clock was set back, all are kept.
    """
    if any(later.wall_time < one.wall_time for records in data.values() for one, later in pairwise(records)):
        return dict(data)
    written = [(datum.wall_time, _epoch_of(tag, datum), tag, i) for tag in data for i, datum in enumerate(data[tag])]
    by_epoch = groupby(sorted(record for record in written if record[1] >= 0), itemgetter(1))
    current = drop_superseded([(epoch, list(records)) for epoch, records in by_epoch], itemgetter(0))
    kept = {record[2:] for _, records in current for record in records}
    superseded = {record[2:] for record in written if record[1] >= 0} - kept
    return {tag: [datum for i, datum in enumerate(data[tag]) if (tag, i) not in superseded] for tag in data}


def _epoch_of(tag: str, datum: Datum) -> int:
    """A record's epoch: the last possible one for a result, which ends a run; -1 for what holds whatever came later."""
    vector = datum.numpy
    numeric = vector.dtype.kind in "fiu" and vector.ndim == 1 and len(vector) > 0
    if numeric and 0 <= vector[0] < MOST_EPOCHS:
        return int(vector[0])
    return MOST_EPOCHS if tag.endswith("/result") else -1


@dataclass
class _SiteParts:
    """What is read of a site besides its activity, by its name."""

    causes: dict[str, Causes] = field(default_factory=dict)
    start: dict[str, Start] = field(default_factory=dict)
    revived: dict[str, Revived] = field(default_factory=dict)
    filters: dict[str, Filters] = field(default_factory=dict)


P = TypeVar("P", Causes, Start, Revived, Filters)
# What a part's records say of units, in words, and an array whose last dimension is the units.
_VALUES_OF_UNITS: dict[type, tuple[str, Callable[[Any], np.ndarray]]] = {
    Causes: ("of why they died", lambda part: part.field("cause")),
    Start: ("of the start", lambda part: part.activity),
    Revived: ("of which got new weights", lambda part: part.units),
    Filters: ("of their weights", lambda part: part.weights.T),
}


def _fitting(parts: dict[str, P], site: Site, run: HealthRun) -> P | None:
    """The part that belongs to a site; one of another number of units is an earlier run's, or damaged."""
    part = parts.get(site.name)
    if part is None:
        return None
    what, values = _VALUES_OF_UNITS[type(part)]
    if (units := values(part).shape[-1]) != site.units:
        run.problems.append(f"{site.name} has {site.units} units, and records {what} have {units}.")
        return None
    return part


def _other_units(site: object, now: object, first: object) -> str:
    return f"{site} has {now} units, and {first} in its first record"


def _read_tag(run: HealthRun, content: dict[str, Any], data: Sequence[Datum], parts: _SiteParts) -> None:
    match content["kind"]:
        case "activity":
            units = _whole(content, "units", most=MOST_UNITS)
            series = read_series(data, units)
            now = series.values.shape[1]
            if now != units:  # the metadata is an earlier run's
                run.replaced.append(_other_units(content.get("site"), now, units))
                content = {key: value for key, value in content.items() if key in ("site", "index")}
            run.sites.append(_site(content, series))
        case "start":
            series = read_series(data, _whole(content, "units", most=MOST_UNITS))
            if len(series.epochs):
                parts.start[_name(content)] = Start(_activity(series)[-1], int(series.n[-1]))
        case "cause":
            parts.causes[_name(content)] = _causes(content, data)
        case "revived":
            series = read_series(data, _whole(content, "units", most=MOST_UNITS))
            parts.revived[_name(content)] = Revived(series.epochs, series.values == 1)
        case "filters":
            parts.filters[_name(content)] = _filters(content, data)
        case "examples":
            run.examples = _examples(read_text(data))
        case "activation_scale":
            run.activation_scale = _columns(content, "sites", data)
        case "class_accuracy":
            run.class_accuracy = _columns(content, "classes", data)
        case "gap":
            gap = _columns(content, "columns", data)
            unknown = np.full(len(gap.epochs), np.nan)
            columns = {name: gap.columns.get(name, unknown) for name in GAP_COLUMNS}
            columns |= {name: column for name, column in gap.columns.items() if name.endswith("_gap_margin")}
            sides = (content.get("n_train"), content.get("n_val"))
            n_train, n_val = (n if type(n) is int and 0 < n < MOST_SAMPLES else None for n in sides)
            metrics = content.get("metrics")
            metrics = metrics if isinstance(metrics, dict) else {}
            run.gap = Gap(gap.epochs, columns, n_train, n_val, metrics, "mode" not in content)
        case "update_ratio" | "nonfinite" | "nonfinite_gradients" | "gradient_scale" as kind:
            setattr(run, kind, _columns(content, "parameters", data))
        case "cannot_die":
            run.cannot_die = _dicts_of_text(content.get("sites"))
            run.unwatched = _dicts_of_text(content.get("unwatched"))
        case "run":
            run.info = read_text(data)
        case "result":
            run.result = read_text(data)


def _name(content: dict[str, Any]) -> str:
    name = content.get("site")
    if not isinstance(name, str) or not name:
        raise UnreadableError("its site has no name")
    return name


def _activity(series: Series) -> np.ndarray:
    return np.where((series.values >= 0) & (series.values <= 1), series.values, np.nan)


def _causes(content: dict[str, Any], data: Sequence[Datum]) -> Causes:
    fields, names, units = content.get("fields"), content.get("causes"), _whole(content, "units", most=MOST_UNITS)
    for listed in (fields, names):
        if not isinstance(listed, list) or not all(isinstance(name, str) for name in listed):
            raise UnreadableError("'fields' and 'causes' in its metadata are not lists of names")
    assert isinstance(fields, list)
    assert isinstance(names, list)
    if "cause" not in fields or len(fields) > MOST_FIELDS:
        raise UnreadableError("'fields' in its metadata does not hold 'cause', or too many names")
    series = read_series(data, len(fields) * units)
    if series.values.shape[1] != len(fields) * units:
        raise UnreadableError(f"it has {series.values.shape[1]} numbers, not {len(fields)} for each of {units} units")
    rows = series.values.reshape(len(series.epochs), len(fields), units)
    return Causes(series.epochs, tuple(names), {name: rows[:, i] for i, name in enumerate(fields)})


def _filters(content: dict[str, Any], data: Sequence[Datum]) -> Filters:
    shape = _sizes(content.get("shape"), 4)
    series = read_series(data, math.prod(shape))
    if series.values.shape != (len(series.epochs), math.prod(shape)) or not len(series.epochs):
        raise UnreadableError(f"its numbers are not weights of the shape {shape}")
    return Filters(series.values[-1].reshape(shape), int(series.epochs[-1]))


def _examples(value: dict[str, Any]) -> Examples:
    shape, n = _sizes(value.get("shape"), 3), value.get("n")
    units, listed = [], value.get("units")
    for one in listed[:MOST_PICTURED] if isinstance(listed, list) else []:
        try:
            values, pixels = [float(v) for v in one["values"]], base64.b64decode(one["pixels"], validate=True)
            unit = PicturedUnit(str(one["site"]), int(one["unit"]), float(one["activity"]), values, pixels)
        except (KeyError, TypeError, ValueError, OverflowError) as error:
            raise UnreadableError("a unit in it is not described by site, unit, activity, values and pixels") from error
        if len(pixels) != len(values) * math.prod(shape):
            raise UnreadableError(f"it has {len(pixels)} pixels for {len(values)} examples of the shape {shape}")
        units.append(unit)
    examples = int(n) if isinstance(n, int | float) and 0 < n < MOST_SAMPLES else None
    return Examples(_whole(value, "epoch", most=MOST_EPOCHS), examples, (shape[0], shape[1], shape[2]), units)


def _sizes(value: object, count: int) -> list[int]:
    """The sizes of a picture's dimensions."""
    listed = value if isinstance(value, list) else []
    if len(listed) != count or not all(type(size) is int and 0 < size <= MOST_FILTERS for size in listed):
        raise UnreadableError(f"its shape is not {count} sizes")
    if listed[-3] not in (1, 3) or max(listed[-2:]) > MOST_SIDE:
        raise UnreadableError(f"its pictures are not of 1 or 3 channels, or have a side above {MOST_SIDE}")
    return listed


def _site(content: dict[str, Any], series: Series) -> Site:
    rare_below = content.get("rare_below")
    if not series.values.shape[1]:
        raise UnreadableError("its site has no units")
    return Site(
        name=_name(content),
        activity=_activity(series),
        epochs=series.epochs,
        n=series.n,
        index=_whole(content, "index"),
        positions=_whole(content, "positions", 1),
        window=str(content.get("window", "unknown")),
        activation=str(content.get("activation", "relu")),
        first_layer=content.get("first_layer") is True,
        rare_below=rare_below if isinstance(rare_below, float) and 0 <= rare_below <= 1 else RARE_BELOW,
    )


def _whole(content: dict[str, Any], key: str, default: int | None = None, most: int = 2**53) -> int:
    value = content.get(key, default)
    if type(value) is not int or not 0 <= value <= most:
        raise UnreadableError(f"{key!r} in its metadata is not a whole number")
    return value


def _columns(content: dict[str, Any], key: str, data: Sequence[Datum]) -> Columns:
    names = content.get(key)
    if not isinstance(names, list) or not all(isinstance(name, str) for name in names):
        raise UnreadableError(f"{key!r} in its metadata is not a list of names")
    series = read_series(data, len(names))
    if series.values.shape[1] != len(names):
        raise UnreadableError(f"it has {series.values.shape[1]} columns, and {len(names)} in its first record")
    return Columns(series.epochs, dict(zip(names, series.values.T, strict=True)), n=series.n)


def _dicts_of_text(value: object) -> list[dict[str, str]]:
    entries = value if isinstance(value, list) else []
    return [{str(k): str(v) for k, v in entry.items()} for entry in entries if isinstance(entry, dict)]
