"""Reads runs through TensorBoard's data provider: the only way that works under both of its loaders."""

import re
import threading
from collections import OrderedDict
from typing import Any

from tensorboard import errors
from tensorboard.context import RequestContext
from tensorboard.data.provider import DataProvider, RunTagFilter

from training_health.health.findings import find_all
from training_health.health.health_run import HealthRun, read_run
from training_health.log_format import PLUGIN_NAME
from training_health.tab.payloads import overview_row

ALL_RECORDS = 2**31 - 1  # read_tensors samples down to this many; 0 would mean none at all
MOST_RUNS = 300  # in one overview: the newest ones
ROWS_KEPT = 1000
RUNS_KEPT = 16
SCALAR_TAGS = ("val/accuracy", "test/accuracy")


class LeastRecentlyUsed:
    """A dictionary of a fixed size that is safe to use from several request threads."""

    def __init__(self, size: int) -> None:
        self._size, self._items, self._lock = size, OrderedDict[Any, Any](), threading.Lock()

    def get(self, key: object) -> Any:  # noqa: ANN401
        """The value, or None."""
        with self._lock:
            if key in self._items:
                self._items.move_to_end(key)
            return self._items.get(key)

    def put(self, key: object, value: object) -> None:
        """Adds the value and forgets the one that was not used for longest."""
        with self._lock:
            self._items[key] = value
            self._items.move_to_end(key)
            while len(self._items) > self._size:
                self._items.popitem(last=False)


class HealthData:
    """Runs and their overview. What was read is kept until the log has grown.

    Args:
        provider: TensorBoard's data provider.
    """

    def __init__(self, provider: DataProvider) -> None:
        self._provider = provider
        self._runs = LeastRecentlyUsed(RUNS_KEPT)
        self._rows = LeastRecentlyUsed(ROWS_KEPT)

    def overview(self, ctx: RequestContext, experiment_id: str) -> dict[str, Any]:
        """One row per run in natural order, findings included; runs without monitors are rows too.

        Returns:
            ``{"runs": [row], "left_out": number of older runs beyond ``MOST_RUNS``}``.
        """
        listed = self._provider.list_runs(ctx, experiment_id=experiment_id)
        newest = sorted(listed, key=lambda run: (run.start_time or 0.0, run.run_name), reverse=True)[:MOST_RUNS]
        names = sorted((run.run_name for run in newest), key=natural_key)
        series = self._provider.list_tensors(ctx, experiment_id=experiment_id, plugin_name=PLUGIN_NAME)
        scalars = self._last_scalars(ctx, experiment_id, names)
        rows = []
        for name in names:
            revision = _revision(series.get(name, {}))
            key, extra = (experiment_id, name), scalars.get(name, {})
            kept = self._rows.get(key)
            if kept is None or kept[0] != (revision, extra):
                run = self._read(ctx, experiment_id, name, series.get(name, {}))
                kept = ((revision, extra), overview_row(run, find_all(run), revision, extra))
                self._rows.put(key, kept)
            rows.append(kept[1])
        return {"runs": rows, "left_out": len(listed) - len(newest)}

    def run(self, ctx: RequestContext, experiment_id: str, name: str) -> HealthRun:
        """One run.

        Raises:
            errors.NotFoundError: if no run of that name has the monitors' records.
        """
        only = RunTagFilter(runs=[name])
        series = self._provider.list_tensors(
            ctx, experiment_id=experiment_id, plugin_name=PLUGIN_NAME, run_tag_filter=only
        )
        if name not in series:
            raise errors.NotFoundError(f"No run named {name[:200]!r} has records of the training-health monitors.")
        return self._read(ctx, experiment_id, name, series[name])

    def _read(self, ctx: RequestContext, experiment_id: str, name: str, tags: dict[str, Any]) -> HealthRun:
        if not tags:
            return HealthRun(name)
        key, revision = (experiment_id, name), _revision(tags)
        kept = self._runs.get(key)
        if kept is not None and kept[0] == revision:
            return kept[1]
        data = self._provider.read_tensors(
            ctx,
            experiment_id=experiment_id,
            plugin_name=PLUGIN_NAME,
            downsample=ALL_RECORDS,
            run_tag_filter=RunTagFilter(runs=[name]),
        )
        run = read_run(name, {tag: series.plugin_content for tag, series in tags.items()}, data.get(name, {}))
        self._runs.put(key, (revision, run))
        return run

    def _last_scalars(self, ctx: RequestContext, experiment_id: str, names: list[str]) -> dict[str, dict[str, float]]:
        """Last value of the few ordinary scalars that complete the overview, per run and tag."""
        read = self._provider.read_scalars(
            ctx,
            experiment_id=experiment_id,
            plugin_name="scalars",
            downsample=1,
            run_tag_filter=RunTagFilter(runs=names, tags=SCALAR_TAGS),
        )
        return {run: {tag: float(data[-1].value) for tag, data in tags.items() if data} for run, tags in read.items()}


def natural_key(name: str) -> list[tuple[int, str]]:
    """Sorts ``version_10`` after ``version_9``."""
    return [(int(part), "") if part.isdecimal() else (-1, part) for part in re.split(r"(\d+)", name) if part]


def _revision(tags: dict[str, Any]) -> str:
    """Changes whenever a tag got a record: what was read under one revision need not be read again."""
    newest = max((series.max_wall_time for series in tags.values()), default=0.0)
    return f"{len(tags)}.{sum(series.max_step + 1 for series in tags.values())}.{newest:.6f}"
