"""The tab's web application: read-only routes under ``/data/plugin/training_health``."""

import functools
import json
from collections.abc import Callable, Iterable
from typing import Any
from wsgiref.types import StartResponse, WSGIApplication, WSGIEnvironment

from tensorboard import errors, plugin_util
from tensorboard.backend import http_util
from tensorboard.context import RequestContext
from tensorboard.plugins import base_plugin
from werkzeug import wrappers

from training_health.log_format import PLUGIN_NAME
from training_health.tab.health_data import HealthData
from training_health.tab.payloads import run_payload, units_payload
from training_health.tab.static_files import StaticFile, plotly_version, static_files

Answer = Callable[[RequestContext, str, dict[str, str]], dict[str, Any]]


class TrainingHealthPlugin(base_plugin.TBPlugin):
    """Serves the page and its data: ``/overview``, ``/run?run=``, ``/units?run=&site=`` and ``/static/<file>``.

    Every answer goes through ``http_util.Respond`` (``nosniff``, gzip). Only GET and HEAD are answered; an unknown run,
    site or parameter is refused in words with 400 or 404.

    Args:
        context: TensorBoard's; only its data provider is used.
    """

    plugin_name = PLUGIN_NAME

    def __init__(self, context: base_plugin.TBContext) -> None:
        self._data = HealthData(context.data_provider)

    def get_plugin_apps(self) -> dict[str, WSGIApplication]:
        """Routes, each exact, so no path is ever made of what a browser sends."""
        apps = {
            "/overview": _json_app(
                (), lambda ctx, eid, _: self._data.overview(ctx, eid) | {"plotly": plotly_version()}
            ),
            "/run": _json_app(("run",), lambda ctx, eid, q: run_payload(self._data.run(ctx, eid, q["run"]))),
            "/units": _json_app(("run", "site"), self._units),
        }
        return apps | {f"/static/{name}": _file_app(file) for name, file in static_files().items()}

    def is_active(self) -> bool:
        """False: TensorBoard itself lights the tab up once its data provider lists a record of this plugin."""
        return False

    def frontend_metadata(self) -> base_plugin.FrontendMetadata:
        """Where the page's module is and what the tab is called."""
        return base_plugin.FrontendMetadata(es_module_path="/static/index.js", tab_name="Training Health")

    def _units(self, ctx: RequestContext, experiment_id: str, query: dict[str, str]) -> dict[str, Any]:
        run = self._data.run(ctx, experiment_id, query["run"])
        for site in run.sites:
            if site.name == query["site"]:
                return units_payload(run, site)
        raise errors.NotFoundError(f"Run {run.name[:200]!r} has no site {query['site'][:200]!r}.")


def _get_only(
    handler: Callable[[wrappers.Request], wrappers.Response],
) -> Callable[[WSGIEnvironment, StartResponse], Iterable[bytes]]:
    """A WSGI application that refuses every method but GET and HEAD, for TensorBoard lets all of them through."""

    @functools.wraps(handler)
    def app(environ: WSGIEnvironment, start_response: StartResponse) -> Iterable[bytes]:
        request = wrappers.Request(environ)
        try:
            response = handler(request) if request.method in ("GET", "HEAD") else _not_allowed(request)
        except errors.PublicError as error:
            response = http_util.Respond(request, str(error), "text/plain", code=error.http_code)
        return response(environ, start_response)

    return app


def _not_allowed(request: wrappers.Request) -> wrappers.Response:
    return http_util.Respond(
        request, "Only GET is answered here.", "text/plain", code=405, headers=[("Allow", "GET, HEAD")]
    )


def _json_app(parameters: tuple[str, ...], answer: Answer) -> WSGIApplication:
    def handle(request: wrappers.Request) -> wrappers.Response:
        query = _query(request, parameters)
        content = answer(plugin_util.context(request.environ), plugin_util.experiment_id(request.environ), query)
        # dumped here: Respond would walk every number in Python, and turn NaN into the string "NaN"
        text = json.dumps(content, allow_nan=False, separators=(",", ":"))
        return http_util.Respond(request, text, "application/json")

    return _get_only(handle)


def _file_app(file: StaticFile) -> WSGIApplication:
    def handle(request: wrappers.Request) -> wrappers.Response:
        return http_util.Respond(request, file.path.read_bytes(), file.media_type, expires=file.expires)

    return _get_only(handle)


def _query(request: wrappers.Request, parameters: tuple[str, ...]) -> dict[str, str]:
    """Each of ``parameters`` exactly once, and nothing else.

    Raises:
        errors.InvalidArgumentError: otherwise.
    """
    unknown = sorted(set(request.args) - set(parameters))
    if unknown:
        raise errors.InvalidArgumentError(f"Unknown parameter {unknown[0][:200]!r}; expected {list(parameters)}.")
    query = {}
    for name in parameters:
        values = request.args.getlist(name)
        if len(values) != 1 or not values[0]:
            raise errors.InvalidArgumentError(f"Expected the parameter {name!r} once, got it {len(values)} times.")
        query[name] = values[0]
    return query
