"""Small modules, data and trainers for the monitors' tests."""

import hashlib
import json
import os
import subprocess
import sys
from importlib import import_module
from pathlib import Path
from typing import Any

import pytest
import torch
from tensorboard.backend.event_processing.event_file_loader import EventFileLoader
from torch import nn
from torch.nn import functional as F
from torch.overrides import _get_current_function_mode_stack
from torch.utils.data import DataLoader, TensorDataset

# test_packages.py runs tests under the other package too.
pl: Any = import_module(os.environ.get("LIGHTNING", "pytorch_lightning"))

# Lightning advises worker processes for every loader.
FEW_EXAMPLES = pytest.mark.filterwarnings("ignore:.*does not have many workers")


class Toy(pl.LightningModule):
    """A classifier around any network. ``exact``: return per-example results; else only log means."""

    def __init__(self, net: nn.Module | None = None, exact: bool = True, learning_rate: float = 0.05) -> None:
        super().__init__()
        self.net = net if net is not None else dropout_network()
        self.exact, self.learning_rate = exact, learning_rate

    def training_step(self, batch: Any, batch_idx: int) -> torch.Tensor:
        images, labels = batch
        logits = self.net(images)
        loss = F.cross_entropy(logits, labels)
        self.log("train/loss", loss, on_step=False, on_epoch=True)
        self.log("train/accuracy", (logits.argmax(1) == labels).float().mean(), on_step=False, on_epoch=True)
        return loss

    def validation_step(self, batch: Any, batch_idx: int) -> Any:
        images, labels = batch
        logits = self.net(images)
        losses, correct = F.cross_entropy(logits, labels, reduction="none"), logits.argmax(1) == labels
        self.log("val/loss", losses.mean(), sync_dist=True)
        self.log("val/accuracy", correct.float().mean(), sync_dist=True)
        return {"losses": losses, "correct": correct} if self.exact else losses.mean()

    def test_step(self, batch: Any, batch_idx: int) -> dict[str, torch.Tensor]:
        images, labels = batch
        return {"logits": self.net(images), "labels": labels}

    def configure_optimizers(self) -> torch.optim.Optimizer:
        return torch.optim.SGD(self.parameters(), self.learning_rate, momentum=0.9)


def dropout_network() -> nn.Sequential:
    """Convolution, batch norm, ReLU, dropout, dense: everything that training mode changes."""
    return nn.Sequential(
        nn.Conv2d(1, 4, 3), nn.BatchNorm2d(4), nn.ReLU(), nn.Dropout(0.5), nn.Flatten(),
        nn.Linear(64, 8), nn.ReLU(inplace=True), nn.Linear(8, 4),
    )  # fmt: skip


def dense_network() -> nn.Sequential:
    return nn.Sequential(nn.Flatten(), nn.Linear(36, 8), nn.ReLU(), nn.Linear(8, 4))


def image_set(count: int, seed: int = 0) -> TensorDataset:
    generator = torch.Generator().manual_seed(seed)
    labels = torch.randint(0, 4, (count,), generator=generator)
    images = torch.randn(count, 1, 6, 6, generator=generator) + labels.view(-1, 1, 1, 1) * 0.3
    return TensorDataset(images, labels)


def loader(count: int, batch_size: int = 5, shuffle: bool = False, seed: int = 0) -> DataLoader[Any]:
    return DataLoader(image_set(count, seed), batch_size=batch_size, shuffle=shuffle)


def make_trainer(callbacks: Any, folder: Path, epochs: int = 2, **options: Any) -> pl.Trainer:
    settings: dict[str, Any] = {
        "max_epochs": epochs, "accelerator": "cpu", "devices": 1, "logger": False, "num_sanity_val_steps": 0,
        "log_every_n_steps": 1, "default_root_dir": folder, "callbacks": callbacks,
        **{f"enable_{part}": False for part in ("checkpointing", "progress_bar", "model_summary")},
    }  # fmt: skip
    if options.get("logger") == "tensorboard":
        options["logger"] = pl.loggers.TensorBoardLogger(folder, name=None, version="run")
    return pl.Trainer(**(settings | options))


def fit(module: pl.LightningModule, callbacks: Any, folder: Path, **options: Any) -> pl.Trainer:
    """Fit on 23 training and 13 validation examples, in batches of 5."""
    trainer = make_trainer(callbacks, folder, **options)
    trainer.fit(module, loader(23, shuffle=True), loader(13, seed=1))
    return trainer


def assert_clean(module: nn.Module) -> None:
    """No hook, no function mode and no attribute is left."""
    hooks = ("_forward_hooks", "_forward_pre_hooks", "_backward_hooks", "_backward_pre_hooks")
    assert not any(getattr(part, name) for part in module.modules() for name in hooks)
    assert not any(parameter._backward_hooks for parameter in module.parameters())
    assert _get_current_function_mode_stack() == []
    assert set(vars(module)) <= {*vars(Toy()), "_hparams", "where", "error"}  # "_hparams" is the logger's


def in_a_process(file: str) -> Any:
    """What a file of tests writes as JSON, run as a program: a test runner full of threads is no place to fork."""
    environment = os.environ | {"OMP_NUM_THREADS": "1", "PYTHONPATH": os.pathsep.join(filter(None, sys.path))}
    done = subprocess.run([sys.executable, file], capture_output=True, text=True, timeout=900, env=environment)
    assert done.returncode == 0, done.stderr[-3000:]
    return json.loads(done.stdout[done.stdout.index('{"') :])


def fingerprint(module: nn.Module) -> str:
    """A hash over every bit of the parameters and buffers."""
    digest = hashlib.sha256()
    for name, tensor in module.state_dict().items():
        digest.update(name.encode())
        digest.update(tensor.contiguous().flatten().view(torch.uint8).numpy().tobytes())
    return digest.hexdigest()


def events(folder: Path, name: str = "events.out.tfevents.*") -> list[tuple[str, int, Any]]:
    """Every summary value under a folder: tag, step, value protobuf, with metadata as written."""
    found = []
    for path in sorted(folder.rglob(name)):
        for event in EventFileLoader(str(path)).Load():
            found += [(value.tag, event.step, value) for value in event.summary.value]
    return found


def vectors(folder: Path, tag: str) -> list[tuple[int, list[float]]]:
    """Step and values ``[epoch, n, v_1 ...]`` of each record ``training_health/<tag>``."""
    return [
        (step, torch.frombuffer(bytearray(value.tensor.tensor_content), dtype=torch.float32).tolist())
        for name, step, value in events(folder)
        if name == f"training_health/{tag}"
    ]
