"""What a validation step does in isolation does not outlive it."""

import contextlib
import random
from collections import deque

import numpy as np
import pytest
import torch
from torch import nn
from torchmetrics import MeanMetric

from tests.training_health.toys import make_trainer, pl
from training_health.training_sample.isolation import isolated


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

    with pytest.raises(error) if error else contextlib.nullcontext(), isolated(*leaky):
        leaky[1].step()
        if error is not None:
            raise error

    assert state(*leaky) == before
    assert leaky[1].outputs is outputs


def test_inside_are_eval_mode_empty_metrics_and_a_log_that_keeps_values_with_their_weights(leaky):
    _, module = leaky

    with isolated(*leaky) as logged:
        assert not any(part.training for part in module.modules())
        module.mean.update(7.0)
        assert module.mean.compute().item() == 7.0
        logged.examples = 4
        module.log("a", torch.tensor(2.0))
        module.log_dict({"b": 3.0, "m": module.mean}, batch_size=2)
        module.logger.experiment.anything(1)

    kept = {key: [(value.item(), weight) for value, weight in values] for key, values in logged.values.items()}
    assert kept == {"a": [(2.0, 4)], "b": [(3.0, 2)]}
    assert logged.metrics == {"m": module.mean}
