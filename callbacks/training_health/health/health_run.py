"""One run's monitors, read into typed parts: sites, gap, weight movement, what the run says about itself."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from training_health.log_format import (
    Datum,
    NewerFormatError,
    Series,
    UnreadableError,
    parse_content,
    read_series,
    read_text,
)

GAP_COLUMNS = (
    "running_accuracy",
    "train_eval_accuracy",
    "val_accuracy",
    "accuracy_gap",
    "accuracy_gap_se",
    "mode_effect",
    "running_loss",
    "train_eval_loss",
    "val_loss",
    "loss_gap",
    "loss_gap_se",
)
MOST_UNITS = 10_000_000  # of one site: beyond any layer, and still an array that fits
RARE_BELOW = 0.01  # activity under which a unit that fires counts as rare, where a log doesn't say


@dataclass(frozen=True)
class Site:
    """One ReLU call and the activity of its units.

    Attributes:
        activity: (E, U) share of (image, position) pairs with output > 0; exactly 0 is dead; NaN is unknown.
    """

    name: str
    index: int
    units: int
    positions: int
    window: str
    activation: str
    first_layer: bool
    rare_below: float
    epochs: np.ndarray
    n: np.ndarray
    activity: np.ndarray


@dataclass(frozen=True)
class Gap:
    """Columns over epochs, each (E,) and NaN where unknown; every name in ``GAP_COLUMNS`` is there."""

    epochs: np.ndarray
    columns: dict[str, np.ndarray]
    n_train: int | None
    n_val: int | None
    se_method: str


@dataclass(frozen=True)
class Parameters:
    """One number per parameter tensor and epoch: ``values`` is (E, P)."""

    names: list[str]
    epochs: np.ndarray
    values: np.ndarray


@dataclass
class HealthRun:
    """Everything the tab knows about one run; parts that were not logged are empty or None."""

    name: str
    sites: list[Site] = field(default_factory=list)
    gap: Gap | None = None
    update_ratio: Parameters | None = None
    nonfinite: Parameters | None = None
    nonfinite_gradients: Parameters | None = None
    cannot_die: list[dict[str, str]] = field(default_factory=list)
    unwatched: list[dict[str, str]] = field(default_factory=list)
    info: dict[str, Any] = field(default_factory=dict)
    result: dict[str, Any] = field(default_factory=dict)
    last_step: int = -1
    refused: str = ""
    problems: list[str] = field(default_factory=list)

    @property
    def last_epoch(self) -> int | None:
        """Latest epoch of any record, 0-based."""
        lasts = [int(part.epochs[-1]) for part in self._parts() if len(part.epochs)]
        return max(lasts, default=None)

    def _parts(self) -> list[Site | Gap | Parameters]:
        optional = [self.gap, self.update_ratio, self.nonfinite, self.nonfinite_gradients]
        return [*self.sites, *(part for part in optional if part is not None)]


def read_run(name: str, contents: Mapping[str, bytes], data: Mapping[str, Sequence[Datum]]) -> HealthRun:
    """Builds a run from its tags.

    Args:
        name: The run's name.
        contents: Metadata per tag.
        data: Records per tag; a tag may be missing.

    Returns:
        The run. If any tag is of a newer format, nothing but ``refused`` is set. Tags that can't be read are named in
        ``problems``; kinds that this version doesn't know are ignored.
    """
    run = HealthRun(name)
    for tag in sorted(contents):
        try:
            content = parse_content(contents[tag])
            _read_tag(run, content, data.get(tag, ()))
        except NewerFormatError as error:
            return HealthRun(name, refused=str(error))
        except UnreadableError as error:
            run.problems.append(f"{tag} can't be shown: {error}.")
    # loaders hand out tags in any order; forward order is in the metadata
    run.sites.sort(key=lambda site: (site.index, site.name))
    return run


def _read_tag(run: HealthRun, content: dict[str, Any], data: Sequence[Datum]) -> None:
    match content["kind"]:
        case "activity":
            series = read_series(content, data, _integer(content, "units", most=MOST_UNITS))
            run.sites.append(_site(series))
            run.last_step = max(run.last_step, series.last_step)
        case "gap":
            columns = _names(content, "columns")
            series = read_series(content, data, len(columns))
            run.gap = _gap(series, columns)
            run.last_step = max(run.last_step, series.last_step)
        case "update_ratio" | "nonfinite" | "nonfinite_gradients" as kind:
            names = _names(content, "parameters")
            series = read_series(content, data, len(names))
            setattr(run, kind, Parameters(names, series.epochs, series.values))
            run.last_step = max(run.last_step, series.last_step)
        case "cannot_die":
            run.cannot_die = _dicts_of_text(content.get("sites"))
            run.unwatched = _dicts_of_text(content.get("unwatched"))
        case "run":
            run.info = read_text(data)
        case "result":
            run.result = read_text(data)


def _site(series: Series) -> Site:
    content = series.content
    rare_below = content.get("rare_below", RARE_BELOW)
    if not series.values.shape[1]:
        raise UnreadableError("its site has no units")
    return Site(
        name=_text(content, "site"),
        index=_integer(content, "index"),
        units=series.values.shape[1],
        positions=_integer(content, "positions", 1),
        window=str(content.get("window", "unknown")),
        activation=str(content.get("activation", "relu")),
        first_layer=content.get("first_layer") is True,
        rare_below=float(rare_below) if isinstance(rare_below, float) and 0 <= rare_below <= 1 else RARE_BELOW,
        epochs=series.epochs,
        n=series.n,
        activity=np.where((series.values >= 0) & (series.values <= 1), series.values, np.nan),
    )


def _gap(series: Series, columns: list[str]) -> Gap:
    unknown = np.full(len(series.epochs), np.nan)
    return Gap(
        epochs=series.epochs,
        columns={c: series.values[:, columns.index(c)] if c in columns else unknown for c in GAP_COLUMNS},
        n_train=_integer(series.content, "n_train", 0) or None,
        n_val=_integer(series.content, "n_val", 0) or None,
        se_method=str(series.content.get("se_method", "")),
    )


def _integer(content: dict[str, Any], key: str, default: int | None = None, most: int = 2**53) -> int:
    value = content.get(key, default)
    if type(value) is not int or not 0 <= value <= most:
        raise UnreadableError(f"{key!r} in its metadata is not a whole number")
    return value


def _text(content: dict[str, Any], key: str) -> str:
    value = content.get(key)
    if not isinstance(value, str) or not value:
        raise UnreadableError(f"{key!r} in its metadata is not a name")
    return value


def _names(content: dict[str, Any], key: str) -> list[str]:
    value = content.get(key)
    if not isinstance(value, list) or not all(isinstance(name, str) for name in value):
        raise UnreadableError(f"{key!r} in its metadata is not a list of names")
    return value


def _dicts_of_text(value: object) -> list[dict[str, str]]:
    entries = value if isinstance(value, list) else []
    return [{str(k): str(v) for k, v in entry.items()} for entry in entries if isinstance(entry, dict)]
