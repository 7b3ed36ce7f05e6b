"""The gap between training and validation, measured beside a real fit."""

import copy
import math
from functools import partial
from typing import ClassVar

import pytest
import torch
from torch import nn
from torch.nn import functional as F
from torch.utils.data import DataLoader, IterableDataset
from torchmetrics.classification import MulticlassAccuracy

from tests.training_health.toys import FEW_EXAMPLES, Toy, dense_network, fit, image_set, loader, make_trainer, vectors
from training_health import DeadReLUMonitor, TrainValGapMonitor, WeightHistogramMonitor
from training_health.lightning import Callback, MisconfigurationException

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


def test_the_method_names_no_metric_that_is_unknown(tmp_path):
    monitor = TrainValGapMonitor(accuracy_key="val/none")
    fit(Toy(dense_network(), exact=False), [monitor], tmp_path)
    assert monitor.summary()["se_method"] == "batch means"


class InPercent(Toy):
    def validation_step(self, batch, batch_idx):
        self.log("val/percent", 100 * (self.net(batch[0]).argmax(1) == batch[1]).float().mean())
        return super().validation_step(batch, batch_idx)


def test_an_accuracy_in_percent_is_left_out_with_a_word(tmp_path):
    monitor = TrainValGapMonitor(accuracy_key="val/percent")
    with pytest.warns(UserWarning, match=r"'val/percent' is no fraction"):
        logged = fit(InPercent(dense_network(), exact=False), [monitor], tmp_path).callback_metrics
    assert {"gap/loss", "gap/accuracy"} & set(logged) == {"gap/loss"}


@pytest.mark.parametrize("monitors", [[DeadReLUMonitor()], [DeadReLUMonitor(), TrainValGapMonitor()]])
def test_a_fit_without_validation_is_told_once_that_nothing_is_measured(monitors, tmp_path):
    with pytest.warns(UserWarning, match="no validation") as caught:
        fit(Toy(dense_network()), monitors, tmp_path, limit_val_batches=0)
    assert sum("no validation" in str(warning.message) for warning in caught) == 1


class CountsEnds(Toy):
    """Logs in its steps, and counts its epochs' ends outside of its own state."""

    ends: ClassVar[list[str]] = []

    def on_validation_epoch_end(self):
        self.ends.append("end")


@pytest.mark.parametrize("exact", [True, False])
def test_the_hook_at_the_epochs_end_runs_once_where_the_steps_say_all(exact, tmp_path):
    CountsEnds.ends.clear()
    monitor = TrainValGapMonitor()

    fit(CountsEnds(dense_network(), exact), [monitor], tmp_path, epochs=2)

    assert CountsEnds.ends == ["end", "end"]
    assert monitor.summary()["n_train"] == 13


class InColumns(Toy):
    """Returns a column where a vector is asked for."""

    def validation_step(self, batch, batch_idx):
        return {name: values[:, None] for name, values in super().validation_step(batch, batch_idx).items()}


def test_results_for_each_example_may_be_a_column(tmp_path):
    module, monitor = InColumns(dense_network()), TrainValGapMonitor()

    fit(module, [monitor], tmp_path)

    train_accuracy, train_loss, val_accuracy, val_loss = evaluated(module.net)
    assert monitor.summary()["accuracy_gap"] == pytest.approx(train_accuracy - val_accuracy)
    assert monitor.summary()["loss_gap"] == pytest.approx(val_loss - train_loss, abs=1e-6)
    assert "per-example losses" in monitor.summary()["se_method"]


class AtTheEnd(Toy):
    """Updates a metric in the step; computes and logs it at the epoch's end."""

    def __init__(self) -> None:
        super().__init__(dense_network())
        self.metric = MulticlassAccuracy(num_classes=4, average="micro")

    def validation_step(self, batch, batch_idx):
        self.metric.update(self.net(batch[0]), batch[1])

    def on_validation_epoch_end(self):
        self.log("val/accuracy", self.metric.compute())
        self.metric.reset()


class Emptying(Toy):
    """Empties what it keeps in one of the hooks around validation."""

    def __init__(self, hook: str) -> None:
        super().__init__()
        self.correct: list[torch.Tensor] = []
        setattr(self, hook, self.correct.clear)

    def validation_step(self, batch, batch_idx):
        self.correct.append(self.net(batch[0]).argmax(1) == batch[1])

    def on_validation_epoch_end(self):
        self.log("val/accuracy", torch.cat(self.correct).float().mean())


HOOKS = ("on_validation_start", "on_validation_epoch_start", "on_validation_end")


@pytest.mark.parametrize("make", [AtTheEnd, *(partial(Emptying, hook) for hook in HOOKS)], ids=["metric", *HOOKS])
def test_what_is_logged_at_the_epochs_end_gives_a_gap_of_the_sample_alone(make, tmp_path):
    module = make()

    logged = fit(module, [TrainValGapMonitor()], tmp_path).callback_metrics

    train_accuracy, _, val_accuracy, _ = evaluated(module.net)
    assert logged["gap/accuracy"] == pytest.approx(train_accuracy - val_accuracy)
    assert logged["val/accuracy"] == pytest.approx(val_accuracy)


class MacroAccuracy(WithMetricObject):
    def __init__(self) -> None:
        super().__init__()
        self.accuracy = MulticlassAccuracy(num_classes=4, average="macro")


class PixelAccuracy(Toy):
    """Every example is a mean of many pixels."""

    def validation_step(self, batch, batch_idx):
        self.log("val/accuracy", 0.31 + batch_idx / 10)


def test_an_accuracy_over_classes_has_no_standard_error_of_examples(tmp_path):
    monitor = TrainValGapMonitor(accuracy_key="acc", loss_key="ce")

    fit(MacroAccuracy(), [monitor], tmp_path)

    found = monitor.summary()
    assert found["accuracy_gap_se"] is None
    assert "whether that is noise is unknown" in monitor.sentence()
    assert found["se_method"] == "unknown; batch means"


def test_an_accuracy_over_pixels_has_the_standard_error_of_its_batch_means(tmp_path):
    monitor = TrainValGapMonitor()

    fit(PixelAccuracy(), [monitor], tmp_path)

    # Batches of 5, 5 and 3 examples with means 0.31, 0.41 and 0.51, on both sides.
    mean = (5 * 0.31 + 5 * 0.41 + 3 * 0.51) / 13
    squares = 5 * (0.31 - mean) ** 2 + 5 * (0.41 - mean) ** 2 + 3 * (0.51 - mean) ** 2
    assert monitor.summary()["accuracy_gap_se"] == pytest.approx((2 * squares / 2 / 13) ** 0.5, rel=1e-5)
    assert monitor.summary()["se_method"] == "batch means"


@pytest.mark.parametrize(
    ("options", "idx"),
    [({}, 0), ({"dataloader_idx": 1}, 1), ({"loss_key": "val/loss/dataloader_idx_1"}, 1)],
)
def test_of_several_validation_loaders_one_is_compared_which_is_said(options, idx, tmp_path):
    class Several(Toy):
        def validation_step(self, batch, batch_idx, dataloader_idx=0):
            return super().validation_step(batch, batch_idx)

    module, monitor = Several(dense_network(), exact=False), TrainValGapMonitor(**options)
    trainer = make_trainer([monitor], tmp_path, epochs=1)
    trainer.fit(module, loader(23, shuffle=True), [loader(13, seed=1), loader(9, seed=2)])

    assert monitor.summary()["n_val"] == monitor.summary()["n_train"] == (13, 9)[idx]
    expected = trainer.callback_metrics[f"val/loss/dataloader_idx_{idx}"].item()
    assert monitor.summary()["val_loss"] == pytest.approx(expected)
    assert f"number {idx}" in monitor.sentence()


class Averaging(Callback):
    """Validates with other weights."""

    def on_validation_epoch_start(self, trainer, pl_module):
        self.kept = [p.detach().clone() for p in pl_module.parameters()]
        for parameter in pl_module.parameters():
            parameter.data.mul_(0.5)

    def on_validation_epoch_end(self, trainer, pl_module):
        for parameter, kept in zip(pl_module.parameters(), self.kept, strict=True):
            parameter.data.copy_(kept)


def test_both_sides_have_the_weights_that_validation_ran_with(tmp_path):
    module, monitor = Toy(dense_network()), TrainValGapMonitor()
    fit(module, [Averaging(), monitor], tmp_path, epochs=1)

    halved = copy.deepcopy(module.net)
    for parameter in halved.parameters():
        parameter.data.mul_(0.5)
    _, train_loss, _, val_loss = evaluated(halved)
    assert monitor.summary()["train_eval_loss"] == pytest.approx(train_loss, abs=1e-6)
    assert monitor.summary()["val_loss"] == pytest.approx(val_loss, abs=1e-6)


class KeepsDropout(Toy):
    """Validates with dropout, and notes in which mode."""

    modes: ClassVar[list[tuple[bool, bool]]] = []  # the class's: the sample runs on a copy of an object's

    def on_validation_model_eval(self):
        super().on_validation_model_eval()
        self.net[3].train()

    def validation_step(self, batch, batch_idx):
        self.modes.append((self.net[1].training, self.net[3].training))
        return super().validation_step(batch, batch_idx)


def test_both_sides_have_the_modes_that_validation_ran_with(tmp_path):
    module, monitor = KeepsDropout(), TrainValGapMonitor()
    fit(module, [monitor], tmp_path, epochs=1)

    assert module.modes == [(False, True)] * 6  # three batches of validation, three of the sample
    assert "both in the mode of validation" in monitor.sentence()
    assert "Validation left modules of the network in training mode; so did the training side." in monitor.sentence()


def test_nothing_to_compare_is_said_once_with_the_keys_there_are(tmp_path):
    monitors = [DeadReLUMonitor(), TrainValGapMonitor(accuracy_key="a", loss_key="b")]
    with pytest.warns(UserWarning, match=r"It logs: val/accuracy, val/loss\. .*loss_key=") as caught:
        trainer = fit(Toy(exact=False), monitors, tmp_path)

    assert len([w for w in caught if "nothing to compare" in str(w.message)]) == 1
    assert not any(key.startswith("gap/") for key in trainer.callback_metrics)


@pytest.mark.parametrize(
    ("chosen", "words"),
    [
        (
            0,
            "loader 0 logs no loss and no accuracy, and loader 1 does: `TrainValGapMonitor.dataloader_idx=1.` compares",
        ),
        (2, "`dataloader_idx=2` counts from 0, and there are 2 validation loaders"),
    ],
)
def test_a_loader_without_values_or_one_that_is_not_there_is_named(chosen, words, tmp_path):
    class OfTheSecond(Toy):
        def validation_step(self, batch, batch_idx, dataloader_idx=0):
            if dataloader_idx == 1:
                self.log("val_loss", F.cross_entropy(self.net(batch[0]), batch[1]), add_dataloader_idx=False)

    trainer = make_trainer([TrainValGapMonitor(dataloader_idx=chosen)], tmp_path, epochs=1)
    with pytest.warns(UserWarning, match=words):
        trainer.fit(OfTheSecond(), loader(10), [loader(5), loader(5)])


def test_the_loader_that_logs_a_key_is_named_where_the_chosen_one_logs_others(tmp_path):
    class OwnKeys(Toy):
        def validation_step(self, batch, batch_idx, dataloader_idx=0):
            key = ("clean/loss", "noisy/loss")[dataloader_idx]
            self.log(key, F.cross_entropy(self.net(batch[0]), batch[1]), add_dataloader_idx=False)

    trainer = make_trainer([TrainValGapMonitor(loss_key="noisy/loss")], tmp_path, epochs=1)
    with pytest.warns(UserWarning, match="0 logs neither 'val/accuracy' nor 'noisy/loss', and loader 1 does"):
        trainer.fit(OwnKeys(), loader(10), [loader(5), loader(5)])


def test_a_loss_of_one_of_several_loaders_that_is_nan_is_not_called_missing(tmp_path):
    class Diverged(Toy):
        def validation_step(self, batch, batch_idx, dataloader_idx=0):
            self.log("val/loss", math.nan)

    trainer = make_trainer([TrainValGapMonitor()], tmp_path, epochs=1)
    with pytest.warns(UserWarning, match="val/loss, as logged, is NaN"):
        trainer.fit(Diverged(), loader(10), [loader(5), loader(5)])


class LogsAccuracy(Callback):
    def on_validation_batch_end(self, trainer, pl_module, *args, **kwargs):
        pl_module.log("val/accuracy", 0.5)


def test_a_metric_that_a_callback_logs_is_said_to_be_perhaps_not_the_modules(tmp_path):
    class Silent(Toy):
        def validation_step(self, batch, batch_idx):
            pass

    with pytest.warns(UserWarning, match="val/accuracy, as logged, is .* or what logs it is not the module's own"):
        fit(Silent(), [LogsAccuracy(), TrainValGapMonitor()], tmp_path)


class OwnLog(Toy):
    """Its `log` and `log_dict` take fewer arguments than Lightning's, and change keys."""

    def log(self, name, value, **kwargs):
        if kwargs.keys() - {"on_step", "on_epoch", "sync_dist"}:
            raise TypeError("unexpected argument")
        super().log(f"mine/{name}", value, **kwargs)

    def log_dict(self, values, prefix=""):
        raise AssertionError("not for others")


def test_a_modules_own_log_is_left_to_the_module(tmp_path):
    monitors = [DeadReLUMonitor(), TrainValGapMonitor(), WeightHistogramMonitor()]

    keys = fit(OwnLog(), monitors, tmp_path, epochs=1).callback_metrics.keys()

    assert {"mine/val/loss", "gap/loss", "dead_relu/total", "update_ratio/net.0.weight"} <= keys
    assert not [key for key in keys if key.startswith("mine/") and "train/" not in key and "val/" not in key]


class Renamed(Toy):
    """Logs under other keys."""

    def __init__(self, keys: dict[str, str]):
        super().__init__(dense_network(), exact=False)
        self.keys = keys

    def log(self, name, *args, **kwargs):
        super().log(self.keys.get(name, name), *args, **kwargs)


@pytest.mark.parametrize(
    "keys",
    [
        {"val/loss": "val_loss", "val/accuracy": "val_acc", "train/loss": "train_loss", "train/accuracy": "train_acc"},
        {"val/loss": "valid/loss", "val/accuracy": "valid_accuracy", "train/loss": "training_loss"},
        {"val/loss": "validation_loss"},
    ],
)
def test_usual_spellings_of_the_default_keys_are_found(keys, tmp_path):
    summaries = []
    for names in ({}, keys):
        torch.manual_seed(0)
        monitor = TrainValGapMonitor()
        fit(Renamed(names), [monitor], tmp_path)
        summaries.append(monitor.summary())

    default, renamed = summaries
    assert renamed == default
    assert not any(math.isnan(renamed[name]) for name in ("loss_gap", "accuracy_gap", "mode_effect"))


class Default(Toy):
    """Logs the training accuracy as ``self.log`` does by default: of each step."""

    def training_step(self, batch, batch_idx):
        logits = self.net(batch[0])
        self.log("train_acc", (logits.argmax(1) == batch[1]).float().mean())
        return F.cross_entropy(logits, batch[1])


def test_the_last_steps_accuracy_is_not_taken_for_the_epochs(tmp_path):
    monitor = TrainValGapMonitor()

    trainer = fit(Default(), [monitor], tmp_path)

    assert "train_acc" in trainer.callback_metrics
    assert monitor.summary()["running_accuracy"] is None
    assert "gap/mode_effect" not in trainer.callback_metrics


@pytest.mark.parametrize("options", [{}, {"reduce_fx": "sum"}], ids=["nan", "sum"])
def test_a_usual_spelling_that_is_no_mean_is_not_called_missing(options, tmp_path):
    class Wrong(Toy):
        def validation_step(self, batch, batch_idx):
            self.log("val_loss", torch.tensor(1.0 if options else math.nan), **options)

    with pytest.warns(UserWarning, match=r"val_loss, as logged, is NaN or no mean"):
        fit(Wrong(), [TrainValGapMonitor()], tmp_path)


def test_a_key_that_was_given_is_not_replaced_by_another(tmp_path):
    module, monitor = Renamed({"val/loss": "val_loss"}), TrainValGapMonitor(loss_key="my/loss")

    fit(module, [monitor], tmp_path)

    assert monitor.summary()["loss_gap"] is None


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
@pytest.mark.filterwarnings("ignore:Neither dead units nor the gap")
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


class StopAfterTheFirst(Callback):
    """Ends the fit in the middle of its epoch."""

    def on_validation_end(self, trainer, pl_module):
        trainer.should_stop = True


def test_a_validation_that_does_not_end_its_epoch_is_not_denied(tmp_path):
    monitors = [DeadReLUMonitor(), TrainValGapMonitor()]
    fit(Toy(dense_network()), [*monitors, StopAfterTheFirst()], tmp_path, val_check_interval=0.4)

    assert [monitor.sentence() for monitor in monitors] == [
        "Dead units were not counted: in this process no validation pass that ends an epoch has run to its end.",
        "The gap was not measured. In this process no validation that ends an epoch has run.",
    ]


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
    class Picky(Counting):
        def validation_step(self, batch, batch_idx):
            results = super().validation_step(batch, batch_idx)
            if len(BATCHES) == 4:  # the sample's first
                raise KeyError("no such field")
            return results

    BATCHES.clear()
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


class Summed(Toy):
    def validation_step(self, batch, batch_idx):
        self.log("val/loss", F.cross_entropy(self.net(batch[0]), batch[1], reduction="sum"), reduce_fx="sum")


def test_a_loss_that_is_logged_but_no_mean_is_not_called_missing(tmp_path):
    with pytest.warns(UserWarning, match=r"val/loss, as logged, is NaN or no mean"):
        fit(Summed(dense_network()), [TrainValGapMonitor()], tmp_path)
