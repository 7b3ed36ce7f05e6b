"""Planted truth: networks whose dead, rare and lively units are known are counted exactly."""

import math

import pytest
import pytorch_lightning as pl
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from pytorch_lightning.loggers import TensorBoardLogger
from pytorch_lightning.utilities.exceptions import MisconfigurationException
from torch import nn
from torch.nn import functional as F
from torch.utils.data import DataLoader, TensorDataset

from tests.training_health.toys import FEW_EXAMPLES, History, Toy, dense_network, fit, loader, make_trainer, vectors
from training_health import DeadReLUMonitor
from training_health.relu.unit_counts import SiteCounts, WindowCounts, combined

pytestmark = FEW_EXAMPLES


class Watched(pl.LightningModule):
    """Runs a network in validation and nothing else."""

    def __init__(self, net: nn.Module) -> None:
        super().__init__()
        self.net = net

    def validation_step(self, batch, batch_idx):
        self.net(batch[0])


def validate(net: nn.Module, inputs: torch.Tensor, folder, batch_size: int = 50, **options):
    """The monitor after one validation, and the logged values."""
    monitor = DeadReLUMonitor(**options)
    trainer = make_trainer([monitor], folder)
    trainer.validate(Watched(net), DataLoader(TensorDataset(inputs), batch_size=batch_size), verbose=False)
    return monitor, {key: value.item() for key, value in trainer.callback_metrics.items()}


def dense(*biases: float) -> nn.Linear:
    """A unit per bias b on one input x: x + b."""
    layer = nn.Linear(1, len(biases))
    with torch.no_grad():
        layer.weight.fill_(1)
        layer.bias.copy_(torch.tensor(biases))
    return layer


class Functional(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.first, self.second = dense(-9, 1, 1), nn.Linear(3, 2)
        with torch.no_grad():
            self.second.weight.fill_(1)
            self.second.bias.copy_(torch.tensor([0.0, -99.0]))

    def forward(self, x):
        return F.relu(self.second(torch.relu(self.first(x))), inplace=True)


class Shared(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.first, self.second, self.act = dense(-9, -9, 1), dense(1, 1, 1, 1), nn.ReLU(inplace=True)

    def forward(self, x):
        return self.act(self.second(self.act(self.first(x))[:, 2:]))


class Sometimes(nn.Module):
    """Each site is reached by one half of the examples only."""

    def __init__(self):
        super().__init__()
        self.first, self.second, self.layer = nn.ReLU(), nn.ReLU(), dense(-0.5, 1)

    def forward(self, x):
        x = self.layer(x)
        return self.second(x) if x[0, 0] > 0 else self.first(x)


def convolution() -> nn.Module:
    conv, norm = nn.Conv2d(1, 4, 3, padding=1), nn.BatchNorm2d(4)
    with torch.no_grad():
        conv.weight.fill_(0.1)
        norm.bias.copy_(torch.tensor([1.0, -100.0, 1.0, -100.0]))  # beta: far below what the normalised values reach
    return nn.Sequential(conv, norm, nn.ReLU())


@pytest.mark.parametrize(
    ("net", "inputs", "dead", "units"),
    [
        (nn.Sequential(dense(-9, -9, -9, 1, 1), nn.ReLU()), torch.rand(120, 1), {"net": [0, 1, 2]}, 5),
        (convolution(), torch.rand(60, 1, 6, 6), {"net": [1, 3]}, 4),  # a channel is one unit, whatever its size
        (Functional(), torch.rand(30, 1), {"relu": [0], "relu:2": [1]}, 5),
        (Shared(), torch.rand(30, 1), {"act": [0, 1], "act:2": []}, 7),
        (Sometimes(), torch.cat([torch.ones(50, 1), torch.zeros(50, 1)]), {"second": [], "first": [0]}, 4),
    ],
    ids=["dense", "convolution", "functional", "shared", "sometimes"],
)
def test_dead_units_are_counted_and_named_by_index(net, inputs, dead, units, tmp_path):
    monitor, logged = validate(net, inputs, tmp_path)

    summary, count = monitor.summary(), sum(map(len, dead.values()))
    assert {name: site["dead_units"] for name, site in summary["sites"].items()} == dead
    assert (summary["dead"], summary["units"], summary["n"]) == (count, units, len(inputs))
    assert logged["dead_relu/total"] == pytest.approx(count / units)
    assert f"({count} of {units} units, on {len(inputs)} validation examples)" in monitor.sentence()


def test_a_unit_alive_on_one_example_of_five_thousand_is_rare_and_not_dead(tmp_path):
    inputs = torch.zeros(5000, 1)
    inputs[4321] = 1.0

    monitor, logged = validate(nn.Sequential(dense(-0.5, -2, 1), nn.ReLU()), inputs, tmp_path, batch_size=500)

    site = monitor.summary()["sites"]["net"]
    assert (site["dead_units"], site["rare"]) == ([1], 1)
    assert logged["sparsity/net"] == pytest.approx((4999 + 5000) / 15000)


@pytest.mark.parametrize(("below", "rare"), [(0.01, 0), (0.0101, 1)])
def test_rare_begins_below_the_threshold(below, rare, tmp_path):
    inputs = torch.zeros(200, 1)
    inputs[:2] = 1.0  # exactly 1 %

    monitor, _ = validate(nn.Sequential(dense(-0.5), nn.ReLU()), inputs, tmp_path, rare_below=below)

    assert monitor.summary()["rare"] == rare


def test_a_healthy_network_raises_no_alarm_and_half_of_its_outputs_are_zero(tmp_path):
    torch.manual_seed(0)
    net = nn.Sequential(nn.Conv2d(1, 16, 3), nn.ReLU(), nn.Flatten(), nn.Linear(256, 64), nn.Dropout(0.99), nn.ReLU())

    monitor, logged = validate(net, torch.randn(1000, 1, 6, 6), tmp_path)

    assert (monitor.summary()["dead"], monitor.summary()["rare"]) == (0, 0)
    assert logged["sparsity/5"] == pytest.approx(0.5, abs=0.1)  # dropout is off


def test_dormancy_follows_sokars_equation_one(tmp_path):
    layer = nn.Linear(1, 4, bias=False)
    with torch.no_grad():
        layer.weight.copy_(torch.tensor([[-1.0], [0.1], [1.9], [2.0]]))  # mean |h| = 1: scores 0, 0.1, 1.9, 2

    _, logged = validate(nn.Sequential(layer, nn.ReLU()), torch.ones(10, 1), tmp_path, dormancy_tau=0.2)

    assert logged["dormant_relu/net"] == 0.5


def test_the_unit_dimension_can_be_named(tmp_path):
    monitor, _ = validate(nn.Sequential(nn.ReLU()), torch.randn(20, 3, 7), tmp_path, unit_dims={"net.*": 2})

    assert monitor.summary()["units"] == 7


def windows(sites: list[str]):
    counts = st.integers(1, 50).flatmap(
        lambda pairs: st.builds(
            SiteCounts, st.just("relu"), st.just(1), st.just(True), st.just(pairs),
            st.lists(st.integers(0, pairs), min_size=3, max_size=3),
        )
    )  # fmt: skip
    return st.builds(WindowCounts, st.integers(0, 9), st.dictionaries(st.sampled_from(sites), counts))


@settings(deadline=None, max_examples=50)
@given(parts=st.lists(windows(["a", "b"]), min_size=1, max_size=5), cut=st.integers(0, 5))
def test_merging_counts_is_associative_and_loses_none(parts, cut):
    whole = combined(parts)

    assert combined([combined(parts[:cut]), combined(parts[cut:])]) == whole
    for site in ("a", "b"):
        pairs = sum(part.sites[site].pairs for part in parts if site in part.sites)
        assert (whole.sites[site].pairs if site in whole.sites else 0) == pairs


def test_logged_values_and_records_agree_with_the_counts(tmp_path):
    logger, net = TensorBoardLogger(tmp_path, name=None, version="run"), dense_network()
    with torch.no_grad():
        net[1].bias[:2] = -1000

    metrics = fit(Toy(net, learning_rate=0.0), [DeadReLUMonitor()], tmp_path, logger=logger).callback_metrics

    assert metrics["dead_relu/total"].item() == metrics["dead_relu/net"].item() == 0.25
    assert metrics["dead_relu/n"].item() == 13
    rows = [vector for _, vector in vectors(tmp_path, "activity/net")]
    assert [row[:4] for row in rows] == [[0, 13, 0, 0], [1, 13, 0, 0]]
    assert 1 - sum(rows[1][2:]) / 8 == pytest.approx(metrics["sparsity/net"].item())


class Plunging(Toy):
    """Its first unit dies in the second epoch and comes back in the third."""

    def __init__(self):
        super().__init__(dense_network(), learning_rate=0.0)

    def on_train_epoch_start(self):
        with torch.no_grad():
            self.net[1].bias[0] = -1000 if self.current_epoch == 1 else 1000


def test_deaths_and_revivals_are_counted_from_one_epoch_to_the_next(tmp_path):
    history = History("dead_relu/deaths", "dead_relu/revivals")

    fit(Plunging(), [DeadReLUMonitor(), history], tmp_path, epochs=3)

    assert history.rows == [(None, None), (1, 0), (0, 1)]


def test_a_resumed_run_knows_what_was_dead_before(tmp_path):
    fit(Plunging(), [DeadReLUMonitor()], tmp_path).save_checkpoint(tmp_path / "two.ckpt")
    history = History("dead_relu/deaths", "dead_relu/revivals")

    trainer = make_trainer([DeadReLUMonitor(), history], tmp_path, epochs=3)
    trainer.fit(Plunging(), loader(23), loader(13, seed=1), ckpt_path=tmp_path / "two.ckpt", weights_only=True)

    assert history.rows == [(0, 1)]


def test_names_and_order_of_sites_stay_when_a_new_site_appears(tmp_path):
    class Growing(nn.Module):
        def __init__(self):
            super().__init__()
            self.first, self.act, self.extra, self.more = dense(1, 1), nn.ReLU(), nn.ReLU(), False

        def forward(self, x):
            return self.extra(self.act(self.first(x))) if self.more else self.act(self.first(x))

    net, monitor = Growing(), DeadReLUMonitor()
    trainer = make_trainer([monitor], tmp_path)
    data = DataLoader(TensorDataset(torch.rand(8, 1)), batch_size=4)
    trainer.validate(Watched(net), data, verbose=False)
    names = list(monitor.summary()["sites"])
    net.more = True
    trainer.validate(Watched(net), data, verbose=False)

    assert (names, list(monitor.summary()["sites"])) == (["net"], ["net", "net.extra"])


def test_a_model_without_relu_is_reported_once(tmp_path):
    monitor = DeadReLUMonitor()
    with pytest.warns(UserWarning, match="saw no ReLU") as caught:
        fit(Toy(nn.Sequential(nn.Flatten(), nn.Linear(36, 4))), [monitor], tmp_path)

    assert len([w for w in caught if "no ReLU" in str(w.message)]) == 1
    assert monitor.sentence().startswith("No ReLU was seen")


def test_a_network_that_cannot_die_is_listed_as_such_without_a_warning(tmp_path):
    monitor = DeadReLUMonitor()

    trainer = fit(Toy(nn.Sequential(nn.Flatten(), nn.Linear(36, 4), nn.GELU())), [monitor], tmp_path)

    assert "net (gelu)" in monitor.sentence()
    assert not any(key.startswith("dead_relu") for key in trainer.callback_metrics)  # never "0 % dead"


def compiled(part):
    return torch.compile(part, backend="eager")


@pytest.mark.parametrize(
    ("make", "name", "seen"),
    [
        (
            lambda: Toy(nn.Sequential(nn.Flatten(), compiled(nn.Linear(36, 8)), nn.ReLU(), nn.Linear(8, 4))),
            "net.1",
            True,
        ),
        pytest.param(lambda: compiled(Toy(dense_network())), "Toy", False, marks=pytest.mark.slow),
    ],
    ids=["a_part", "the_whole"],
)
@pytest.mark.filterwarnings("ignore:.*saw no ReLU")
def test_what_is_compiled_is_named_in_one_warning_and_in_the_sentence(make, name, seen, tmp_path):
    torch._dynamo.reset()
    monitor = DeadReLUMonitor()

    with pytest.warns(UserWarning, match=rf"cannot see into: {name} \(compiled") as caught:
        fit(make(), [monitor], tmp_path)

    assert len([w for w in caught if "cannot see" in str(w.message)]) == 1
    assert f"Not counted: {name} (compiled" in monitor.sentence()
    assert ("units" in monitor.sentence()) is seen


def test_nan_weights_do_not_end_the_run_and_are_reported_once(tmp_path):
    net = dense_network()
    with torch.no_grad():
        net[1].weight[0, 0] = math.nan

    with pytest.warns(UserWarning, match="NaN") as caught:
        trainer = fit(Toy(net), [DeadReLUMonitor()], tmp_path)

    assert len([w for w in caught if "NaN" in str(w.message)]) == 1
    assert trainer.callback_metrics["dead_relu/total"].item() == 1.0


def test_several_validations_in_an_epoch_leave_one_record_per_epoch(tmp_path):
    logger = TensorBoardLogger(tmp_path, name=None, version="run")

    fit(Toy(), [DeadReLUMonitor()], tmp_path, logger=logger, val_check_interval=2)  # at 2 and 4 of 5 batches

    assert [step for step, _ in vectors(tmp_path, "activity/2")] == [3, 8]


def test_the_training_window_is_counted_on_training_examples(tmp_path):
    monitor = DeadReLUMonitor(window="train")

    trainer = fit(Toy(), [monitor], tmp_path)

    assert monitor.summary()["window"] == "train"
    assert "on 13 training examples" in monitor.sentence()
    assert trainer.callback_metrics["dead_relu/n"].item() == 13


@pytest.mark.parametrize(
    ("options", "message"), [({"window": "test"}, "window"), ({"rare_below": 0}, "not 0"), ({"dormancy_tau": -1}, "-1")]
)
def test_a_wrong_argument_is_an_error_that_names_it(options, message):
    with pytest.raises(MisconfigurationException, match=message):
        DeadReLUMonitor(**options)
