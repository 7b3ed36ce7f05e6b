"""What every callback promises: it changes nothing, leaves nothing behind, and gets along with any trainer."""

import random
from collections import Counter
from contextlib import suppress
from importlib.util import find_spec

import numpy as np
import pytest
import torch
from torch import nn
from torch.overrides import TorchFunctionMode

from tests.training_health.toys import (
    FEW_EXAMPLES,
    Toy,
    assert_clean,
    events,
    fingerprint,
    fit,
    loader,
    make_trainer,
    pl,
)
from training_health import DeadReLUMonitor, TrainValGapMonitor, WeightHistogramMonitor

CALLBACKS = {
    "dead_relu": lambda: [DeadReLUMonitor()],
    "dead_relu_on_training_examples": lambda: [DeadReLUMonitor(window="train")],
    "weight_histograms": lambda: [WeightHistogramMonitor()],
    "train_val_gap": lambda: [TrainValGapMonitor()],
    "all": lambda: [DeadReLUMonitor(window="train"), WeightHistogramMonitor(), TrainValGapMonitor(), *predictions()],
}


def predictions() -> list:
    from fmnist_pl.predictions import PredictionImages  # which is for one of the two Lightnings

    return [PredictionImages(["a", "b", "c", "d"])]


if pl.__name__ == "pytorch_lightning" and find_spec("matplotlib"):
    CALLBACKS["predictions"] = predictions
else:
    predictions = list

LambdaCallback = pl.callbacks.LambdaCallback
pytestmark = [
    FEW_EXAMPLES,
    pytest.mark.filterwarnings("ignore:.*saw no ReLU"),
    pytest.mark.parametrize("make", CALLBACKS.values(), ids=CALLBACKS),
]


KEYS = {"train/loss", "train/accuracy", "val/loss", "val/accuracy"}


def trained(callbacks, folder, exact) -> tuple[str, dict[str, float], list]:
    pl.seed_everything(3)
    module = Toy(exact=exact)
    metrics = fit(module, callbacks, folder, epochs=3).callback_metrics
    drawn = [torch.rand(3).tolist(), np.random.rand(3).tolist(), random.random()]
    return fingerprint(module), {key: metrics[key].item() for key in KEYS}, drawn


@pytest.mark.parametrize("exact", [True, False], ids=["per_example_results", "logged_means"])
def test_weights_buffers_metrics_and_random_state_are_the_same_to_the_last_bit(make, exact, tmp_path):
    assert trained(make(), tmp_path, exact) == trained([], tmp_path, exact)


def test_nothing_is_left_after_a_fit_and_a_second_one(make, tmp_path):
    module, callbacks = Toy(), make()
    for _ in range(2):
        fit(module, callbacks, tmp_path)
        assert_clean(module)


class Faulty(Toy):
    """Raises in the second epoch, in the step named ``where``."""

    def __init__(self, where: str, error: type[BaseException]) -> None:
        super().__init__()
        self.where, self.error = where, error

    def training_step(self, batch, batch_idx):
        self.fail("training", batch_idx)
        return super().training_step(batch, batch_idx)

    def validation_step(self, batch, batch_idx):
        super().validation_step(batch, batch_idx)
        self.fail("validation", batch_idx)

    def fail(self, step, batch_idx):
        if step == self.where and self.current_epoch == 1 and batch_idx == 1:
            self.where = "raised"
            raise self.error("planted")


@pytest.mark.parametrize("where", ["training", "validation"])
@pytest.mark.parametrize("error", [RuntimeError, KeyboardInterrupt])
@pytest.mark.filterwarnings("ignore:Detected KeyboardInterrupt")
def test_nothing_is_left_after_an_exception_or_ctrl_c(make, where, error, tmp_path):
    module = Faulty(where, error)
    with suppress(RuntimeError, SystemExit):  # Ctrl-C becomes an exit; Lightning before 2.5 returns
        fit(module, make(), tmp_path)

    assert module.where == "raised"
    assert_clean(module)
    fit(Toy(), make(), tmp_path)  # and the process is fit for another


@pytest.mark.parametrize("names", [[], ["csv"], ["a", "csv", "b"]], ids=lambda names: "+".join(names) or "none")
def test_any_logger_will_do(make, names, tmp_path):
    csv, board = pl.loggers.CSVLogger, pl.loggers.TensorBoardLogger
    loggers = [csv(tmp_path) if name == "csv" else board(tmp_path, name=name) for name in names]

    trainer = fit(Toy(), make(), tmp_path, logger=loggers)
    trainer.test(dataloaders=loader(7), ckpt_path=None, model=trainer.lightning_module, verbose=False)

    tags = [{tag for tag, _, _ in events(tmp_path / name)} for name in names if name != "csv"]
    assert trainer.state.finished
    assert all(tags)
    assert tags[1:] == tags[:1] * len(tags[1:])


@pytest.mark.parametrize(
    "options",
    [
        {"fast_dev_run": True}, {"limit_val_batches": 0}, {"limit_train_batches": 2, "limit_val_batches": 1},
        {"num_sanity_val_steps": 2}, {"val_check_interval": 2}, {"check_val_every_n_epoch": 2},
        {"val_check_interval": 3, "check_val_every_n_epoch": None}, {"accumulate_grad_batches": 2},
        {"max_steps": 7, "max_epochs": -1}, {"gradient_clip_val": 0.1}, {"inference_mode": False},
        {"precision": "bf16-mixed"}, {"overfit_batches": 1},
    ],
    ids=lambda options: "-".join(options),
)  # fmt: skip
@pytest.mark.filterwarnings(
    "ignore:You requested to overfit",  # Lightning replaces the random sampler and says so
    "ignore:No sample of training examples.*limit_train_batches",
)
@pytest.mark.filterwarnings("ignore:Neither dead units nor the gap")
def test_any_trainer_option_will_do(make, options, tmp_path):
    trainer = fit(Toy(), make(), tmp_path, logger="tensorboard", **options)

    assert trainer.state.finished
    counts = Counter((tag, step) for tag, step, _ in events(tmp_path) if tag != "epoch")  # Lightning repeats that one
    assert [key for key, times in counts.items() if times > 1] == []


def test_sanity_checking_leaves_no_trace(make, tmp_path):
    def stop(trainer, pl_module):
        seen.update(trainer.callback_metrics)
        trainer.should_stop = True

    seen: dict = {}
    fit(Toy(), [*make(), LambdaCallback(on_sanity_check_end=stop)], tmp_path, num_sanity_val_steps=2)

    assert set(seen) <= KEYS


def test_a_model_without_any_relu_will_do(make, tmp_path):
    assert fit(Toy(nn.Sequential(nn.Flatten(), nn.Linear(36, 4))), make(), tmp_path).state.finished


def test_validate_and_test_alone_will_do(make, tmp_path):
    module = Toy()
    trainer = make_trainer(make(), tmp_path, logger="tensorboard")

    trainer.validate(module, loader(13), verbose=False)
    trainer.test(module, loader(13), verbose=False)

    assert trainer.state.finished
    assert_clean(module)


def test_a_resumed_run_ends_with_the_weights_of_an_uninterrupted_one(make, tmp_path):
    def run(epochs, checkpoint=None):
        pl.seed_everything(5)
        module = Toy(nn.Sequential(nn.Flatten(), nn.Linear(36, 8), nn.BatchNorm1d(8), nn.ReLU(), nn.Linear(8, 4)))
        trainer = make_trainer(make(), tmp_path, epochs=epochs)
        trainer.fit(module, loader(23), loader(13, seed=1), ckpt_path=checkpoint)
        trainer.save_checkpoint(tmp_path / f"{epochs}.ckpt")
        torch.load(tmp_path / f"{epochs}.ckpt", weights_only=True)  # nothing but plain values is in it
        return fingerprint(module)

    whole = run(2)
    run(1)

    assert run(2, tmp_path / "1.ckpt") == whole


class HostReads(TorchFunctionMode):
    """Notes what would make the host wait for a GPU."""

    NAMES = ("item", "tolist", "cpu", "numpy", "__bool__", "__float__", "__int__", "nonzero", "bincount")

    def __init__(self) -> None:
        super().__init__()
        self.seen: list[str] = []

    def __torch_function__(self, func, types, args=(), kwargs=None):
        self.seen += [name for name in self.NAMES if name == getattr(func, "__name__", "")]
        return func(*args, **(kwargs or {}))


def test_nothing_is_read_from_the_device_in_training_steps(make, tmp_path):
    def reads(callbacks):
        mode = HostReads()
        first = LambdaCallback(on_train_batch_start=lambda *_: mode.__enter__())
        last = LambdaCallback(on_train_batch_end=lambda *_: mode.__exit__(None, None, None))
        fit(Toy(), [first, *callbacks, last], tmp_path)
        return mode.seen

    assert reads(make()) == reads([])


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")
def test_no_training_step_waits_for_the_gpu(make, tmp_path):
    def forbid(trainer, *_):
        if trainer.current_epoch:  # the first step allocates
            torch.cuda.set_sync_debug_mode("error")

    strict = LambdaCallback(
        on_train_batch_start=forbid, on_train_batch_end=lambda *_: torch.cuda.set_sync_debug_mode("default")
    )
    assert fit(Toy(), [*make(), strict], tmp_path, accelerator="cuda", epochs=3).state.finished
