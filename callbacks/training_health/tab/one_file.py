"""The Training Health page with its data inside: one HTML file that needs no server, no network."""

import html
from pathlib import Path
from typing import Any
from urllib.parse import quote

import numpy as np
from tensorboard.backend.event_processing.data_provider import MultiplexerDataProvider
from tensorboard.backend.event_processing.plugin_event_multiplexer import EventMultiplexer
from tensorboard.context import RequestContext

from training_health.durable_file import replace_durably
from training_health.errors import UserError
from training_health.log_format import PLUGIN_NAME
from training_health.tab.health_data import HealthData
from training_health.tab.loader import KEEP_ALL
from training_health.tab.payloads import as_json, run_payload, units_payload
from training_health.tab.plain_tables import plain_tables
from training_health.tab.self_contained_page import packed, packed_plotly, page
from training_health.tab.static_files import PLOTLY, STYLE, static_files

_BODY = """<noscript>
<main>
<h1>{title}</h1>
<p>The charts of this page are drawn by JavaScript, which is switched off here. Without it: what each run came to, and
what the monitors found. With it: dead and rare units over epochs, a map of every unit, the gap with its band, and how
the weights move. Nothing is fetched either way.</p>
{tables}
</main>
</noscript>
<script type="importmap">{import_map}</script>
<script type="application/json" id="training-health-data">{data}</script>
<script type="module">
import {{ render }} from "training-health/index.js";
render();
</script>
{plotly}"""


def write_report(logdir: Path, output: Path) -> None:
    """Writes the Training Health page of all runs below a folder as one HTML file.

    The file is the tab's own front end with the same data that TensorBoard would serve, and is the same, byte for
    byte, whenever the logs are. It replaces ``output`` as a whole or not at all. It is about 0.8 MB (plotly.js and
    the page's own code) plus the data, some 2 bytes per unit and epoch; a unit's activity is kept to three significant
    digits.

    Args:
        logdir: Folder with event files at any depth, as for ``tensorboard --logdir``.
        output: The file to write; its folder is made if need be.

    Raises:
        UserError: if there is no such folder, nothing in it was logged with the monitors, or the file can't be written.
    """
    data = _collect(logdir)
    files = {name: path.read_text(encoding="utf-8") for name, path in static_files().items()}
    title = f"Training Health: {logdir.resolve().name}"
    body = _BODY.format(
        title=html.escape(title),
        tables=plain_tables(data["overview"]["runs"]),
        plotly=packed_plotly(files.pop(PLOTLY)),
        data=_script_json(data),
        import_map=_script_json({"imports": _modules(files)}),
    )
    content = page(title=title, style=files.pop(STYLE), body=body)
    try:
        replace_durably(output, content.encode())
        output.chmod(0o644)  # for the people it is for, whatever the umask
    except OSError as error:
        raise UserError(f"{output} can't be written: {error.strerror}. Choose another with --output.") from error


def _collect(logdir: Path) -> dict[str, Any]:
    """What the tab's routes would answer, for every run that has data."""
    if not logdir.is_dir():
        raise UserError(f"There is no folder {logdir}. Give the one that holds your runs, for example lightning_logs.")
    multiplexer = EventMultiplexer(tensor_size_guidance={PLUGIN_NAME: KEEP_ALL})
    try:
        multiplexer.AddRunsFromDirectory(str(logdir))
    except UnicodeEncodeError:
        raise UserError(f"TensorBoard reads no folder whose name is not UTF-8: rename it. ({logdir})") from None
    damaged = _load(multiplexer)
    source, context = HealthData(MultiplexerDataProvider(multiplexer, str(logdir))), RequestContext()
    overview = source.overview(context, "")
    for row in overview["runs"]:
        if row["run"] in damaged:
            row["message"] = f"A file of it is damaged: what follows the damage is missing. {row['message']}".rstrip()
    if not overview["runs"]:
        raise UserError(f"There are no TensorBoard event files below {logdir}. Train first, or give another folder.")
    runs = [source.run(context, "", row["run"]) for row in overview["runs"] if row["state"] == "ok"]
    if not runs:
        reasons = " ".join(sorted({row["message"] for row in overview["runs"] if row["message"]}))
        advice = reasons or "Train an epoch with DeadReLUMonitor, TrainValGapMonitor and WeightHistogramMonitor."
        raise UserError(
            f"None of the {len(overview['runs'])} runs below {logdir} has training-health records. {advice}"
        )
    units = {run.name: {site.name: _packed_units(units_payload(run, site)) for site in run.sites} for run in runs}
    return {"overview": overview, "run": {run.name: packed(as_json(run_payload(run))) for run in runs}, "units": units}


def _load(multiplexer: EventMultiplexer) -> set[str]:
    """Reads all runs; returns those whose files have a part that is no event, and hold what comes before it."""
    damaged = set()
    for name in multiplexer.Runs():
        try:
            multiplexer.GetAccumulator(name).Reload()
        except Exception:  # of whatever kind: what TensorBoard raises depends on what it finds
            damaged.add(name)
    return damaged


def _packed_units(units: dict[str, Any]) -> tuple[str, str]:
    """A site's map, its numbers apart: they are most of a report."""
    codes = three_digits(np.array(units.pop("activity"), dtype=np.float64)).ravel()
    planes = (codes >> 8).astype(np.uint8), codes.astype(np.uint8)  # apart they pack better
    return packed(as_json(units)), packed(b"".join(plane.tobytes() for plane in planes))


def three_digits(activity: np.ndarray) -> np.ndarray:
    """Codes below 2**16 of numbers from 0 to 1, NaN included: 0 is 0, 1 is NaN, ``host.js`` reads the rest.

    That is ``2 + 900 * k + m - 100`` for ``m * 10**(-2 - k)`` with ``m`` from 100 to 999.
    """
    with np.errstate(all="ignore"):
        k = -np.floor(np.log10(activity))
        m = np.round(activity * 10.0 ** (k + 2))
        k, m = np.where(m > 999, k - 1, k), np.where(m > 999, 100, m)
        codes = np.where(activity > 0, 2 + 900 * k + m - 100, np.isnan(activity))
    return codes.astype(np.uint16)


def _modules(files: dict[str, str]) -> dict[str, str]:
    """The front end's modules as data: addresses; such a module can't import a relative one, so names replace paths."""
    code = {name: quote(text.replace('from "./', 'from "training-health/')) for name, text in files.items()}
    return {f"training-health/{name}": f"data:text/javascript;charset=utf-8,{text}" for name, text in code.items()}


def _script_json(value: object) -> str:
    """JSON that may stand in a script element: ASCII, and without a ``<`` that could end it."""
    return as_json(value).replace("<", "\\u003c")
