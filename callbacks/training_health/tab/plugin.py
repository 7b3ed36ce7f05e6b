"""The tab's web application: read-only routes under ``/data/plugin/training_health``."""

from __future__ import annotations

import time
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING

from tensorboard import errors, plugin_util
from tensorboard.backend import http_util
from tensorboard.context import RequestContext
from tensorboard.plugins import base_plugin
from werkzeug.wrappers import Request, Response

from training_health.log_format import PLUGIN_NAME
from training_health.tab.health_data import HealthData
from training_health.tab.payloads import as_json
from training_health.tab.static_files import PLOTLY, static_files

if TYPE_CHECKING:
    from wsgiref.types import WSGIApplication  # new in Python 3.11

ONE_DAY = 86_400  # seconds that a browser may keep plotly.js, 1.2 MB: its version is in its name


class TrainingHealthPlugin(base_plugin.TBPlugin):
    """Serves the page and its data: ``/overview``, ``/run?run=``, ``/units?run=&site=`` and ``/static/<file>``.

    Every answer goes through ``http_util.Respond`` (``nosniff``, gzip). Only GET and HEAD are answered. An unknown run
    or site and a missing parameter raise one of TensorBoard's errors, which it answers with 404 or 400 in words.
    """

    plugin_name = PLUGIN_NAME

    def __init__(self, context: base_plugin.TBContext) -> None:
        self._data = HealthData(context.data_provider)

    def get_plugin_apps(self) -> dict[str, WSGIApplication]:
        """Routes, each exact, so no path is ever made of what a browser sends."""
        apps = {
            "/overview": _json_app(self._overview),
            "/run": _json_app(self._data.run_json, "run"),
            "/units": _json_app(self._data.units, "run", "site"),
        }
        return apps | {f"/static/{name}": _file_app(file) for name, file in static_files().items()}

    def is_active(self) -> bool:
        """False: TensorBoard itself lights the tab up once its data provider lists a record of this plugin."""
        return False

    def frontend_metadata(self) -> base_plugin.FrontendMetadata:
        """Where the page's module is and what the tab is called."""
        return base_plugin.FrontendMetadata(es_module_path="/static/index.js", tab_name="Training Health")

    def _overview(self, ctx: RequestContext, experiment_id: str) -> str:
        around = {"folder": self._data.folder_key(ctx, experiment_id), "now": time.time()}
        return as_json(self._data.overview(ctx, experiment_id) | around)


def _json_app(answer: Callable[..., str], *parameters: str) -> WSGIApplication:
    """Answers with ``answer(context, experiment, *values of the parameters)``, which is JSON."""

    def respond(request: Request) -> Response:
        values = [request.args.get(name, "") for name in parameters]
        if "" in values:
            raise errors.InvalidArgumentError(f"Expected {parameters[values.index('')]!r} in the address.")
        # text: Respond would walk every number in Python, and turn NaN into the string "NaN"
        text = answer(plugin_util.context(request.environ), plugin_util.experiment_id(request.environ), *values)
        return http_util.Respond(request, text, "application/json")

    return _app(respond)


def _file_app(path: Path) -> WSGIApplication:
    media_type = "text/css" if path.suffix == ".css" else "text/javascript"
    expires = ONE_DAY if path.name == PLOTLY else 0
    return _app(lambda request: http_util.Respond(request, path.read_bytes(), media_type, expires=expires))


def _app(answer: Callable[[Request], Response]) -> WSGIApplication:
    """A WSGI application that answers GET and HEAD only, for TensorBoard lets every method through."""

    @Request.application
    def app(request: Request) -> Response:
        if request.method in ("GET", "HEAD"):
            return answer(request)
        refused = {"code": 405, "headers": [("Allow", "GET, HEAD")]}
        return http_util.Respond(request, "Only GET is answered here.", "text/plain", **refused)

    return app
