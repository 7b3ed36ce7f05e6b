"""Two processes give the same units the same weights as one."""

import json
import sys
import tempfile
import warnings
from pathlib import Path

import pytest
import torch
from torch import nn
from torch.utils.data import DataLoader

from tests.training_health.toys import Toy, image_set, in_a_process, make_trainer, pl
from training_health import ReviveUnits

pytestmark = pytest.mark.slow
METHODS = ("redo", "snr", "grama", "random")


class Note(pl.Callback):
    """Every rank writes down what its weights are before the second epoch's first step, and the summary."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    def on_train_batch_start(self, trainer, pl_module, batch, batch_idx):
        if trainer.current_epoch == 1 and batch_idx == 0:
            weights = {name: tensor.flatten().tolist() for name, tensor in pl_module.net.state_dict().items()}
            (revive,) = [callback for callback in trainer.callbacks if isinstance(callback, ReviveUnits)]
            found = {"weights": weights, "summary": revive.summary()}
            (self.folder / f"{trainer.global_rank}.json").write_text(json.dumps(found))


def network() -> nn.Module:
    """Of eight units two are dead, one fires on the last example alone, one on nearly none of the others."""
    torch.manual_seed(0)
    net = nn.Sequential(nn.Flatten(), nn.Linear(36, 8), nn.ReLU(), nn.Linear(8, 4))
    with torch.no_grad():
        net[1].bias.copy_(torch.tensor([-99.0, -99.0, -1.0, -0.5, 0.0, 0.5, 1.0, 1.0]))
    return net


def main(folder: Path) -> dict:
    """What each rank found, by method and number of processes; in a process that may fork."""
    found = {}
    for world in (1, 2):
        for method in METHODS:
            fork = pl.strategies.DDPStrategy(start_method="fork", process_group_backend="gloo")
            strategy = {"strategy": fork} if world > 1 else {}
            callbacks = [ReviveUnits(method, threshold=0.05, examples=16), Note(folder)]
            trainer = make_trainer(callbacks, folder, epochs=2, devices=world, **strategy)
            data = DataLoader(image_set(24), batch_size=4), DataLoader(image_set(13, seed=1), batch_size=4)
            trainer.fit(Toy(network(), learning_rate=0.0), *data)
            ranks = [json.loads((folder / f"{rank}.json").read_text()) for rank in range(world)]
            found[f"{method}/{world}"] = ranks
    return found


@pytest.fixture(scope="module")
def found():
    return in_a_process(__file__)


@pytest.mark.parametrize("method", METHODS)
def test_each_process_ends_with_the_weights_of_one(found, method):
    (one,), (first, second) = found[f"{method}/1"], found[f"{method}/2"]

    assert first == second == one
    assert one["summary"]["units"] >= 2


if __name__ == "__main__":
    warnings.simplefilter("ignore")  # Lightning's advice on workers and samplers
    with tempfile.TemporaryDirectory() as scratch:
        json.dump(main(Path(scratch)), sys.stdout)
