"""The gap between training and validation, measured beside a real fit."""

import copy
import math

import pytest
import torch
from torch import nn
from torch.nn import functional as F
from torch.utils.data import DataLoader, IterableDataset
from torchmetrics.classification import MulticlassAccuracy

from tests.training_health.toys import FEW_EXAMPLES, Toy, dense_network, fit, image_set, loader, make_trainer, vectors
from training_health import DeadReLUMonitor, TrainValGapMonitor
from training_health.lightning import MisconfigurationException

pytestmark = FEW_EXAMPLES


def evaluated(net: nn.Module) -> tuple[float, float, float, float]:
    """By hand, each set at once, eval mode: accuracy and loss on the sample, accuracy and loss in validation."""
    net, results = copy.deepcopy(net).eval(), []
    sample = torch.randperm(23, generator=torch.Generator().manual_seed(0))[:13]
    for (inputs, labels), chosen in ((image_set(23).tensors, sample), (image_set(13, seed=1).tensors, slice(None))):
        with torch.no_grad():
            logits = net(inputs[chosen])
        correct = (logits.argmax(1) == labels[chosen]).double().mean()
        results += [correct.item(), F.cross_entropy(logits, labels[chosen]).item()]
    return tuple(results)


class WithMetricObject(Toy):
    """Logs a metric object and a loss under its own keys, as Lightning's documentation advises."""

    def __init__(self) -> None:
        super().__init__()
        self.accuracy = MulticlassAccuracy(num_classes=4, average="micro")

    def validation_step(self, batch, batch_idx):
        logits = self.net(batch[0])
        self.accuracy(logits, batch[1])
        self.log_dict({"acc": self.accuracy, "ce": F.cross_entropy(logits, batch[1])})


@pytest.mark.parametrize(
    ("make", "keys", "method"),
    [
        (Toy, {}, "per-example losses"),
        (lambda: Toy(exact=False), {}, "batch means"),
        (WithMetricObject, {"accuracy_key": "acc", "loss_key": "ce"}, "batch means"),
    ],
    ids=["per_example_results", "logged_means", "metric_object"],
)
def test_both_sides_are_measured_in_eval_mode_at_the_final_weights(make, keys, method, tmp_path):
    module, monitor = make(), TrainValGapMonitor(**keys)

    logged = {key: value.item() for key, value in fit(module, [monitor], tmp_path).callback_metrics.items()}

    train_accuracy, train_loss, val_accuracy, val_loss = evaluated(module.net)
    expected = {
        "gap/train_eval_accuracy": train_accuracy, "gap/train_eval_loss": train_loss,
        "gap/accuracy": train_accuracy - val_accuracy, "gap/loss": val_loss - train_loss,
        "gap/mode_effect": train_accuracy - logged["train/accuracy"],
        monitor.accuracy_key: val_accuracy, monitor.loss_key: val_loss,  # the module's own are untouched
    }  # fmt: skip
    assert {key: logged[key] for key in expected} == pytest.approx(expected, abs=1e-6)
    assert logged["gap/loss_se"] > 0
    assert method in monitor.summary()["se_method"]


def test_nothing_to_compare_is_said_once_with_the_keys_there_are(tmp_path):
    with pytest.warns(UserWarning, match="Logged are: train/accuracy, train/loss, val/accuracy, val/loss") as caught:
        trainer = fit(Toy(exact=False), [TrainValGapMonitor(accuracy_key="a", loss_key="b")], tmp_path)

    assert len([w for w in caught if "nothing to compare" in str(w.message)]) == 1
    assert not any(key.startswith("gap/") for key in trainer.callback_metrics)


class Regression(Toy):
    def validation_step(self, batch, batch_idx):
        return {"losses": F.cross_entropy(self.net(batch[0]), batch[1], reduction="none")}


@pytest.mark.parametrize(
    ("make", "options", "absent", "present"),
    [
        (Regression, {}, "gap/accuracy", "gap/loss_se"),
        (Toy, {"train_accuracy_key": "nothing"}, "gap/mode_effect", "gap/accuracy"),
    ],
    ids=["a_loss_alone", "no_running_accuracy"],
)
def test_what_is_unknown_is_left_out_alone(make, options, absent, present, tmp_path):
    monitor = TrainValGapMonitor(**options)

    logged = fit(make(), [monitor], tmp_path).callback_metrics

    assert absent not in logged
    assert present in logged
    assert monitor.summary()["mode_effect"] is None


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
    fit(Toy(), [TrainValGapMonitor()], tmp_path, epochs=4, logger="tensorboard", **options)

    assert [vector[0] for _, vector in vectors(tmp_path, "gap")] == epochs


def test_the_record_holds_the_summary(tmp_path):
    monitor = TrainValGapMonitor(examples=7)
    fit(Toy(), [monitor], tmp_path, epochs=1, logger="tensorboard")

    ((step, vector),) = vectors(tmp_path, "gap")
    *values, n_train, n_val, _, _ = monitor.summary().values()
    assert (step, n_train, n_val) == (4, 7, 13)
    assert vector == pytest.approx([0, 13, *values], abs=1e-6)


class Counting(Toy):
    def validation_step(self, batch, batch_idx):
        BATCHES.append(len(batch[0]))  # not in the module, which forgets the sample
        return super().validation_step(batch, batch_idx)


BATCHES: list[int] = []


@pytest.mark.parametrize("first", ["dead", "gap"])
def test_two_monitors_have_one_pass_over_the_sample_whatever_their_order(first, tmp_path):
    BATCHES.clear()
    dead, gap = DeadReLUMonitor(window="train"), TrainValGapMonitor(examples=7)

    fit(Counting(), [dead, gap] if first == "dead" else [gap, dead], tmp_path, epochs=1)

    assert BATCHES == [5, 5, 3, 5, 2]  # validation, then one pass over the sample
    assert dead.summary()["n"] == gap.summary()["n_train"] == 7


def test_a_monitor_that_was_taken_away_is_not_called_in_the_next_fit(tmp_path):
    dead, gap = DeadReLUMonitor(window="train"), TrainValGapMonitor()
    trainer = fit(Toy(), [dead, gap], tmp_path, epochs=1)
    before = gap.summary()
    trainer.callbacks.remove(gap)
    trainer.fit_loop.max_epochs = 2
    trainer.fit(Toy(), loader(23), loader(9, seed=1))

    assert (dead.summary()["n"], gap.summary()) == (9, before)


class Stream(IterableDataset):
    def __iter__(self):
        return iter(zip(*image_set(10).tensors, strict=True))


def test_a_stream_of_training_examples_is_skipped_with_one_warning(tmp_path):
    monitor = TrainValGapMonitor()

    with pytest.warns(UserWarning, match="No sample of training examples") as caught:
        make_trainer([monitor], tmp_path).fit(Toy(), DataLoader(Stream(), batch_size=5), loader(13))

    assert len([w for w in caught if "No sample" in str(w.message)]) == 1
    assert monitor.summary() == {}


def test_a_validation_step_that_fails_on_training_examples_does_not_end_the_run(tmp_path):
    class Picky(Toy):
        def validation_step(self, batch, batch_idx):
            if "log" in vars(self):  # only there in the sample pass
                raise KeyError("no such field")
            return super().validation_step(batch, batch_idx)

    with pytest.warns(UserWarning, match="failed on a sample.*no such field"):
        trainer = fit(Picky(), [TrainValGapMonitor()], tmp_path)

    assert trainer.state.finished


def test_a_diverged_network_does_not_end_the_run(tmp_path):
    module = Toy(dense_network())
    nn.init.constant_(module.net[1].bias, math.nan)

    assert fit(module, [TrainValGapMonitor()], tmp_path).state.finished


def test_a_sample_without_examples_and_a_second_monitor_are_errors(tmp_path):
    with pytest.raises(MisconfigurationException, match="at least 1"):
        TrainValGapMonitor(examples=0)
    with pytest.raises(MisconfigurationException, match="one `TrainValGapMonitor`"):
        fit(Toy(), [TrainValGapMonitor(), TrainValGapMonitor()], tmp_path)
