"""Two processes give the numbers of one, also where the examples do not divide evenly."""

import itertools
import json
import sys
import tempfile
import warnings
from pathlib import Path

import pytest
import torch
from torch import nn
from torch.utils.data import DataLoader, Subset, TensorDataset
from torchmetrics.classification import MulticlassAccuracy

from tests.training_health.test_gap_stopping import Reader, readable
from tests.training_health.toys import Toy, events, image_set, in_a_process, make_trainer, pl, vectors
from training_health import DeadReLUMonitor, GapStopping, TrainValGapMonitor, WeightHistogramMonitor

pytestmark = pytest.mark.slow


class Planted(Toy):
    """Unit 0 fires on even examples only, unit 1 on odd ones, unit 2 never, unit 3 on the very last example alone."""

    def __init__(self, exact: bool = True) -> None:
        super().__init__(nn.Sequential(nn.Flatten(), nn.Linear(36, 4), nn.ReLU(), nn.Linear(4, 4)), exact, 0.0)
        with torch.no_grad():
            self.net[1].weight.zero_()
            self.net[1].weight[torch.tensor([0, 1, 3]), torch.tensor([0, 1, 2])] = 1
            self.net[1].bias.copy_(torch.tensor([-0.5, -0.5, -1, -0.5]))
            self.net[3].weight.copy_(torch.arange(16).view(4, 4).sin())
            self.net[3].bias.zero_()


class WithMetricObject(Planted):
    """Its keys are other spellings of the monitor's, which both processes must find."""

    def __init__(self) -> None:
        super().__init__(exact=False)
        self.accuracy = MulticlassAccuracy(num_classes=4, average="micro")

    def validation_step(self, batch, batch_idx):
        logits = self.net(batch[0])
        self.accuracy(logits, batch[1])
        self.log("val_acc", self.accuracy)
        self.log("val_loss", nn.functional.cross_entropy(logits, batch[1]), sync_dist=True)


class Split(Planted):
    """Each process validates on as many examples as it is given, which may be none."""

    def __init__(self, counts: tuple[int, int]) -> None:
        super().__init__()
        self.counts, self.allow_zero_length_dataloader_with_multiple_devices = counts, True

    def val_dataloader(self):
        start = self.counts[0] if self.trainer.global_rank else 0
        count = sum(self.counts) if self.trainer.world_size == 1 else self.counts[self.trainer.global_rank]
        images = planted_examples(sum(self.counts)).dataset
        return DataLoader(Subset(images, range(start, start + count)), batch_size=4)

    def validation_step(self, batch, batch_idx):
        logits = self.net(batch[0])
        losses = nn.functional.cross_entropy(logits, batch[1], reduction="none")
        return {"losses": losses, "correct": logits.argmax(1) == batch[1]}


# Examples on the first and on the second process: none, a whole batch, more than two batches.
SPLITS = [counts for counts in itertools.product((0, 4, 9), repeat=2) if any(counts)]


def planted_examples(count: int) -> DataLoader:
    images, labels = image_set(count).tensors
    images[:, 0, 0, :3] = 0
    images[0::2, 0, 0, 0] = images[1::2, 0, 0, 1] = images[-1, 0, 0, 2] = 1
    return DataLoader(TensorDataset(images, labels), batch_size=4)


class Note(pl.Callback):
    """Rank 0 writes down the monitors' summaries and the logged values."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def on_fit_end(self, trainer, pl_module):
        metrics = {key: value.item() for key, value in trainer.callback_metrics.items()}
        everyone = [metrics] * trainer.world_size
        stopped = [c.stopped_epoch for c in trainer.callbacks if isinstance(c, GapStopping)] * trainer.world_size
        if trainer.world_size > 1:
            torch.distributed.all_gather_object(everyone, metrics)
            if stopped:
                torch.distributed.all_gather_object(stopped, stopped[0])
        ours = [{key: value for key, value in each.items() if not key.startswith("train/")} for each in everyone]
        if trainer.is_global_zero:
            found = {
                "metrics": metrics,
                "summaries": [callback.summary() for callback in trainer.callbacks if hasattr(callback, "summary")],
                "sentences": [callback.sentence() for callback in trainer.callbacks if hasattr(callback, "sentence")],
                "clean": not any(m._forward_hooks or m._forward_pre_hooks for m in pl_module.modules()),
                "stopped": stopped,
                "agree": ours[0] == ours[-1],
            }
            self.path.write_text(json.dumps(found))


def trainer_of(world: int, folder: Path, callbacks: list, **options):
    fork = pl.strategies.DDPStrategy(start_method="fork", process_group_backend="gloo")
    strategy = {"strategy": fork} if world > 1 else {}
    return make_trainer(callbacks, folder, epochs=1, devices=world, logger="tensorboard", **strategy, **options)


def main(folder: Path) -> dict:
    """What a test needs to know of each scenario on one process and on two; in a process that may fork."""
    found = {}
    for world in (1, 2):
        pl.seed_everything(0)
        scenarios = {
            "uneven": (Planted(), [DeadReLUMonitor(), WeightHistogramMonitor(), TrainValGapMonitor()], 13),
            "logged": (Planted(exact=False), [TrainValGapMonitor(examples=7)], 14),
            # The second process has no example of the sample.
            "metric": (WithMetricObject(), [TrainValGapMonitor(examples=1), DeadReLUMonitor(window="train")], 14),
        }
        for name, (module, monitors, val_examples) in scenarios.items():
            logs = folder / f"{name}{world}"
            trainer = trainer_of(world, logs, [*monitors, Note(folder / "found.json")])
            trainer.fit(module, DataLoader(image_set(24), batch_size=4), planted_examples(val_examples))
            activity = [vector for _, vector in vectors(logs, "activity/net")]
            found[f"{name}/{world}"] = json.loads((folder / "found.json").read_text()) | {"activity": activity}
        for counts in SPLITS:
            monitors = [DeadReLUMonitor(), WeightHistogramMonitor(), TrainValGapMonitor(), Note(folder / "found.json")]
            options = {"use_distributed_sampler": False, "num_sanity_val_steps": -1}
            trainer = trainer_of(world, folder / f"{counts}{world}", monitors, **options)
            trainer.fit(Split(counts), DataLoader(image_set(24), batch_size=4))
            found[f"{counts}/{world}"] = json.loads((folder / "found.json").read_text())
        # Each process normalises other examples; in validation all use the first one's statistics.
        trainer = trainer_of(world, folder / f"normed{world}", [TrainValGapMonitor(), Note(folder / "found.json")])
        trainer.fit(Toy(), DataLoader(image_set(16), batch_size=4), DataLoader(image_set(16), batch_size=4))
        found[f"normed/{world}"] = json.loads((folder / "found.json").read_text())
        logs, monitors = folder / f"stopping{world}", [TrainValGapMonitor(), GapStopping()]
        trainer = trainer_of(world, logs, [*monitors, Note(folder / "found.json")], max_epochs=5)
        trainer.fit(Reader(), readable(100), readable(101, wrong=0.5))
        found[f"stopping/{world}"] = json.loads((folder / "found.json").read_text())
        if pl.__name__ != "pytorch_lightning":  # whose callback it is
            continue
        from fmnist_pl.predictions import PredictionImages

        logs = folder / f"confusion{world}"
        trainer = trainer_of(world, logs, [PredictionImages(["a", "b", "c", "d"])])
        trainer.test(Planted(), planted_examples(13), verbose=False)
        (table,) = [value for tag, _, value in events(logs) if tag == "per_class_accuracy/text_summary"]
        found[f"confusion/{world}"] = table.tensor.string_val[0].decode()
    return found


@pytest.fixture(scope="module")
def found():
    return in_a_process(__file__)


def numbers(value) -> list:
    """The leaves of a nested value, in order, with the keys that lead to them."""
    if isinstance(value, dict):
        return [item for key in value for item in [key, *numbers(value[key])]]
    return [item for entry in value for item in numbers(entry)] if isinstance(value, list) else [value]


def assert_same(one, two) -> None:
    for a, b in zip(numbers(one), numbers(two), strict=True):
        assert (a == pytest.approx(b, abs=1e-6, nan_ok=True)) if isinstance(a, float) else (a == b)


def test_what_depends_on_the_number_of_processes_is_said(found):
    logged, exact = (" ".join(found[f"{scenario}/2"]["sentences"]) for scenario in ("logged", "uneven"))

    uneven = "means of what the steps log, where examples do not divide evenly, "
    assert f"On 2 processes; {uneven}standard errors of batch means and running values depend on" in logged
    assert "On 2 processes; running values depend on their number." in exact
    assert "processes" not in " ".join(found["logged/1"]["sentences"])


@pytest.mark.parametrize("scenario", ["uneven", "logged", "metric"])
def test_summaries_and_activities_are_those_of_one_process(found, scenario):
    one, two = found[f"{scenario}/1"], found[f"{scenario}/2"]
    if scenario == "logged":  # its standard error is an estimate from batches, which differ
        for key in ("loss_gap_se", "loss_gap_margin"):
            assert one["summaries"][0].pop(key) > 0
            assert two["summaries"][0].pop(key) > 0

    assert_same(one["summaries"], two["summaries"])
    assert one["activity"] == two["activity"]
    assert two["clean"]  # no hook stays


@pytest.mark.parametrize("world", [1, 2])
def test_training_has_the_batch_statistics_that_validation_has(found, world):
    (summary,) = found[f"normed/{world}"]["summaries"]

    assert summary["n_train"] == summary["n_val"] == 16
    assert summary["loss_gap"] == pytest.approx(0, abs=1e-7)  # for both hold the same examples


def test_both_processes_stop_after_the_same_epoch(found):
    assert (found["stopping/1"]["stopped"], found["stopping/2"]["stopped"]) == ([3], [3, 3])


def test_a_unit_that_is_dead_on_one_process_only_is_not_dead(found):
    ((_, _, *activity),) = found["uneven/2"]["activity"]

    assert activity == pytest.approx([7 / 13, 6 / 13, 0.0, 1 / 13])
    assert found["uneven/2"]["summaries"][0]["sites"]["net"]["dead_units"] == [2]
    assert found["uneven/2"]["metrics"]["dead_relu/total"] == 0.25


def test_logged_values_are_those_of_one_process_and_known_on_every_rank(found):
    one, two = found["uneven/1"]["metrics"], found["uneven/2"]["metrics"]
    ours = [key for key in one if not key.startswith(("train/", "val/"))]  # Lightning's own count repeats

    assert_same({key: one[key] for key in ours}, {key: two[key] for key in ours})
    assert len(ours) == 16
    assert found["uneven/2"]["agree"]


@pytest.mark.parametrize("counts", SPLITS)
def test_however_validation_is_split_both_processes_end_with_the_numbers_of_one(found, counts):
    one, two = found[f"{counts}/1"], found[f"{counts}/2"]
    ours = [key for key in one["metrics"] if key.startswith(("dead_relu/", "rare_relu/", "nonfinite/", "gap/"))]

    assert_same(one["summaries"], two["summaries"])
    assert_same({key: one["metrics"][key] for key in ours}, {key: two["metrics"][key] for key in ours})
    assert two["metrics"]["dead_relu/n"] == two["summaries"][1]["n_val"] == sum(counts)
    assert two["summaries"][0]["start_n"] == sum(counts)  # before the first step
    assert two["agree"]


@pytest.mark.skipif(pl.__name__ != "pytorch_lightning", reason="a callback of that package")
def test_the_confusion_counts_are_those_of_one_process(found):
    assert found["confusion/2"] == found["confusion/1"]
    assert sum(int(row.split("|")[2]) for row in found["confusion/2"].splitlines()[2:]) == 13


if __name__ == "__main__":
    warnings.simplefilter("ignore")  # Lightning's advice on workers and samplers
    with tempfile.TemporaryDirectory() as scratch:
        json.dump(main(Path(scratch)), sys.stdout)
