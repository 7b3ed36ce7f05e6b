"""The log format, read back by TensorBoard's own code."""

import json

import pytest
from pytorch_lightning.loggers import TensorBoardLogger
from tensorboard.backend.event_processing import data_provider, plugin_event_multiplexer
from tensorboard.context import RequestContext

from tests.training_health.toys import FEW_IMAGES, Toy, fit
from training_health import DeadReLUMonitor, TrainValGapMonitor, WeightHistogramMonitor
from training_health.log_format import tensor_record

pytestmark = FEW_IMAGES


def test_a_record_is_a_versioned_tensor_summary():
    (value,) = tensor_record("gap", "gap", [3, 100, 0.5], columns=["x"]).value

    assert value.tag == "training_health/gap"
    assert value.metadata.plugin_data.plugin_name == "training_health"
    assert value.metadata.data_class == 2  # DATA_CLASS_TENSOR
    assert json.loads(value.metadata.plugin_data.content) == {"version": 1, "kind": "gap", "columns": ["x"]}
    assert (value.tensor.dtype, value.tensor.tensor_shape.dim[0].size) == (1, 3)


@pytest.fixture(scope="module")
def tensors(tmp_path_factory):
    """Tag: (metadata content, epochs' vectors) of a real fit, through TensorBoard's data provider."""
    folder = tmp_path_factory.mktemp("log")
    logger = TensorBoardLogger(folder, name=None, version="run")
    fit(Toy(), [DeadReLUMonitor(), WeightHistogramMonitor(), TrainValGapMonitor()], folder, logger=logger)
    multiplexer = plugin_event_multiplexer.EventMultiplexer()
    multiplexer.AddRunsFromDirectory(str(folder))
    multiplexer.Reload()
    provider, context = data_provider.MultiplexerDataProvider(multiplexer, str(folder)), RequestContext()
    where = {"experiment_id": "", "plugin_name": "training_health"}
    listed = provider.list_tensors(context, **where)["run"]
    read = provider.read_tensors(context, **where, downsample=100)["run"]
    return {tag: (json.loads(listed[tag].plugin_content), [d.numpy.tolist() for d in read[tag]]) for tag in listed}


def test_the_kinds_and_tags_of_a_fit(tensors):
    assert {tag: content["kind"] for tag, (content, _) in tensors.items()} == {
        "training_health/activity/2": "activity",
        "training_health/activity/6": "activity",
        "training_health/cannot_die": "cannot_die",
        "training_health/update_ratio": "update_ratio",
        "training_health/nonfinite": "nonfinite",
        "training_health/nonfinite_gradients": "nonfinite_gradients",
        "training_health/gap": "gap",
    }


def test_a_sites_record_says_all_it_takes_to_read_it(tensors):
    content, vectors = tensors["training_health/activity/2"]

    assert content == {
        "version": 1, "kind": "activity", "site": "2", "index": 0, "units": 4, "positions": 16,
        "window": "validation", "activation": "relu", "first_layer": True, "rare_below": 0.01,
    }  # fmt: skip
    assert [vector[:2] for vector in vectors] == [[0, 13], [1, 13]]
    assert all(len(vector) == 2 + 4 and all(0 <= v <= 1 for v in vector[2:]) for vector in vectors)


def test_what_cannot_die_is_written_once(tensors):
    content, vectors = tensors["training_health/cannot_die"]

    assert (content["sites"], content["unwatched"], vectors) == ([], [], [[0, 13]])


def test_one_vector_holds_all_parameters(tensors):
    content, vectors = tensors["training_health/update_ratio"]

    assert content["parameters"][:2] == ["net.0.weight", "net.0.bias"]
    assert [len(vector) for vector in vectors] == [2 + len(content["parameters"])] * 2
    assert [vector[:2] for vector in vectors] == [[0, 1], [1, 1]]
