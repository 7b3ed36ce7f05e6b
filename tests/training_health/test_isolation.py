"""What a validation step does in isolation does not outlive it."""

import contextlib
import csv
import functools
import gc
import pickle
import random
import weakref
from collections import Counter, defaultdict, deque
from dataclasses import dataclass

import numpy as np
import pytest
import torch
from torch import nn
from torch.utils.data import DataLoader, Dataset
from torchmetrics import CatMetric, MeanMetric

from tests.training_health.toys import (
    FEW_EXAMPLES,
    Toy,
    dense_network,
    events,
    fingerprint,
    fit,
    image_set,
    loader,
    make_trainer,
    pl,
)
from training_health import DeadReLUMonitor, ReviveUnits, TrainValGapMonitor, WeightHistogramMonitor
from training_health.batches import BatchSize
from training_health.training_sample.isolation import Copies, isolated

pytestmark = FEW_EXAMPLES


class Leaky(pl.LightningModule):
    """Keeps state in every way a module can."""

    def __init__(self) -> None:
        super().__init__()
        self.net = nn.Sequential(nn.BatchNorm1d(3), nn.Dropout())
        self.frozen = nn.BatchNorm1d(3).eval()
        self.mean = MeanMetric()
        self.register_buffer("seen", torch.zeros(()))
        self.register_buffer("replaced", torch.zeros(()))
        self.outputs, self.table, self.recent, self.count = [1], {"a": 1}, deque([1]), 0

    def step(self) -> None:
        x = self.net(torch.rand(4, 3)) + self.frozen(torch.rand(4, 3))
        self.seen += 1
        self.replaced = self.replaced + 1
        self.mean.update(x)
        self.outputs.append(2)
        self.table["b"] = 2
        self.recent.append(2)
        self.count += 1
        self.extra = 3
        self.late = nn.Linear(1, 1)
        np.random.rand()
        random.random()


@pytest.fixture
def leaky(tmp_path):
    module = Leaky()
    trainer = make_trainer([], tmp_path, logger=pl.loggers.CSVLogger(tmp_path))
    module.trainer = trainer
    module.mean.update(5.0)
    return trainer, module


def state(trainer, module: Leaky) -> tuple:
    return (
        {name: tensor.tolist() for name, tensor in module.state_dict().items()}, module.mean.compute().item(),
        list(module.outputs), dict(module.table), list(module.recent), module.count, set(vars(module)),
        [part.training for part in module.modules()], list(map(id, module.buffers())), list(trainer.loggers),
        torch.get_rng_state().tolist(), np.random.get_state()[1].tolist(), random.getstate(),
    )  # fmt: skip


@pytest.mark.parametrize("error", [None, RuntimeError, KeyboardInterrupt])
def test_everything_is_put_back_also_after_an_exception(leaky, error):
    before, outputs = state(*leaky), leaky[1].outputs

    with pytest.raises(error) if error else contextlib.nullcontext(), isolated(leaky[0], Copies(*leaky)):
        leaky[1].step()
        if error is not None:
            raise error

    assert state(*leaky) == before
    assert leaky[1].outputs is outputs


def test_inside_are_eval_mode_empty_metrics_and_a_log_that_keeps_values_with_their_weights(leaky):
    trainer, module = leaky

    with isolated(trainer, Copies(*leaky)) as logged:
        assert not any(part.training for part in module.modules())
        module.mean.update(7.0)
        assert module.mean.compute().item() == 7.0
        logged.begin_batch()
        module.log("a", torch.tensor(2.0))
        module.log("b", 3.0, batch_size=2)
        module.log("m", module.mean, batch_size=1)
        module.logger.experiment.anything(1)
        logged.end_batch(BatchSize(4, 3))

    assert logged.numbers() == {"a": [(2.0, 4)], "b": [(3.0, 2)]}
    assert (logged.batch_size, logged.examples) == (2, 3)
    assert logged.metrics == {"m": module.mean}


def test_what_a_step_logs_several_times_counts_as_its_mean(leaky):
    with isolated(leaky[0], Copies(*leaky)) as logged:
        logged.begin_batch()
        for value in (1.0, 2, torch.tensor(6.0)):
            leaky[1].log("a", value)
        leaky[1].log("b", 1.0, batch_size=1)
        leaky[1].log("b", 5.0, batch_size=3)
        logged.end_batch(BatchSize(10, 10))
        for value in (1, 4.5):
            leaky[1].log("end", value)

    assert logged.numbers() == {"a": [(3.0, 30)], "b": [(4.0, 4)]}  # as it weighs in Lightning
    assert logged.last == {"end": 2.75}


@pytest.mark.parametrize(("sizes", "known"), [((2, 3), np.nan), ((1, 8, 1), 8), ((8, 8), 8), ((1, 1), 1)])
def test_several_sizes_of_a_step_are_none_but_one_is_said_where_it_does_not_matter(leaky, sizes, known):
    with isolated(leaky[0], Copies(*leaky)) as logged:
        logged.begin_batch()
        for number, size in enumerate(sizes):
            leaky[1].log(str(number), 1.0, batch_size=size)

    assert logged.batch_size == pytest.approx(known, nan_ok=True)


class Box:
    """Anything of the user's own."""

    def __init__(self) -> None:
        self.kept = []


@dataclass
class Record:
    kept: list


def put(kept, number: int) -> None:
    """Add to whatever it is, in place."""
    match kept:
        case Counter():
            kept["n"] += number
        case defaultdict() | dict():
            kept["n"].append(number)
        case set():
            kept.add((number, len(kept)))
        case deque():
            kept.append(number)
        case [list()]:
            kept[0].append(number)
        case list():
            kept.append(torch.full((2,), number))
        case np.ndarray() | torch.Tensor():
            kept += number
        case MeanMetric():
            kept.update(number)
        case Box() | Record():
            kept.kept.append(number)


STATE = {
    "list_of_tensors": list, "nested_list": lambda: [[]], "dict_of_lists": lambda: {"n": []},
    "defaultdict": lambda: defaultdict(list), "counter": Counter, "object": Box, "dataclass": lambda: Record([]),
    "numpy": lambda: np.zeros(1), "tensor": lambda: torch.zeros(1), "deque": deque, "set": set, "metric": MeanMetric,
    "buffer": lambda: torch.zeros(1),
}  # fmt: skip


class Keeping(Toy):
    """Keeps what it validates, over the epochs, and looks back at it."""

    def __init__(self, kind: str) -> None:
        super().__init__(dense_network())
        self.seen, kept = [], STATE[kind]()
        if kind == "buffer":
            self.register_buffer("kept", kept)
        else:
            self.holder = (kept,) if kind == "metric" else kept  # which makes it one that is not registered

    @property
    def state(self):
        state = getattr(self, "holder", None)
        return self.kept if state is None else state[0] if isinstance(state, tuple) else state

    def training_step(self, batch, batch_idx):
        self.last = super().training_step(batch, batch_idx)  # with its graph
        return self.last

    def validation_step(self, batch, batch_idx):
        put(self.state, len(batch[0]))
        return super().validation_step(batch, batch_idx)

    def on_validation_epoch_end(self) -> None:
        state = self.state.compute() if isinstance(self.state, MeanMetric) else self.state
        self.seen.append(repr(vars(state) if isinstance(state, (Box, Record)) else state))


@pytest.mark.parametrize("kind", STATE)
def test_the_users_own_state_is_the_same_with_and_without_the_monitor(kind, tmp_path):
    seen = []
    for callbacks in ([], [TrainValGapMonitor()]):
        pl.seed_everything(1)
        module = Keeping(kind)
        fit(module, callbacks, tmp_path, epochs=3)
        seen.append(module.seen)

    assert len(seen[0]) == len(set(seen[0])) == 3 or kind == "metric"
    assert seen[1] == seen[0]


class Noting(Toy):
    """Keeps numbers through a bound method of a list."""

    def __init__(self) -> None:
        super().__init__(dense_network())
        self.kept: list[int] = []
        self.note = self.kept.append

    def validation_step(self, batch, batch_idx):
        self.note(len(batch[0]))
        return super().validation_step(batch, batch_idx)


def test_a_bound_method_of_a_list_notes_no_training_example(tmp_path):
    module, monitor = Noting(), TrainValGapMonitor()

    fit(module, [monitor], tmp_path, epochs=2)

    assert module.kept == [5, 5, 3] * 2
    assert monitor.summary()["n_train"] == 13


def test_what_cannot_be_copied_makes_the_pass_stand_aside_with_one_warning(tmp_path):
    module, monitor = Toy(dense_network()), TrainValGapMonitor()
    module.numbers = (n for n in range(5))

    with pytest.warns(UserWarning, match="'numbers' cannot be copied") as caught:
        fit(module, [monitor], tmp_path, epochs=2)

    assert len([w for w in caught if "cannot be copied" in str(w.message)]) == 1
    assert monitor.summary() == {}
    assert "numbers" in monitor.sentence()


@pytest.mark.parametrize(
    "buffer", [torch.ones(1, 4).expand(3, 4), torch.eye(4).to_sparse()], ids=["expanded", "sparse"]
)
def test_a_buffer_of_any_layout_lets_the_gap_be_measured(buffer, tmp_path):
    module, monitor = Toy(dense_network()), TrainValGapMonitor()
    module.register_buffer("odd", buffer)
    before = buffer.to_dense().tolist()

    fit(module, [monitor], tmp_path, epochs=1)

    assert monitor.summary()["n_train"] == 13
    assert module.odd.to_dense().tolist() == before


def test_a_module_finds_its_loggers_folders_while_the_sample_is_evaluated(tmp_path):
    class Writing(Toy):
        def validation_step(self, batch, batch_idx):
            seen.append((self.logger.log_dir, self.trainer.log_dir, self.logger.save_dir, self.logger.version))
            self.logger.experiment.add_scalar("own", 1.0)
            return super().validation_step(batch, batch_idx)

    seen = []
    monitor = TrainValGapMonitor()
    fit(Writing(dense_network()), [monitor], tmp_path, epochs=1, logger="tensorboard")

    assert set(seen) == {(str(tmp_path / "run"), str(tmp_path / "run"), str(tmp_path), "run")}
    assert len(seen) == 6
    assert monitor.summary()["n_train"] == 13
    assert len([tag for tag, _, _ in events(tmp_path) if tag == "own"]) == 3  # of validation itself


GLOBAL = np.random.default_rng(0)


def noisy(image: torch.Tensor, rng: np.random.Generator) -> torch.Tensor:
    return image + float(rng.normal())


def with_a_global(image: torch.Tensor) -> torch.Tensor:
    return noisy(image, GLOBAL)


class Unreadable(random.Random):
    """Draws from somewhere else."""

    def getstate(self):
        raise NotImplementedError


class Gone:
    """What a weak reference has lost."""


SOURCES = [Unreadable(), weakref.proxy(Gone())]


def test_a_global_that_cannot_be_read_lets_the_gap_be_measured(tmp_path):
    class Naming(Toy):
        def never_called(self):
            return SOURCES, PROXY

    monitor = TrainValGapMonitor()
    fit(Naming(dense_network()), [monitor], tmp_path, epochs=1)

    assert monitor.summary()["n_train"] == 13


PROXY = SOURCES[1]


class NoisyModule(nn.Module):
    """A transform with a generator of its own."""

    def __init__(self) -> None:
        super().__init__()
        self.rng = torch.Generator().manual_seed(0)

    def forward(self, image: torch.Tensor) -> torch.Tensor:
        return image + torch.randn((), generator=self.rng)


def in_a_closure():
    rng = np.random.default_rng(0)
    return lambda image: noisy(image, rng)


def in_a_dict():
    rngs = {"noise": random.Random(0)}
    return lambda image: image + rngs["noise"].random()


def in_a_global():
    GLOBAL.bit_generator.state = np.random.default_rng(0).bit_generator.state
    return with_a_global


class Noisy(Dataset):
    """Augments with a transform that draws from a generator of its own."""

    def __init__(self, augment) -> None:
        self.images, self.augment = image_set(23), augment

    def __len__(self) -> int:
        return len(self.images)

    def __getitem__(self, index: int):
        image, label = self.images[index]
        return self.augment(image), label


@pytest.mark.filterwarnings("ignore:The sample of training examples comes from Noisy")
@pytest.mark.parametrize(
    "augment",
    [
        lambda: functools.partial(noisy, rng=np.random.default_rng(0)), NoisyModule, in_a_closure, in_a_dict,
        in_a_global,
    ],
    ids=["partial", "module", "closure", "dict", "global"],
)  # fmt: skip
def test_a_data_sets_own_random_generator_is_the_same_with_and_without(augment, tmp_path):
    def trained(callbacks):
        pl.seed_everything(1)
        module = Toy(dense_network())
        make_trainer(callbacks, tmp_path, epochs=2).fit(module, DataLoader(Noisy(augment()), batch_size=5), loader(13))
        return fingerprint(module)

    assert trained([TrainValGapMonitor()]) == trained([])


class Scheduling(Toy):
    """Swaps weights and steps a schedule in the hooks of its validation."""

    def configure_optimizers(self):
        optimizer = super().configure_optimizers()
        return [optimizer], [torch.optim.lr_scheduler.StepLR(optimizer, 1, 0.5)]

    def on_validation_epoch_start(self) -> None:
        self.kept = [p.clone() for p in self.parameters()]
        with torch.no_grad():
            for parameter in self.parameters():
                parameter.mul_(0.5)

    def on_validation_epoch_end(self) -> None:
        with torch.no_grad():
            for parameter, kept in zip(self.parameters(), self.kept, strict=True):
                parameter.copy_(kept)
        self.lr_schedulers().step()
        self.trainer.optimizers[0].param_groups[0]["momentum"] *= 0.9


@pytest.mark.filterwarnings("ignore:Detected call of `lr_scheduler.step")
def test_hooks_that_swap_weights_and_step_a_schedule_leave_the_training_as_it_is(tmp_path):
    def trained(callbacks):
        pl.seed_everything(1)
        module = Scheduling(dense_network())
        fit(module, callbacks, tmp_path, epochs=3)
        return fingerprint(module)

    monitor = TrainValGapMonitor()
    assert trained([monitor]) == trained([])
    assert monitor.summary()["n_train"] == 13


class KeepsTheBest(Toy):
    """Logs, keeps and notes its validation accuracy by its own means."""

    def __init__(self, folder, logger=None) -> None:
        super().__init__(dense_network())
        self.folder, self.own, self.right, self.best = folder, logger, [], -1.0

    def validation_step(self, batch, batch_idx):
        self.right += (self.net(batch[0]).argmax(1) == batch[1]).tolist()

    def on_validation_epoch_end(self) -> None:
        accuracy, self.right = float(np.mean(self.right)), []
        self.log("val/accuracy", accuracy)
        self.trainer.callback_metrics["mine"] = torch.tensor(accuracy)
        self.trainer.validations = getattr(self.trainer, "validations", 0) + 1
        if self.own is not None:
            self.own.log_metrics({"own": accuracy}, step=self.current_epoch)
        if accuracy > self.best:
            self.best = accuracy
            torch.save(accuracy, self.folder / "best.pt")
            self.trainer.save_checkpoint(self.folder / "best.ckpt")


def test_what_is_best_on_training_examples_is_not_kept_as_the_best(tmp_path):
    def kept(callbacks, folder):
        folder.mkdir()
        pl.seed_everything(2)
        module, logger = KeepsTheBest(folder), pl.loggers.CSVLogger(folder, name=None, version="run")
        module.own = logger
        trainer = fit(module, callbacks, folder, epochs=4, logger=logger)
        checkpoint = torch.load(folder / "best.ckpt", weights_only=False)
        rows = csv.DictReader((folder / "run" / "metrics.csv").read_text().splitlines())
        return {
            "best": torch.load(folder / "best.pt"),
            "epoch": checkpoint["epoch"],
            "mine": float(trainer.callback_metrics["mine"]),
            "validations": trainer.validations,
            "own": [row["own"] for row in rows if row["own"]],
        }

    monitor = TrainValGapMonitor()
    with_monitor = kept([monitor], tmp_path / "with")

    assert with_monitor == kept([], tmp_path / "without")
    assert len(with_monitor["own"]) == with_monitor["validations"] == 4
    assert monitor.summary()["train_eval_accuracy"] > monitor.summary()["val_accuracy"]


class Calibrating(Toy):
    """Fits a temperature in the hook, with an optimiser that is not the trainer's."""

    def __init__(self, kind) -> None:
        super().__init__(dense_network())
        self.temperature = nn.Parameter(torch.ones(()))
        self.own = kind([self.temperature], 0.1)

    def validation_step(self, batch, batch_idx):
        self.last = self.net(batch[0]), batch[1]

    def on_validation_epoch_end(self) -> None:
        def closure():
            self.own.zero_grad()
            loss = nn.functional.cross_entropy(self.last[0] / self.temperature, self.last[1])
            loss.backward()
            return loss

        with torch.enable_grad():
            self.log("val/loss", self.own.step(closure).detach())

    def configure_optimizers(self):
        return torch.optim.SGD(self.net.parameters(), 0.05)


@pytest.mark.skipif(
    torch.__version__.startswith("2.2."), reason="after a test that compiles it calls no hooks of steps"
)
@pytest.mark.parametrize("kind", [torch.optim.Adam, torch.optim.LBFGS])
def test_an_optimizer_of_the_modules_own_takes_no_step_on_training_examples(kind, tmp_path):
    def trained(callbacks):
        pl.seed_everything(1)
        module = Calibrating(kind)
        fit(module, callbacks, tmp_path, epochs=3, inference_mode=False)
        return module.temperature.item(), repr(module.own.state_dict())

    monitor = TrainValGapMonitor()
    assert trained([monitor]) == trained([])
    assert monitor.summary()["n_train"] == 13


class ComposedMetrics(Toy):
    """Logs a metric made of two others, and keeps one with a list of values within another."""

    def __init__(self) -> None:
        super().__init__(dense_network())
        self.first, self.second, self.values = MeanMetric(), MeanMetric(), CatMetric()
        self.total, self.doubled = self.first + 2 * self.second, self.values * 2
        self.found = []

    def training_step(self, batch, batch_idx):
        loss = super().training_step(batch, batch_idx)
        for metric in (self.first, self.second, self.values):
            metric.update(loss.detach())
        return loss

    def on_train_epoch_end(self):
        self.found.append((float(self.total.compute()), len(self.values.compute())))
        for metric in (self.first, self.second, self.values):
            metric.reset()


def test_metrics_made_of_others_are_the_same_with_and_without(tmp_path):
    found = []
    for monitors in ([], [TrainValGapMonitor()]):
        pl.seed_everything(0)
        module = ComposedMetrics()
        fit(module, monitors, tmp_path, epochs=3)
        found.append(module.found)

    assert [count for _, count in found[0]] == [5, 5, 5]
    assert found[1] == found[0]


class OwnLog(Toy):
    """Puts a method of its own in the place of ``log``, as some do to set ``sync_dist`` everywhere."""

    def __init__(self) -> None:
        super().__init__(dense_network())
        self.names: list[str] = []
        self.log = self.log_and_note

    def log_and_note(self, name: str, *args: object, **kwargs: object) -> None:
        self.names.append(name)
        super().log(name, *args, **kwargs)


def test_a_log_of_the_modules_own_stays_in_its_place(tmp_path):
    module = OwnLog()
    fit(module, [TrainValGapMonitor()], tmp_path)
    assert module.names.count("val/loss") == 6  # 3 batches in each of 2 epochs
    assert module.names.count("train/loss") == 10


def test_neither_trainer_nor_module_is_kept_alive(tmp_path):
    module = Toy(dense_network())
    trainer = fit(module, [DeadReLUMonitor(), TrainValGapMonitor(), WeightHistogramMonitor()], tmp_path)
    kept = weakref.ref(module), weakref.ref(trainer)
    del module, trainer
    gc.collect()
    assert [reference() for reference in kept] == [None, None]


@pytest.mark.parametrize("kind", [DeadReLUMonitor, TrainValGapMonitor, ReviveUnits])
def test_a_monitor_that_was_pickled_measures_the_same(kind, tmp_path):
    found = []
    for monitor in (kind(), pickle.loads(pickle.dumps(kind()))):
        pl.seed_everything(1)
        fit(Toy(dense_network()), [monitor], tmp_path)
        found.append(monitor.summary())

    assert found[0]
    assert found[1] == found[0]
