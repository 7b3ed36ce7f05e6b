"""The log format, read back by TensorBoard's own code."""

import json

import pytest
from tensorboard.backend.event_processing import data_provider, plugin_event_multiplexer
from tensorboard.context import RequestContext

from tests.training_health.toys import FEW_EXAMPLES, Toy, fit
from training_health import DeadReLUMonitor, TrainValGapMonitor, WeightHistogramMonitor
from training_health.gap.statistics import Evaluation, Gap

pytestmark = FEW_EXAMPLES
COLUMNS = list(Gap(Evaluation(1), Evaluation(1)).columns())
PARAMETERS = [f"net.{part}.{kind}" for part in (0, 1, 5, 7) for kind in ("weight", "bias")]


@pytest.fixture(scope="module")
def tensors(tmp_path_factory):
    """Tag: (metadata content, epochs' vectors) of a real fit, through TensorBoard's data provider."""
    folder = tmp_path_factory.mktemp("log")
    monitors = [DeadReLUMonitor(), WeightHistogramMonitor(), TrainValGapMonitor()]
    fit(Toy(), monitors, folder, logger="tensorboard")
    multiplexer = plugin_event_multiplexer.EventMultiplexer()
    multiplexer.AddRunsFromDirectory(str(folder))
    multiplexer.Reload()
    provider, context = data_provider.MultiplexerDataProvider(multiplexer, str(folder)), RequestContext()
    where = {"experiment_id": "", "plugin_name": "training_health"}
    listed = provider.list_tensors(context, **where)["run"]
    read = provider.read_tensors(context, **where, downsample=100)["run"]
    return {tag: (json.loads(listed[tag].plugin_content), [d.numpy.tolist() for d in read[tag]]) for tag in listed}


@pytest.mark.parametrize(
    ("tag", "content", "values", "n"),
    [
        ("activity/net.2", {
            "kind": "activity", "site": "net.2", "index": 0, "units": 4, "positions": 16, "window": "validation",
            "activation": "relu", "first_layer": True, "rare_below": 0.01,
        }, 4, 13),
        *[(kind, {"kind": kind, "parameters": PARAMETERS}, 8, 1)
          for kind in ("update_ratio", "nonfinite", "nonfinite_gradients", "gradient_scale")],
        ("activation_scale", {"kind": "activation_scale", "sites": ["net.2", "net.6"]}, 2, 5),
        ("gap", {
            "kind": "gap", "columns": COLUMNS, "n_train": 13, "n_val": 13, "se_method": "binomial; per-example losses",
            "metrics": {"val_accuracy": "val/accuracy", "val_loss": "val/loss"},
        }, 13, 13),
    ],
)  # fmt: skip
def test_a_record_says_all_it_takes_to_read_it(tensors, tag, content, values, n):
    written, vectors = tensors[f"training_health/{tag}"]

    assert written == {"version": 1, **content}
    assert [vector[:2] for vector in vectors] == [[0, n], [1, n]]
    assert [len(vector) for vector in vectors] == [2 + values] * 2


def test_what_cannot_die_is_written_once(tensors):
    content, vectors = tensors["training_health/cannot_die"]

    assert (content["kind"], content["sites"], content["unwatched"], vectors) == ("cannot_die", [], [], [[0, 13]])


def test_nothing_else_is_written(tensors):
    rest = {"activity/net.2", "activity/net.6", "cannot_die", "update_ratio", "nonfinite", "nonfinite_gradients", "gap"}
    rest |= {"activation_scale", "gradient_scale", "filters/net.2", "examples"}

    dead = {site for site in ("net.2", "net.6") if 0 in sum(tensors[f"training_health/activity/{site}"][1], [])[2:]}

    assert {tag.removeprefix("training_health/") for tag in tensors} == rest | {f"cause/{site}" for site in dead}
