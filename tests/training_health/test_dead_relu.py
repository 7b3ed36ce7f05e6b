"""Planted truth: networks whose dead, rare and lively units are known are counted exactly."""

import math

import pytest
import pytorch_lightning as pl
import torch
from pytorch_lightning.loggers import TensorBoardLogger
from pytorch_lightning.utilities.exceptions import MisconfigurationException
from torch import nn
from torch.nn import functional as F
from torch.utils.data import DataLoader, TensorDataset

from tests.training_health.toys import FEW_EXAMPLES, Toy, events, fit, loader, make_trainer
from training_health import DeadReLUMonitor

pytestmark = FEW_EXAMPLES


class Watched(pl.LightningModule):
    """Runs a network in validation and nothing else."""

    def __init__(self, net: nn.Module) -> None:
        super().__init__()
        self.net = net

    def validation_step(self, batch, batch_idx):
        self.net(batch[0])


def validate(net: nn.Module, images: torch.Tensor, folder, batch_size: int = 50, **options) -> DeadReLUMonitor:
    monitor = DeadReLUMonitor(**options)
    trainer = make_trainer([monitor], folder)
    trainer.validate(Watched(net), DataLoader(TensorDataset(images), batch_size=batch_size), verbose=False)
    return monitor


def dense(dead: int, lively: int) -> nn.Linear:
    """Linear units on one input x: the first ``dead`` give -1 for any x in [0, 1], the others x + 1."""
    layer = nn.Linear(1, dead + lively)
    with torch.no_grad():
        layer.weight.fill_(1)
        layer.weight[:dead] = 0
        layer.bias.fill_(1)
        layer.bias[:dead] = -1
    return layer


def test_dead_units_of_a_dense_layer_are_counted_and_named_by_index(tmp_path):
    monitor = validate(nn.Sequential(dense(3, 5), nn.ReLU()), torch.rand(120, 1), tmp_path)

    summary = monitor.summary()
    assert (summary["dead"], summary["units"], summary["n"]) == (3, 8, 120)
    assert summary["sites"]["net"]["dead_units"] == [0, 1, 2]
    assert monitor.sentence() == "37.5 % of the network is dead (3 of 8 units, on 120 validation examples): net 3/8."


def test_a_dead_channel_is_one_unit_however_many_positions_it_has(tmp_path):
    conv = nn.Conv2d(1, 4, 3, padding=1)
    with torch.no_grad():
        conv.weight.fill_(0.1)
        conv.bias.copy_(torch.tensor([0.5, -100.0, 0.5, -100.0]))

    summary = validate(nn.Sequential(conv, nn.ReLU()), torch.rand(60, 1, 6, 6), tmp_path).summary()

    assert summary["sites"]["net"]["dead_units"] == [1, 3]
    assert summary["units"] == 4


def test_a_channel_dead_behind_batch_norm_is_counted(tmp_path):
    norm = nn.BatchNorm2d(3)
    with torch.no_grad():
        norm.bias.copy_(torch.tensor([0.0, -50.0, 0.0]))  # beta: far below what the normalised values reach

    net = nn.Sequential(nn.Conv2d(1, 3, 1, bias=False), norm, nn.ReLU())

    summary = validate(net, torch.randn(60, 1, 6, 6), tmp_path).summary()

    assert summary["sites"]["net"]["dead_units"] == [1]


class Functional(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.first, self.second = dense(1, 2), nn.Linear(3, 2)
        with torch.no_grad():
            self.second.weight.fill_(1)
            self.second.bias.copy_(torch.tensor([0.0, -99.0]))

    def forward(self, x):
        return F.relu(self.second(torch.relu(self.first(x))), inplace=True)


def test_functional_and_in_place_calls_are_counted(tmp_path):
    summary = validate(Functional(), torch.rand(30, 1), tmp_path).summary()

    assert {name: site["dead_units"] for name, site in summary["sites"].items()} == {"relu": [0], "relu:2": [1]}


class Shared(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.first, self.second, self.act = dense(2, 1), dense(0, 4), nn.ReLU(inplace=True)

    def forward(self, x):
        return self.act(self.second(self.act(self.first(x))[:, 2:]))


def test_the_calls_of_a_shared_module_are_kept_apart(tmp_path):
    summary = validate(Shared(), torch.rand(30, 1), tmp_path).summary()

    assert {name: (site["dead"], site["units"]) for name, site in summary["sites"].items()} == {
        "act": (2, 3),
        "act:2": (0, 4),
    }


def test_a_unit_alive_on_one_image_of_five_thousand_is_rare_and_not_dead(tmp_path):
    images = torch.zeros(5000, 1)
    images[4321] = 1.0
    layer = nn.Linear(1, 3)
    with torch.no_grad():
        layer.weight.fill_(1)
        layer.bias.copy_(torch.tensor([-0.5, -2.0, 1.0]))  # once, never, always

    monitor = validate(nn.Sequential(layer, nn.ReLU()), images, tmp_path, batch_size=500)

    site = monitor.summary()["sites"]["net"]
    assert (site["dead_units"], site["rare"], site["dead"]) == ([1], 1, 1)
    assert monitor._report.sites["net"].activity == [1 / 5000, 0.0, 1.0]


def test_rare_begins_below_the_threshold(tmp_path):
    images = torch.zeros(200, 1)
    images[:2] = 1.0  # exactly 1 %
    layer = nn.Linear(1, 1)
    with torch.no_grad():
        layer.weight.fill_(1)
        layer.bias.fill_(-0.5)
    net = nn.Sequential(layer, nn.ReLU())

    assert validate(net, images, tmp_path).summary()["rare"] == 0
    assert validate(net, images, tmp_path, rare_below=0.0101).summary()["rare"] == 1


def test_sparsity_is_the_share_of_zeros_and_not_of_dead_units(tmp_path):
    torch.manual_seed(0)
    images = torch.tensor([[-1.0], [1.0]]).repeat(50, 1)

    monitor = validate(nn.Sequential(nn.Linear(1, 6, bias=False), nn.ReLU()), images, tmp_path)

    site = monitor.summary()["sites"]["net"]
    assert (site["sparsity"], site["dead"]) == (0.5, 0)


def test_a_healthy_network_raises_no_alarm(tmp_path):
    torch.manual_seed(0)
    net = nn.Sequential(nn.Conv2d(1, 16, 3), nn.ReLU(), nn.Flatten(), nn.Linear(256, 64), nn.ReLU())

    summary = validate(net, torch.randn(1000, 1, 6, 6), tmp_path).summary()

    assert (summary["dead"], summary["rare"]) == (0, 0)


def test_resnet18_agrees_with_a_reference_that_stores_every_activation(tmp_path):
    from torchvision.models import resnet18

    torch.manual_seed(0)
    net, images = resnet18(weights=None), torch.randn(12, 3, 32, 32)
    for module in net.modules():  # some channels dead, some rare
        if isinstance(module, nn.BatchNorm2d):
            nn.init.uniform_(module.bias, -4, 1)
    stored = {}

    def store(name):
        def hook(module, args, output):
            calls[name] = calls.get(name, 0) + 1
            key = name if calls[name] == 1 else f"{name}:{calls[name]}"
            stored.setdefault(key, []).append(output.clone())

        return hook

    handles = [m.register_forward_hook(store(n)) for n, m in net.named_modules() if isinstance(m, nn.ReLU)]
    net.eval()
    with torch.no_grad():
        for batch in images.split(5):
            calls: dict[str, int] = {}
            net(batch)
    for handle in handles:
        handle.remove()

    sites = validate(net, images, tmp_path, batch_size=5)._report.sites

    assert list(sites) == list(stored)
    for name, outputs in stored.items():
        assert sites[name].active == (torch.cat(outputs) > 0).sum(dim=(0, 2, 3)).tolist()
    assert sum(len(site.dead) for site in sites.values()) > 100


def test_dropout_before_a_relu_is_off_in_the_window(tmp_path):
    net = nn.Sequential(dense(0, 4), nn.Dropout(0.99), nn.ReLU())

    assert validate(net, torch.rand(40, 1), tmp_path).summary()["sites"]["net"]["sparsity"] == 0.0


def test_dormancy_follows_sokars_equation_one(tmp_path):
    images = torch.ones(10, 1)
    layer = nn.Linear(1, 4, bias=False)
    with torch.no_grad():
        layer.weight.copy_(torch.tensor([[-1.0], [0.1], [1.9], [2.0]]))  # mean |h| = 1: scores 0, 0.1, 1.9, 2
    monitor = DeadReLUMonitor(dormancy_tau=0.2)
    trainer = make_trainer([monitor], tmp_path)

    trainer.validate(Watched(nn.Sequential(layer, nn.ReLU())), DataLoader(TensorDataset(images)), verbose=False)

    assert trainer.callback_metrics["dormant_relu/net"].item() == 0.5


def test_the_unit_dimension_can_be_named(tmp_path):
    net = nn.Sequential(nn.ReLU())

    summary = validate(net, torch.randn(20, 3, 7), tmp_path, unit_dims={"net.*": 2}).summary()

    assert summary["units"] == 7


def test_logged_values_and_records_agree_with_the_counts(tmp_path):
    logger = TensorBoardLogger(tmp_path, name=None, version="run")
    net = nn.Sequential(nn.Flatten(), nn.Linear(36, 8), nn.ReLU(), nn.Linear(8, 4))
    with torch.no_grad():
        net[1].bias[:2] = -1000

    trainer = fit(Toy(net, learning_rate=0.0), [DeadReLUMonitor()], tmp_path, logger=logger)

    metrics = trainer.callback_metrics
    assert metrics["dead_relu/total"].item() == metrics["dead_relu/net"].item() == 0.25
    assert metrics["dead_relu/n"].item() == 13
    assert (metrics["dead_relu/deaths"].item(), metrics["dead_relu/revivals"].item()) == (0, 0)
    records = [value for tag, _, value in events(tmp_path) if tag == "training_health/activity/net"]
    vectors = [torch.frombuffer(bytearray(r.tensor.tensor_content), dtype=torch.float32).tolist() for r in records]
    assert [vector[:4] for vector in vectors] == [[0, 13, 0, 0], [1, 13, 0, 0]]
    assert 1 - sum(vectors[1][2:]) / 8 == pytest.approx(metrics["sparsity/net"].item())


class Plunging(Toy):
    """Its first unit dies in the second epoch and comes back in the third."""

    def on_train_epoch_start(self):
        with torch.no_grad():
            self.net[1].bias[0] = -1000 if self.current_epoch == 1 else 1000


def plunging() -> Plunging:
    return Plunging(nn.Sequential(nn.Flatten(), nn.Linear(36, 8), nn.ReLU(), nn.Linear(8, 4)), learning_rate=0.0)


class History(pl.Callback):
    """Keeps the values of chosen keys after every epoch."""

    def __init__(self, *keys):
        self.keys, self.rows = keys, []

    def on_train_epoch_end(self, trainer, pl_module):
        metrics = trainer.callback_metrics
        self.rows.append(tuple(metrics[key].item() if key in metrics else None for key in self.keys))


def test_deaths_and_revivals_are_counted_from_one_epoch_to_the_next(tmp_path):
    history = History("dead_relu/deaths", "dead_relu/revivals")

    fit(plunging(), [DeadReLUMonitor(), history], tmp_path, epochs=3)

    assert history.rows == [(None, None), (1, 0), (0, 1)]


def test_a_resumed_run_goes_on_counting_deaths(tmp_path):
    first = make_trainer([DeadReLUMonitor()], tmp_path, epochs=2)
    first.fit(plunging(), loader(23), loader(13, seed=1))
    first.save_checkpoint(tmp_path / "two.ckpt")
    assert torch.load(tmp_path / "two.ckpt", weights_only=True)["epoch"] == 2
    history = History("dead_relu/deaths", "dead_relu/revivals")

    second = make_trainer([DeadReLUMonitor(), history], tmp_path, epochs=3)
    second.fit(plunging(), loader(23), loader(13, seed=1), ckpt_path=tmp_path / "two.ckpt", weights_only=True)

    assert history.rows == [(0, 1)]


def test_names_and_order_of_sites_stay_when_a_new_site_appears(tmp_path):
    class Growing(nn.Module):
        def __init__(self):
            super().__init__()
            self.first, self.second, self.act, self.extra = nn.Linear(1, 2), nn.Linear(2, 2), nn.ReLU(), nn.ReLU()
            self.more = False

        def forward(self, x):
            x = self.act(self.first(x))
            return self.second(self.extra(x) if self.more else x)

    net, monitor = Growing(), DeadReLUMonitor()
    trainer = make_trainer([monitor], tmp_path)
    data = DataLoader(TensorDataset(torch.rand(8, 1)), batch_size=4)

    trainer.validate(Watched(net), data, verbose=False)
    assert list(monitor.summary()["sites"]) == ["net"]
    net.more = True
    trainer.validate(Watched(net), data, verbose=False)

    assert list(monitor.summary()["sites"]) == ["net", "net.extra"]


def test_a_site_that_only_some_batches_reach_is_measured_on_those(tmp_path):
    class Sometimes(nn.Module):
        def __init__(self):
            super().__init__()
            self.first, self.second = nn.ReLU(), nn.ReLU()

        def forward(self, x):
            return self.second(x) if x[0, 0] > 0 else self.first(x)

    images = torch.cat([torch.ones(10, 3), -torch.ones(10, 3)])

    sites = validate(Sometimes(), images, tmp_path, batch_size=10).summary()["sites"]

    assert {name: (site["dead"], site["sparsity"]) for name, site in sites.items()} == {
        "second": (0, 0.0),
        "first": (3, 1.0),
    }


def test_a_model_without_relu_is_reported_once(tmp_path):
    monitor = DeadReLUMonitor()
    with pytest.warns(UserWarning, match="saw no ReLU") as caught:
        fit(Toy(nn.Sequential(nn.Flatten(), nn.Linear(36, 4))), [monitor], tmp_path)

    assert len([w for w in caught if "no ReLU" in str(w.message)]) == 1
    assert monitor.sentence() == "No ReLU was seen (on 13 validation examples)."


def test_a_network_that_cannot_die_is_listed_as_such_without_a_warning(tmp_path):
    monitor = DeadReLUMonitor()

    trainer = fit(Toy(nn.Sequential(nn.Flatten(), nn.Linear(36, 4), nn.GELU())), [monitor], tmp_path)

    assert monitor.sentence() == "No ReLU was seen (on 13 validation examples). Cannot die: net (gelu)."
    assert not any(key.startswith("dead_relu") for key in trainer.callback_metrics)  # never "0 % dead"


def test_a_compiled_part_is_named_in_one_warning_and_in_the_sentence(tmp_path):
    net = nn.Sequential(nn.Flatten(), torch.compile(nn.Linear(36, 8), backend="eager"), nn.ReLU(), nn.Linear(8, 4))
    monitor = DeadReLUMonitor()

    with pytest.warns(UserWarning, match=r"cannot see into: net.1 \(compiled") as caught:
        fit(Toy(net), [monitor], tmp_path)

    assert len([w for w in caught if "cannot see" in str(w.message)]) == 1
    assert monitor.sentence().endswith("Not counted: net.1 (compiled with torch.compile).")


def test_nan_weights_do_not_end_the_run_and_are_reported_once(tmp_path):
    net = nn.Sequential(nn.Flatten(), nn.Linear(36, 8), nn.ReLU(), nn.Linear(8, 4))
    with torch.no_grad():
        net[1].weight[0, 0] = math.nan

    with pytest.warns(UserWarning, match="hold NaN or infinity"):
        trainer = fit(Toy(net), [DeadReLUMonitor()], tmp_path)

    assert trainer.callback_metrics["dead_relu/total"].item() == 1.0


def test_several_validations_in_an_epoch_leave_one_record_per_epoch(tmp_path):
    logger = TensorBoardLogger(tmp_path, name=None, version="run")

    fit(Toy(), [DeadReLUMonitor()], tmp_path, logger=logger, val_check_interval=2)  # at 2 and 4 of 5 batches

    found = [(tag, step) for tag, step, _ in events(tmp_path) if tag.startswith("training_health/activity")]
    assert [step for _, step in found] == [3, 3, 8, 8]  # two sites; the last validation of each epoch
    assert len(set(found)) == 4


def test_the_training_window_is_counted_on_training_images(tmp_path):
    monitor = DeadReLUMonitor(window="train")

    trainer = fit(Toy(), [monitor], tmp_path)

    assert monitor.summary()["window"] == "train"
    assert " of 12 units, on 13 training examples): 2 " in monitor.sentence()
    assert trainer.callback_metrics["dead_relu/n"].item() == 13


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"window": "test"}, 'choose "validation" or "train"'),
        ({"rare_below": 0}, "above 0 and up to 1, not 0"),
        ({"dormancy_tau": -1}, "at least 0, not -1"),
    ],
)
def test_a_wrong_argument_is_refused(options, message):
    with pytest.raises(MisconfigurationException, match=message):
        DeadReLUMonitor(**options)
