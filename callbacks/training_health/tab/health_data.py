"""Reads runs through TensorBoard's data provider: the only way that works under both of its loaders."""

import functools
import hashlib
import logging
import re
import time
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from tensorboard import errors
from tensorboard.context import RequestContext
from tensorboard.data.provider import DataProvider, Run, RunTagFilter

from training_health.health.findings import find_all
from training_health.health.health_run import HealthRun, read_run
from training_health.log_format import PLUGIN_NAME
from training_health.tab.event_files import goes_on, later_metadata
from training_health.tab.payloads import as_json, finite, overview_row, run_payload, units_payload

ALL_RECORDS = 2**31 - 1  # read_tensors samples down to this many; 0 would mean none at all
MOST_RUNS = 300  # in one overview: the newest ones
ROWS_KEPT = 1000
RUNS_KEPT = 16
TEXTS_KEPT = 32  # answers as JSON, at most 8 MB each
HP_METRIC = "hp_metric"  # which Lightning logs before the first step
TIME_TO_READ = 10.0  # seconds
CUT_SHORT = (
    "An event file of this run goes on behind what TensorBoard has read of it: bytes in it are damaged, or TensorBoard "
    "does not reload."
)
UNEXPECTED = "This run can't be read; TensorBoard's own output has the reason."
METRICS = {"acc": "accuracy", "accuracy": "accuracy", "loss": "loss"}  # by the usual names, for runs without monitors
METRIC_OF_TAG = {
    f"{side}{sep}{name}": f"{side}_{METRICS[name]}" for side in ("val", "test") for sep in "_/" for name in METRICS
}


@dataclass(frozen=True)
class _Log:
    """A run's records as they were listed: equal to another listing of them until the log has grown."""

    experiment_id: str
    run: str
    revision: str
    tags: dict[str, Any] = field(compare=False)


class HealthData:
    """Runs and their overview. What was read is kept until the log has grown."""

    def __init__(self, provider: DataProvider) -> None:
        self._provider = provider
        self._unchanged: dict[str, tuple[str, float]] = {}  # by run: its revision, and since when it is that
        self._read = functools.lru_cache(RUNS_KEPT)(self._read_uncached)
        self._text = functools.lru_cache(TEXTS_KEPT)(self._text_uncached)
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
        bare = [run for run in newest if not series.get(run.run_name)]
        validated = {
            run.run_name: finite(run.start_time) for run in bare if any(scalars.get(run.run_name, {}).values())
        }
        without = self._times(ctx, experiment_id, [run for run in bare if run.run_name not in validated])
        without |= {name: {"began": began, "written": began} for name, began in validated.items()}
        rows = []
        for name in names:
            logged = sorted(scalars.get(name, {}).items())  # where several are logged, the last in this order counts
            last = ((METRIC_OF_TAG[tag], float(data[-1].value)) for tag, data in logged if data)
            log = _log(experiment_id, name, series.get(name, {}))
            row = self._row(log, tuple(last)) | without.get(name, {})
            if row["state"] == "ok" and not row["finished"] and self._is_cut_short(ctx, log):
                row["message"] = f"{row['message']} {CUT_SHORT}".strip()
            rows.append(row)
        return {"runs": rows, "left_out": len(listed) - len(newest)}

    def _is_cut_short(self, ctx: RequestContext, log: _Log) -> bool:
        """Whether the run's files have more than TensorBoard has read, though it had the time."""
        now = time.monotonic()
        revision, since = self._unchanged.get(log.run, ("", now))
        self._unchanged[log.run] = log.revision, since if revision == log.revision else now
        if revision != log.revision or now - since < TIME_TO_READ:
            return False
        return goes_on(self._folder(ctx, log), max(series.max_wall_time for series in log.tags.values()))

    def _folder(self, ctx: RequestContext, log: _Log) -> Path:
        location = self._provider.experiment_metadata(ctx, experiment_id=log.experiment_id).data_location
        return Path(location, log.run)

    def _times(self, ctx: RequestContext, experiment_id: str, runs: list[Run]) -> dict[str, dict[str, float | None]]:
        """When each of these runs began and wrote its newest scalar, for it may have just begun."""
        if not runs:
            return {}
        names = RunTagFilter(runs=[run.run_name for run in runs])
        # TensorBoard goes through all points for this: only of those that it is needed for.
        scalars = self._provider.list_scalars(
            ctx, experiment_id=experiment_id, plugin_name="scalars", run_tag_filter=names
        )
        times = {}
        for run in runs:
            series = scalars.get(run.run_name, {})
            written = (one.max_wall_time for tag, one in series.items() if tag != HP_METRIC)
            times[run.run_name] = {"began": finite(run.start_time), "written": finite(max(written, default=None))}
        return times

    def folder_key(self, ctx: RequestContext, experiment_id: str) -> str:
        """Tells log folders apart without naming them."""
        location = self._provider.experiment_metadata(ctx, experiment_id=experiment_id).data_location
        return hashlib.sha256(location.encode()).hexdigest()[:12]

    def run(self, ctx: RequestContext, experiment_id: str, name: str) -> HealthRun:
        """The run of that name; an error that TensorBoard answers with 404 if it has none of the monitors' records."""
        return self._read(self._log_of(ctx, experiment_id, name))[0]

    def run_json(self, ctx: RequestContext, experiment_id: str, name: str) -> str:
        """What the page draws of a run, as JSON."""
        return self._text(self._log_of(ctx, experiment_id, name), "")

    def units(self, ctx: RequestContext, experiment_id: str, name: str, site: str) -> str:
        """The map of a site's units, as JSON; an error that TensorBoard answers with 404 if there is no such site."""
        return self._text(self._log_of(ctx, experiment_id, name), site)

    def _text_uncached(self, log: _Log, site: str) -> str:
        run = self._read(log)[0]
        if not site:
            return as_json(run_payload(run))
        sites = {candidate.name: candidate for candidate in run.sites}
        if site not in sites:
            raise errors.NotFoundError(f"Run {log.run[:200]!r} has no site {site[:200]!r}.")
        return as_json(units_payload(run, sites[site]))

    def _log_of(self, ctx: RequestContext, experiment_id: str, name: str) -> _Log:
        asked = {"plugin_name": PLUGIN_NAME, "run_tag_filter": RunTagFilter(runs=[name])}
        tags = self._provider.list_tensors(ctx, experiment_id=experiment_id, **asked).get(name)
        if not tags:
            raise errors.NotFoundError(f"No run named {name[:200]!r} has records of the training-health monitors.")
        return _log(experiment_id, name, tags)

    def _row_uncached(self, log: _Log, scalars: tuple[tuple[str, float], ...]) -> dict[str, Any]:
        try:
            run, written = self._read(log)
            return overview_row(run, find_all(run), log.revision, dict(scalars), written)
        except errors.PublicError:
            raise
        except Exception:  # no log may take the other runs from the page
            logging.getLogger(__name__).exception("The run %s can't be read", log.run)
            unreadable = HealthRun(log.run, problems=[UNEXPECTED])
            return overview_row(unreadable, [], log.revision, dict(scalars), [])

    def _read_uncached(self, log: _Log) -> tuple[HealthRun, list[float]]:
        """The run, and when each record of the tag with most of them was written."""
        if not log.tags:
            return HealthRun(log.run), []
        # a request's own context would make each request another key of the cache
        records, damaged = self._records(RequestContext(), log.experiment_id, log.run, list(log.tags))
        written = [datum.wall_time for datum in max(records.values(), key=len, default=())]
        contents = {tag: series.plugin_content for tag, series in log.tags.items() if tag not in damaged}
        later, again = later_metadata(self._folder(RequestContext(), log))
        run = read_run(log.run, contents, records, later, again=again)
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


def natural_key(name: str) -> list[tuple[int, str]]:
    """Sorts ``version_10`` after ``version_9``."""
    return [(int(part), "") if part.isdecimal() else (-1, part) for part in re.split(r"(\d+)", name) if part]


def _log(experiment_id: str, run: str, tags: dict[str, Any]) -> _Log:
    """With a revision that changes whenever a tag got a record."""
    newest = max((series.max_wall_time for series in tags.values()), default=0.0)
    steps = sum(series.max_step + 1 for series in tags.values())
    return _Log(experiment_id, run, f"{len(tags)}.{steps}.{newest:.6f}" if tags else "", tags)
