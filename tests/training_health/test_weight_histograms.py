"""Histograms, update ratios and counts of non-finite values, beside a real fit."""

import json
import math

import pytest
import pytorch_lightning as pl
import torch
from pytorch_lightning.loggers import TensorBoardLogger
from pytorch_lightning.utilities.exceptions import MisconfigurationException
from torch import nn
from torch.nn import functional as F

from tests.training_health.toys import FEW_EXAMPLES, Toy, events, fit, loader, make_trainer
from training_health import WeightHistogramMonitor

pytestmark = FEW_EXAMPLES


def run(module, folder, *monitors, **options) -> pl.Trainer:
    logger = TensorBoardLogger(folder, name=None, version="run")
    return fit(module, list(monitors) or [WeightHistogramMonitor()], folder, logger=logger, **options)


def vectors(folder, tag: str) -> list[dict[str, float]]:
    """The values by parameter in each record of a tag."""
    found = []
    for _, _, value in (e for e in events(folder) if e[0] == f"training_health/{tag}"):
        names = json.loads(value.metadata.plugin_data.content)["parameters"]
        values = torch.frombuffer(bytearray(value.tensor.tensor_content), dtype=torch.float32).tolist()
        found.append({"epoch": values[0], "n": values[1], **dict(zip(names, values[2:], strict=True))})
    return found


def histograms(folder) -> dict[tuple[str, int], list[list[float]]]:
    """Buckets (left, right, count) by tag and step, as TensorBoard reads them."""
    from tensorboard.util.tensor_util import make_ndarray

    return {
        (tag, step): make_ndarray(value.tensor).tolist()
        for tag, step, value in events(folder)
        if value.metadata.plugin_data.plugin_name == "histograms"
    }


class Noting(pl.Callback):
    """Keeps the weights before and after every optimiser step, and the gradients."""

    def __init__(self):
        self.before, self.after, self.gradients = {}, {}, {}

    def on_before_optimizer_step(self, trainer, pl_module, optimizer):
        for name, parameter in pl_module.named_parameters():
            self.before[name] = parameter.detach().clone()
            self.gradients[name] = None if parameter.grad is None else parameter.grad.clone()

    def on_train_batch_end(self, trainer, pl_module, outputs, batch, batch_idx):
        self.after = {name: parameter.detach().clone() for name, parameter in pl_module.named_parameters()}


@pytest.mark.parametrize(
    "options",
    [{}, {"epochs": 3}, {"accumulate_grad_batches": 2}, {"limit_train_batches": 3}, {"max_steps": 3, "epochs": -1}],
    ids=lambda options: "-".join(options) or "plain",
)
def test_the_update_ratio_is_that_of_the_epochs_last_step(options, tmp_path):
    noting = Noting()

    trainer = run(Toy(), tmp_path, noting, WeightHistogramMonitor(), **({"epochs": 1} | options))

    record = vectors(tmp_path, "update_ratio")[-1]
    for name, before in noting.before.items():
        ratio = ((noting.after[name] - before).norm() / before.norm()).item()
        assert trainer.callback_metrics[f"update_ratio/{name}"].item() == pytest.approx(ratio, rel=1e-5)
        assert record[name] == pytest.approx(ratio, rel=1e-5)


def test_weights_and_the_last_steps_gradients_are_drawn_each_epoch(tmp_path):
    noting, module = Noting(), Toy()

    run(module, tmp_path, noting, WeightHistogramMonitor(bins=8))

    drawn = histograms(tmp_path)
    names = [name for name, _ in module.named_parameters()]
    assert set(drawn) == {(f"{kind}/{n}", step) for kind in ("weights", "gradients") for n in names for step in (4, 9)}
    for kind, tensors in (("weights", noting.after), ("gradients", noting.gradients)):
        for name, tensor in tensors.items():
            buckets = drawn[f"{kind}/{name}", 9]
            assert len(buckets) == 8
            assert sum(count for _, _, count in buckets) == tensor.numel()
            assert (buckets[0][0], buckets[-1][1]) == (tensor.min().item(), tensor.max().item())


def test_patterns_choose_parameters_and_epochs_are_skipped(tmp_path):
    monitor = WeightHistogramMonitor(parameters=["*.weight", "net.7.*"], every_n_epochs=2)

    run(Toy(), tmp_path, monitor, epochs=4)

    weights = {"net.0.weight", "net.1.weight", "net.5.weight", "net.7.weight", "net.7.bias"}
    assert {tag.removeprefix("weights/") for tag, _ in histograms(tmp_path) if tag.startswith("weights")} == weights
    assert [record["epoch"] for record in vectors(tmp_path, "nonfinite")] == [1, 3]


def test_nan_weights_and_gradients_are_counted_and_the_run_goes_on(tmp_path):
    module = Toy(nn.Sequential(nn.Flatten(), nn.Linear(36, 4)))
    with torch.no_grad():
        module.net[1].weight[0, :2] = torch.tensor([math.nan, math.inf])

    trainer = run(module, tmp_path, epochs=1)

    assert trainer.state.finished
    weight = vectors(tmp_path, "nonfinite")[0]["net.1.weight"]
    assert weight == torch.isfinite(module.net[1].weight).logical_not().sum().item() > 0
    assert trainer.callback_metrics["nonfinite/net.1.weight"].item() == weight
    assert trainer.callback_metrics["nonfinite_gradients/net.1.bias"].item() == 4
    assert vectors(tmp_path, "nonfinite_gradients")[0]["net.1.bias"] == 4
    assert ("gradients/net.1.bias", 4) not in histograms(tmp_path)  # nothing finite to draw


def test_half_broken_weights_show_their_finite_part(tmp_path):
    class Untouched(Toy):
        def configure_optimizers(self):
            return torch.optim.SGD(self.net[2].parameters(), 0.1)

    module = Untouched(nn.Sequential(nn.Flatten(), nn.Linear(36, 8), nn.Linear(8, 4)))
    with torch.no_grad():
        module.net[1].bias.copy_(torch.tensor([math.nan, 1, 2, 3, 4, 5, 6, math.inf]))

    run(module, tmp_path, epochs=1)

    buckets = histograms(tmp_path)["weights/net.1.bias", 4]
    assert (buckets[0][0], buckets[-1][1], sum(count for *_, count in buckets)) == (1, 6, 6)


def test_a_frozen_parameter_is_drawn_and_has_no_update_ratio(tmp_path):
    module = Toy()
    module.net[0].requires_grad_(False)

    trainer = run(module, tmp_path, epochs=1)

    assert ("weights/net.0.weight", 4) in histograms(tmp_path)
    assert "update_ratio/net.0.weight" not in trainer.callback_metrics
    assert math.isnan(vectors(tmp_path, "update_ratio")[0]["net.0.weight"])
    assert math.isnan(vectors(tmp_path, "nonfinite_gradients")[0]["net.0.weight"])


def test_a_parameter_in_no_optimiser_shows_as_not_moving(tmp_path):
    class Forgotten(Toy):
        def configure_optimizers(self):
            return torch.optim.SGD(self.net[2].parameters(), 0.1)

    module = Forgotten(nn.Sequential(nn.Flatten(), nn.Linear(36, 8), nn.Linear(8, 4)))

    trainer = run(module, tmp_path, epochs=1)

    assert trainer.callback_metrics["update_ratio/net.1.weight"].item() == 0.0
    assert trainer.callback_metrics["update_ratio/net.2.weight"].item() > 0.0


def test_a_parameter_without_a_gradient_shows_as_not_moving(tmp_path):
    class Detached(Toy):
        def on_after_backward(self):
            self.net[1].weight.grad = None

    trainer = run(Detached(nn.Sequential(nn.Flatten(), nn.Linear(36, 4))), tmp_path, epochs=1)

    assert trainer.callback_metrics["update_ratio/net.1.weight"].item() == 0.0
    assert trainer.callback_metrics["update_ratio/net.1.bias"].item() > 0.0


def test_a_parameter_of_norm_zero_has_no_update_ratio(tmp_path):
    module = Toy(nn.Sequential(nn.Flatten(), nn.Linear(36, 4)), learning_rate=0.0)
    nn.init.zeros_(module.net[1].bias)

    trainer = run(module, tmp_path, epochs=1)

    assert "update_ratio/net.1.bias" not in trainer.callback_metrics
    assert trainer.callback_metrics["update_ratio/net.1.weight"].item() == 0.0


def test_empty_and_sparse_parameters_are_no_trouble(tmp_path):
    class Odd(Toy):
        def __init__(self):
            super().__init__(nn.Sequential(nn.Flatten(), nn.Linear(36, 4)))
            self.empty = nn.Parameter(torch.empty(0, 3))
            self.table = nn.Embedding(10, 4, sparse=True)

        def training_step(self, batch, batch_idx):
            return F.cross_entropy(self.net(batch[0]) + self.table(batch[1]), batch[1]) + self.empty.sum()

        def configure_optimizers(self):
            return torch.optim.SGD(self.parameters(), 0.1)

    trainer = run(Odd(), tmp_path, epochs=1)

    assert trainer.callback_metrics["nonfinite/empty"].item() == 0
    assert ("gradients/table.weight", 4) in histograms(tmp_path)


class Adversarial(pl.LightningModule):
    """Two optimisers, stepped by hand, one every other batch."""

    def __init__(self):
        super().__init__()
        self.automatic_optimization = False
        self.one, self.other = nn.Linear(36, 4), nn.Linear(36, 4)

    def training_step(self, batch, batch_idx):
        for part, optimizer in zip((self.one, self.other), self.optimizers(), strict=True):
            if part is self.one or batch_idx % 2 == 0:
                optimizer.zero_grad()
                self.manual_backward(F.cross_entropy(part(batch[0].flatten(1)), batch[1]))
                optimizer.step()

    def configure_optimizers(self):
        return [torch.optim.SGD(part.parameters(), 0.1) for part in (self.one, self.other)]


@pytest.mark.parametrize(("images", "both"), [(23, True), (19, False)])  # the last batch is even or odd
def test_several_optimisers_stepped_by_hand_are_each_measured(images, both, tmp_path):
    trainer = make_trainer([WeightHistogramMonitor()], tmp_path, epochs=1)

    trainer.fit(Adversarial(), loader(images))

    assert trainer.callback_metrics["update_ratio/one.weight"].item() > 0
    assert ("update_ratio/other.weight" in trainer.callback_metrics) is both


def test_an_epoch_without_a_last_step_is_said_once(tmp_path):
    class Cut(Toy):
        def on_train_batch_start(self, batch, batch_idx):
            return -1 if batch_idx == 2 else None

    with pytest.warns(UserWarning, match="no optimiser step in the epoch's last batch") as caught:
        trainer = run(Cut(), tmp_path)

    assert len([w for w in caught if "no optimiser step" in str(w.message)]) == 1
    assert not any(key.startswith("update_ratio") for key in trainer.callback_metrics)
    assert trainer.callback_metrics["nonfinite/net.0.weight"].item() == 0


def test_copies_of_the_weights_do_not_stay(tmp_path):
    monitor = WeightHistogramMonitor()

    run(Toy(), tmp_path, monitor)

    assert (monitor._before, monitor._copies, monitor._gradients, monitor._names) == ({}, {}, {}, {})


@pytest.mark.parametrize(
    ("options", "message"),
    [({"every_n_epochs": 0}, "at least 1, not 0 and 64"), ({"bins": 0}, "at least 1, not 1 and 0")],
)
def test_a_wrong_argument_is_refused(options, message):
    with pytest.raises(MisconfigurationException, match=message):
        WeightHistogramMonitor(**options)


def test_a_pattern_that_matches_nothing_is_refused_with_the_names_there_are(tmp_path):
    with pytest.raises(MisconfigurationException, match=r"matches no parameter. There are: net.0.weight, net.0.bias"):
        fit(Toy(), [WeightHistogramMonitor(parameters="conv*")], tmp_path)
