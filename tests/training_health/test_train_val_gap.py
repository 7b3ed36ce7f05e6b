"""The gap between training and validation, measured beside a real fit."""

import copy
import json
import math

import pytest
import pytorch_lightning as pl
import torch
from pytorch_lightning.loggers import TensorBoardLogger
from pytorch_lightning.utilities.exceptions import MisconfigurationException
from torch import nn
from torch.nn import functional as F
from torch.utils.data import DataLoader, IterableDataset
from torchmetrics.classification import MulticlassAccuracy

from tests.training_health.toys import FEW_EXAMPLES, Toy, events, fit, image_set, loader, make_trainer
from training_health import DeadReLUMonitor, TrainValGapMonitor
from training_health.gap.records import COLUMNS

pytestmark = FEW_EXAMPLES


def evaluated(net: nn.Module, indices: list[int] | None, count: int, seed: int = 0) -> tuple[float, float]:
    """Accuracy and loss by hand: the whole set at once, eval mode."""
    images, labels = image_set(count, seed).tensors
    if indices is not None:
        images, labels = images[indices], labels[indices]
    with torch.no_grad():
        logits = copy.deepcopy(net).eval()(images)
    return (logits.argmax(1) == labels).double().mean().item(), F.cross_entropy(logits, labels).item()


def sample_of_13() -> list[int]:
    return torch.randperm(23, generator=torch.Generator().manual_seed(0))[:13].tolist()


def test_both_sides_are_measured_in_eval_mode_at_the_final_weights(tmp_path):
    module = Toy()

    metrics = fit(module, [TrainValGapMonitor()], tmp_path).callback_metrics

    train_accuracy, train_loss = evaluated(module.net, sample_of_13(), 23)
    val_accuracy, val_loss = evaluated(module.net, None, 13, seed=1)
    assert metrics["gap/train_eval_accuracy"].item() == pytest.approx(train_accuracy)
    assert metrics["gap/train_eval_loss"].item() == pytest.approx(train_loss)
    assert metrics["gap/accuracy"].item() == pytest.approx(train_accuracy - val_accuracy, abs=1e-6)
    assert metrics["gap/loss"].item() == pytest.approx(val_loss - train_loss, abs=1e-6)
    mode_effect = train_accuracy - metrics["train/accuracy"].item()
    assert metrics["gap/mode_effect"].item() == pytest.approx(mode_effect, abs=1e-6)


def test_a_network_that_knows_its_training_images_by_heart_has_a_gap(tmp_path):
    torch.manual_seed(0)
    module = Toy(nn.Sequential(nn.Flatten(), nn.Linear(36, 64), nn.ReLU(), nn.Linear(64, 4)))
    monitor = TrainValGapMonitor()
    trainer = make_trainer([monitor], tmp_path, epochs=30)

    trainer.fit(module, loader(40, batch_size=10), loader(200, batch_size=50, seed=1))

    assert monitor.summary()["train_eval_accuracy"] == 1.0
    assert monitor.summary()["n_train"] == 40  # all there are
    assert monitor.summary()["beyond_noise"] is True
    assert monitor.sentence().endswith("that is not overfitting.")


def test_logged_means_serve_a_module_that_returns_no_per_image_results(tmp_path):
    module, monitor = Toy(exact=False), TrainValGapMonitor()

    metrics = fit(module, [monitor], tmp_path).callback_metrics

    train_accuracy, train_loss = evaluated(module.net, sample_of_13(), 23)
    assert metrics["gap/train_eval_accuracy"].item() == pytest.approx(train_accuracy, abs=1e-6)
    assert metrics["gap/train_eval_loss"].item() == pytest.approx(train_loss, abs=1e-6)
    val_accuracy, val_loss = metrics["val/accuracy"].item(), metrics["val/loss"].item()
    assert metrics["gap/accuracy"].item() == pytest.approx(train_accuracy - val_accuracy, abs=1e-6)
    assert metrics["gap/loss"].item() == pytest.approx(val_loss - train_loss, abs=1e-6)
    assert "batch means" in monitor.summary()["se_method"]
    assert monitor.summary()["loss_gap_se"] > 0


class WithMetricObject(Toy):
    """Logs a metric object under its own keys, as Lightning's documentation advises."""

    def __init__(self) -> None:
        super().__init__()
        self.accuracy = MulticlassAccuracy(num_classes=4, average="micro")

    def validation_step(self, batch, batch_idx):
        images, labels = batch
        logits = self.net(images)
        self.accuracy(logits, labels)
        self.log_dict({"acc": self.accuracy, "ce": F.cross_entropy(logits, labels)})


def test_a_logged_metric_object_is_computed_on_the_sample_and_left_as_it_was(tmp_path):
    module = WithMetricObject()

    metrics = fit(module, [TrainValGapMonitor(accuracy_key="acc", loss_key="ce")], tmp_path).callback_metrics

    train_accuracy, _ = evaluated(module.net, sample_of_13(), 23)
    val_accuracy, _ = evaluated(module.net, None, 13, seed=1)
    assert metrics["gap/train_eval_accuracy"].item() == pytest.approx(train_accuracy)
    assert metrics["acc"].item() == pytest.approx(val_accuracy)
    assert metrics["gap/accuracy"].item() == pytest.approx(train_accuracy - val_accuracy, abs=1e-6)


def test_nothing_to_compare_is_said_once_with_the_keys_there_are(tmp_path):
    with pytest.warns(UserWarning, match="Logged are: train/accuracy, train/loss, val/accuracy, val/loss") as caught:
        trainer = fit(Toy(exact=False), [TrainValGapMonitor(accuracy_key="a", loss_key="b")], tmp_path)

    assert len([w for w in caught if "nothing to compare" in str(w.message)]) == 1
    assert not any(key.startswith("gap/") for key in trainer.callback_metrics)


def test_a_loss_alone_gives_a_gap_in_loss(tmp_path):
    class Regression(Toy):
        def validation_step(self, batch, batch_idx):
            return {"losses": F.cross_entropy(self.net(batch[0]), batch[1], reduction="none")}

    monitor = TrainValGapMonitor()
    metrics = fit(Regression(), [monitor], tmp_path).callback_metrics

    assert "gap/accuracy" not in metrics
    assert metrics["gap/loss_se"].item() > 0
    assert monitor.sentence().startswith("The gap in loss is ")


class Epochs(pl.Callback):
    """Notes in which epochs a gap was written."""

    def __init__(self, folder):
        self.folder = folder

    def epochs(self):
        found = [v for tag, _, v in events(self.folder) if tag == "training_health/gap"]
        return [int(torch.frombuffer(bytearray(v.tensor.tensor_content), dtype=torch.float32)[0]) for v in found]


@pytest.mark.parametrize(
    ("options", "epochs"),
    [
        ({}, [0, 1, 2, 3]),
        ({"check_val_every_n_epoch": 2}, [1, 3]),
        ({"val_check_interval": 2}, [0, 1, 2, 3]),
        ({"limit_val_batches": 0}, []),
    ],
)
def test_an_epoch_without_validation_has_no_gap_and_one_with_several_has_one(options, epochs, tmp_path):
    logger = TensorBoardLogger(tmp_path, name=None, version="run")

    fit(Toy(), [TrainValGapMonitor()], tmp_path, epochs=4, logger=logger, **options)

    assert Epochs(tmp_path).epochs() == epochs


def test_the_record_holds_the_named_columns_and_what_they_were_measured_on(tmp_path):
    logger = TensorBoardLogger(tmp_path, name=None, version="run")
    monitor = TrainValGapMonitor(examples=7)

    fit(Toy(), [monitor], tmp_path, epochs=1, logger=logger)

    ((step, value),) = [(step, v) for tag, step, v in events(tmp_path) if tag == "training_health/gap"]
    content = json.loads(value.metadata.plugin_data.content)
    vector = torch.frombuffer(bytearray(value.tensor.tensor_content), dtype=torch.float32).tolist()
    summary = monitor.summary()
    assert step == 4
    assert (content["version"], content["kind"], content["n_train"], content["n_val"]) == (1, "gap", 7, 13)
    assert content["columns"] == COLUMNS
    assert vector == pytest.approx([0, 13, *(summary[name] for name in COLUMNS)], abs=1e-6)


def test_tensorboards_custom_scalars_put_both_sides_and_the_gap_side_by_side(tmp_path):
    from tensorboard.plugins.custom_scalar.layout_pb2 import Layout

    logger = TensorBoardLogger(tmp_path, name=None, version="run")
    fit(Toy(), [TrainValGapMonitor()], tmp_path, epochs=1, logger=logger)

    (value,) = [v for tag, _, v in events(tmp_path) if tag == "custom_scalars__config__"]
    layout = Layout.FromString(value.tensor.string_val[0])
    charts = {f"{category.title}/{chart.title}": chart for category in layout.category for chart in category.chart}
    lines = charts["Training and validation/accuracy"].multiline.tag
    assert list(lines) == ["^train/accuracy$", "^gap/train_eval_accuracy$", "^val/accuracy$"]
    series = charts["Gap, with two standard errors/loss"].margin.series[0]
    assert (series.lower, series.value, series.upper) == ("gap/loss_lower", "gap/loss", "gap/loss_upper")


@pytest.mark.parametrize("first", ["dead", "gap"])
def test_the_dead_relu_monitor_shares_the_pass_whatever_the_order(first, tmp_path):
    class Counting(Toy):
        def validation_step(self, batch, batch_idx):
            seen.append(len(batch[0]))
            return super().validation_step(batch, batch_idx)

    seen: list[int] = []
    dead, gap = DeadReLUMonitor(window="train"), TrainValGapMonitor(examples=7)

    fit(Counting(), [dead, gap] if first == "dead" else [gap, dead], tmp_path, epochs=1)

    assert seen == [5, 5, 3, 5, 2]  # validation, then one pass over the sample
    assert dead.summary()["n"] == gap.summary()["n_train"] == 7


class Stream(IterableDataset):
    def __iter__(self):
        return iter(zip(*image_set(10).tensors, strict=True))


def test_a_stream_of_training_images_is_skipped_with_one_warning(tmp_path):
    monitor = TrainValGapMonitor()
    trainer = make_trainer([monitor], tmp_path)

    with pytest.warns(UserWarning, match="No sample of training examples") as caught:
        trainer.fit(Toy(), DataLoader(Stream(), batch_size=5), loader(13))

    assert len([w for w in caught if "No sample" in str(w.message)]) == 1
    assert monitor.summary() == {}


def test_a_validation_step_that_fails_on_training_images_does_not_end_the_run(tmp_path):
    class Picky(Toy):
        def validation_step(self, batch, batch_idx):
            if "log" in vars(self):  # only there in the sample pass
                raise KeyError("no such field")
            return super().validation_step(batch, batch_idx)

    with pytest.warns(UserWarning, match="failed on a sample of training examples.*no such field"):
        trainer = fit(Picky(), [TrainValGapMonitor()], tmp_path)

    assert trainer.state.finished


def test_a_missing_running_accuracy_leaves_only_the_mode_effect_out(tmp_path):
    monitor = TrainValGapMonitor(train_accuracy_key="nothing")

    metrics = fit(Toy(), [monitor], tmp_path).callback_metrics

    assert "gap/mode_effect" not in metrics
    assert "gap/accuracy" in metrics
    assert monitor.summary()["mode_effect"] is None


def test_a_diverged_network_does_not_end_the_run(tmp_path):
    module = Toy(nn.Sequential(nn.Flatten(), nn.Linear(36, 4)))
    with torch.no_grad():
        module.net[1].bias.fill_(math.nan)

    trainer = fit(module, [TrainValGapMonitor()], tmp_path)

    assert trainer.state.finished


def test_no_images_are_refused():
    with pytest.raises(MisconfigurationException, match="at least 1, or None"):
        TrainValGapMonitor(examples=0)


def test_two_monitors_are_refused(tmp_path):
    with pytest.raises(MisconfigurationException, match="Use one `TrainValGapMonitor`"):
        fit(Toy(), [TrainValGapMonitor(), TrainValGapMonitor()], tmp_path)
