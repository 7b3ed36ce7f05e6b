"""A TensorBoard application on logs with known content."""

import warnings
from collections.abc import Callable
from pathlib import Path

import pytest
import werkzeug.test
from tensorboard.backend.event_processing.data_provider import MultiplexerDataProvider
from tensorboard.backend.event_processing.plugin_event_multiplexer import EventMultiplexer
from tensorboard.plugins import base_plugin
from werkzeug import wrappers

with warnings.catch_warnings():
    warnings.simplefilter("ignore", DeprecationWarning)  # TensorBoard's vendored bleach warns when imported
    from tensorboard.backend import application

from tests.training_health.tab.health_log_writer import HealthLogWriter
from training_health.tab.plugin import TrainingHealthPlugin

PREFIX = "/data/plugin/training_health"


class Tab:
    """The tab as a browser sees it: requests through all of TensorBoard's middleware, without a socket."""

    def __init__(self, logdir: Path) -> None:
        self.multiplexer = EventMultiplexer(tensor_size_guidance={"training_health": 0})
        self._logdir = logdir
        self.reload()
        provider = MultiplexerDataProvider(self.multiplexer, str(logdir))
        plugin = TrainingHealthPlugin(base_plugin.TBContext(data_provider=provider))
        app = application.TensorBoardWSGI([plugin], data_provider=provider)
        self.client = werkzeug.test.Client(app, wrappers.Response)

    def reload(self) -> None:
        self.multiplexer.AddRunsFromDirectory(str(self._logdir))
        self.multiplexer.Reload()

    def get(self, route: str, **query: str) -> wrappers.Response:
        return self.client.get(PREFIX + route, query_string=query)

    def json(self, route: str, **query: str):
        response = self.get(route, **query)
        assert response.status_code == 200, response.text
        return response.json

    def row(self, run: str) -> dict:
        (row,) = [row for row in self.json("/overview")["runs"] if row["run"] == run]
        return row


@pytest.fixture
def open_tab(tmp_path: Path) -> Callable[..., Tab]:
    """Opens the tab on a folder, by default on what the test has written below ``tmp_path``."""
    return lambda logdir=tmp_path: Tab(logdir)


@pytest.fixture
def writer(tmp_path: Path):
    """A run named "a", closed at the end of the test; call ``writer.flush()`` before opening the tab."""
    with HealthLogWriter(tmp_path / "a") as log:
        yield log
