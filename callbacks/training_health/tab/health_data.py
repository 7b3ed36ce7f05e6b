"""Reads runs through TensorBoard's data provider: the only way that works under both of its loaders."""

import functools
import hashlib
import re
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
NO_RECORDS = ""  # the revision of a run without monitors
METRICS = {"acc": "accuracy", "accuracy": "accuracy", "loss": "loss"}  # by the usual names, for runs without monitors
METRIC_OF_TAG = {
    f"{side}{sep}{name}": f"{side}_{METRICS[name]}" for side in ("val", "test") for sep in "_/" for name in METRICS
}


class HealthData:
    """Runs and their overview. What was read is kept until the log has grown."""

    def __init__(self, provider: DataProvider) -> None:
        self._provider = provider
        # a run's revision is an argument of both, so a log that has grown is read again
        self._read = functools.lru_cache(RUNS_KEPT)(self._read_uncached)
        self._row = functools.lru_cache(ROWS_KEPT)(self._row_uncached)

    def overview(self, ctx: RequestContext, experiment_id: str) -> dict[str, Any]:
        """One row per run in natural order, findings included; runs without monitors are rows too.

        The result is ``{"runs": [row], "left_out": number of older runs beyond ``MOST_RUNS``}``.
        """
        listed = self._provider.list_runs(ctx, experiment_id=experiment_id)
        newest = sorted(listed, key=lambda run: (run.start_time or 0.0, run.run_name), reverse=True)[:MOST_RUNS]
        names = sorted((run.run_name for run in newest), key=natural_key)
        series = self._provider.list_tensors(ctx, experiment_id=experiment_id, plugin_name=PLUGIN_NAME)
        scalars = self._provider.read_scalars(
            ctx,
            experiment_id=experiment_id,
            plugin_name="scalars",
            downsample=1,
            run_tag_filter=RunTagFilter(runs=names, tags=METRIC_OF_TAG),
        )
        rows = []
        for name in names:
            logged = sorted(scalars.get(name, {}).items())  # where several are logged, the last in this order counts
            last = ((METRIC_OF_TAG[tag], float(data[-1].value)) for tag, data in logged if data)
            rows.append(self._row(experiment_id, name, _revision(series.get(name, {})), tuple(last)))
        return {"runs": rows, "left_out": len(listed) - len(newest)}

    def folder_key(self, ctx: RequestContext, experiment_id: str) -> str:
        """Tells log folders apart without naming them."""
        location = self._provider.experiment_metadata(ctx, experiment_id=experiment_id).data_location
        return hashlib.sha256(location.encode()).hexdigest()[:12]

    def run(self, ctx: RequestContext, experiment_id: str, name: str) -> HealthRun:
        """The run of that name; an error that TensorBoard answers with 404 if it has none of the monitors' records."""
        tags = self._tags(ctx, experiment_id, name)
        if not tags:
            raise errors.NotFoundError(f"No run named {name[:200]!r} has records of the training-health monitors.")
        return self._read(experiment_id, name, _revision(tags))[0]

    def _row_uncached(
        self, experiment_id: str, name: str, revision: str, scalars: tuple[tuple[str, float], ...]
    ) -> dict[str, Any]:
        run, written = self._read(experiment_id, name, revision)
        return overview_row(run, find_all(run), revision, dict(scalars), written)

    def _read_uncached(self, experiment_id: str, name: str, revision: str) -> tuple[HealthRun, list[float]]:
        """The run, and when each record of the tag with most of them was written."""
        if revision == NO_RECORDS:
            return HealthRun(name), []
        ctx = RequestContext()  # a request's own would make each request another key of the cache
        tags = self._tags(ctx, experiment_id, name)
        records, damaged = self._records(ctx, experiment_id, name, list(tags))
        written = [datum.wall_time for datum in max(records.values(), key=len, default=())]
        contents = {tag: series.plugin_content for tag, series in tags.items() if tag not in damaged}
        run = read_run(name, contents, records)
        run.problems += [f"{tag} can't be shown: a record of it is no tensor." for tag in damaged]
        return run, written

    def _records(
        self, ctx: RequestContext, experiment_id: str, name: str, tags: list[str]
    ) -> tuple[dict[str, Any], list[str]]:
        """Records by tag, and the tags with one that TensorBoard can't decode, for which it raises whatever comes."""
        asked: dict[str, Any] = {"experiment_id": experiment_id, "plugin_name": PLUGIN_NAME, "downsample": ALL_RECORDS}
        try:
            read = self._provider.read_tensors(ctx, **asked, run_tag_filter=RunTagFilter(runs=[name], tags=tags))
            return read.get(name, {}), []
        except errors.PublicError:
            raise
        except Exception:
            if len(tags) <= 1:
                return {}, tags
        halves = [self._records(ctx, experiment_id, name, part) for part in (tags[::2], tags[1::2])]
        return halves[0][0] | halves[1][0], sorted(halves[0][1] + halves[1][1])

    def _tags(self, ctx: RequestContext, experiment_id: str, name: str) -> dict[str, Any]:
        asked = {
            "experiment_id": experiment_id,
            "plugin_name": PLUGIN_NAME,
            "run_tag_filter": RunTagFilter(runs=[name]),
        }
        return self._provider.list_tensors(ctx, **asked).get(name, {})


def natural_key(name: str) -> list[tuple[int, str]]:
    """Sorts ``version_10`` after ``version_9``."""
    return [(int(part), "") if part.isdecimal() else (-1, part) for part in re.split(r"(\d+)", name) if part]


def _revision(tags: dict[str, Any]) -> str:
    """Changes whenever a tag got a record: what was read under one revision need not be read again."""
    if not tags:
        return NO_RECORDS
    newest = max(series.max_wall_time for series in tags.values())
    return f"{len(tags)}.{sum(series.max_step + 1 for series in tags.values())}.{newest:.6f}"
