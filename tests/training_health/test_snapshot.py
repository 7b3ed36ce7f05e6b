"""What a window keeps to be looked at, against the same computed by hand on a network that does not change."""

import base64
import json
import math
import weakref

import numpy as np
import pytest
import torch
from torch import nn
from torch.utils.data import DataLoader, TensorDataset

from tests.training_health.toys import FEW_EXAMPLES, Toy, events, fit, image_set, make_trainer, pl, vectors
from training_health import DeadReLUMonitor
from training_health.relu.snapshot import Snapshot, SnapshotTaker

pytestmark = FEW_EXAMPLES
IMAGES = image_set(13, seed=1).tensors[0]  # `fit` validates on these, in batches of 5


def network(channels: int = 1, features: int = 64) -> nn.Sequential:
    torch.manual_seed(0)
    return nn.Sequential(
        nn.Conv2d(channels, 4, 3), nn.ReLU(), nn.Flatten(), nn.Linear(features, 8), nn.ReLU(), nn.Linear(8, 4)
    )


def still(net: nn.Module) -> Toy:
    """A module that training leaves as it is."""
    return Toy(net, learning_rate=0.0)


def examples(folder) -> dict:
    """The last record of them."""
    texts = [value.tensor.string_val[0] for tag, _, value in events(folder) if tag == "training_health/examples"]
    return json.loads(texts[-1])


def test_scales_are_of_the_first_batch(tmp_path):
    net = network()
    fit(still(net), [DeadReLUMonitor()], tmp_path)

    before = [net[:1](IMAGES[:5]), net[:4](IMAGES[:5])]
    expected = [values.square().mean().sqrt().item() for values in before]
    for epoch, (_, vector) in enumerate(vectors(tmp_path, "activation_scale")):
        assert vector == pytest.approx([epoch, 5, *expected], rel=1e-5)


def test_filters_are_the_first_layers_weights_after_epochs_1_2_4_and_the_last(tmp_path):
    net = network()
    fit(still(net), [DeadReLUMonitor()], tmp_path, epochs=6)

    written = vectors(tmp_path, "filters/net.1")
    assert [vector[0] for _, vector in written] == [0, 1, 3, 5]
    assert written[0][1][2:] == pytest.approx(net[0].weight.flatten().tolist())
    assert not vectors(tmp_path, "filters/net.4")  # behind a dense layer


def test_examples_are_those_with_the_highest_pre_activation_of_the_units_that_fire_least(tmp_path):
    net = network()
    fit(still(net), [DeadReLUMonitor()], tmp_path)

    with torch.no_grad():
        conv, dense = net[:1](IMAGES), net[:4](IMAGES)
    activity = {("net.1", u): (conv[:, u] > 0).float().mean().item() for u in range(4)}
    activity |= {("net.4", u): (dense[:, u] > 0).float().mean().item() for u in range(8)}
    alive = sorted(part for part in activity.values() if part > 0)
    record = examples(tmp_path)
    assert (record["epoch"], record["n"], record["shape"], len(record["units"])) == (1, 13, [1, 6, 6], 6)
    for one in record["units"]:
        key = one["site"], one["unit"]
        assert one["activity"] == pytest.approx(activity[key])
        assert activity[key] <= alive[5]
        highest = conv[:, key[1]].flatten(1).amax(1) if key[0] == "net.1" else dense[:, key[1]]
        values, at = highest.sort(descending=True)
        fired = min(9, int((values > 0).sum()))
        assert one["values"] == pytest.approx(values[:fired].tolist(), rel=1e-5)
        pixels = np.frombuffer(base64.b64decode(one["pixels"]), np.uint8).reshape(fired, 36)
        for seen, image in zip(pixels, IMAGES[at].flatten(1).numpy(), strict=False):
            stretched = 255 * (image - image.min()) / (image.max() - image.min())
            assert np.abs(seen - stretched).max() <= 0.5001


def test_a_fit_that_resumes_keeps_the_same_examples(tmp_path):
    def run(folder, epochs, checkpoint=None):
        trainer = make_trainer([DeadReLUMonitor()], tmp_path / folder, epochs=epochs, logger="tensorboard")
        data = DataLoader(TensorDataset(IMAGES, torch.zeros(13, dtype=torch.int64)), batch_size=5)
        trainer.fit(still(network()), data, data, ckpt_path=checkpoint)
        trainer.save_checkpoint(tmp_path / "last.ckpt")
        return trainer

    run("whole", 2)
    run("half", 1)
    run("resumed", 2, tmp_path / "last.ckpt")

    assert examples(tmp_path / "resumed") == examples(tmp_path / "whole")


class Computed(nn.Module):
    """A parametrization that notes the weights that it gives."""

    def __init__(self, made):
        super().__init__()
        self.made = made

    def forward(self, weight):
        self.made.append(weakref.ref(new := weight * 1))
        return new


def test_computed_weights_are_not_kept_beyond_the_window(tmp_path):
    net, made, alive = network(), [], []
    nn.utils.parametrize.register_parametrization(net[0], "weight", Computed(made))
    note = pl.callbacks.LambdaCallback(on_train_epoch_end=lambda *_: alive.append(sum(r() is not None for r in made)))
    fit(still(net), [DeadReLUMonitor(), note], tmp_path)

    assert made
    assert alive == [0, 0]


def test_large_pictures_are_shrunk_and_colours_kept(tmp_path):
    images, labels = torch.rand(6, 3, 56, 42), torch.zeros(6, dtype=torch.int64)
    data = DataLoader(TensorDataset(images, labels), batch_size=3)
    make_trainer([DeadReLUMonitor()], tmp_path).fit(still(network(3, 4 * 54 * 40)), data, data)

    assert examples(tmp_path)["shape"] == [3, 28, 21]


@pytest.mark.parametrize("options", [{"example_pictures": False}, {"window": "train"}])
def test_no_examples_are_kept_where_they_are_not_wanted(tmp_path, options):
    fit(still(network()), [DeadReLUMonitor(**options)], tmp_path)

    tags = {tag.removeprefix("training_health/") for tag, _, _ in events(tmp_path)}
    assert "activation_scale" in tags
    assert "examples" not in tags


def test_the_ranks_snapshots_are_joined():
    ranks = [
        Snapshot(2, {"a": (8.0, 4)}, {"a": ([1, 1, 1, 1], [3.0])}, [1, 1, 1], {("a", 0): [(5.0, b"x"), (1.0, b"y")]}),
        Snapshot(
            3, {"a": (1.0, 5), "b": (2.0, 2)}, {}, [1, 1, 1], {("a", 0): [(float(v), b"z") for v in range(2, 12)]}
        ),
    ]
    joined = Snapshot.joined(ranks)

    assert (joined.n, joined.scales, joined.filters) == (5, {"a": (9.0, 9), "b": (2.0, 2)}, ranks[0].filters)
    assert [value for value, _ in joined.examples["a", 0]] == [11, 10, 9, 8, 7, 6, 5, 5, 4]
    tag, kind, vector, content = next(joined.records({"c": "c", "a": "short", "b": "b"}))
    assert (tag, kind) == ("activation_scale", "activation_scale")
    assert vector == pytest.approx([5, math.nan, 1.0, 1.0], nan_ok=True)
    assert content == {"sites": ["c", "short", "b"]}


def test_a_rank_without_a_batch_leaves_n_known():
    taker = SnapshotTaker()
    taker.start(False, ())

    assert Snapshot.joined([Snapshot(5), taker.take()]).n == 5


class Experts(nn.Module):
    """One after the other, in an order that turns at each pass."""

    def __init__(self):
        super().__init__()
        self.first, self.second = (nn.Sequential(nn.Linear(36, 36), nn.ReLU()) for _ in range(2))
        nn.init.constant_(self.second[0].bias, 100.0)
        self.passes = 0
        self.last = nn.Linear(72, 4)

    def forward(self, x):
        self.passes += not self.training
        parts = [self.first, self.second][:: 1 if self.passes < 4 else -1]
        return self.last(torch.cat([part(x.flatten(1)) for part in parts], 1))


def test_scales_stay_beside_their_names_where_the_order_of_calls_changes(tmp_path):
    fit(still(Experts()), [DeadReLUMonitor()], tmp_path)

    scales = [vector[2:] for _, vector in vectors(tmp_path, "activation_scale")]
    assert len(scales) == 2
    assert scales[1] == pytest.approx(scales[0], rel=0.2)
    assert max(scales[0]) > 10 * min(scales[0])


@pytest.mark.parametrize("conv", [nn.Conv2d(1, 4, (1, 65), padding=(0, 32)), nn.Conv2d(1, 5000, 1)])
def test_filters_that_no_page_draws_are_not_kept(tmp_path, conv):
    last = nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(conv.out_channels, 4)
    fit(still(nn.Sequential(conv, nn.ReLU(), *last)), [DeadReLUMonitor()], tmp_path)

    kinds = {tag.split("/")[1] for tag, _, _ in events(tmp_path) if tag.startswith("training_health/")}
    assert "activity" in kinds
    assert "filters" not in kinds
