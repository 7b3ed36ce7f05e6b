"""Fits somebody else's project under the monitors, then validates it again without them, under a count of its own."""

from __future__ import annotations

import contextlib
import math
import warnings
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import lightning.pytorch
import numpy as np
import pytorch_lightning
import torch
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator
from torch import nn
from torch.utils._python_dispatch import TorchDispatchMode

from training_health import DeadReLUMonitor, TrainValGapMonitor, WeightHistogramMonitor

EPOCHS = 2
QUIET = {"accelerator": "cpu"} | {
    f"enable_{part}": False for part in ("checkpointing", "progress_bar", "model_summary")
}


@dataclass(frozen=True)
class Truth:
    """What is known of a project beforehand.

    Attributes:
        sites: ReLU calls in one validation step.
        unit_dim: Where the units of their outputs are: 1 in (N, C, ...), -1 in (N, T, F).
        examples: In validation, and as many in training, so that the gap's sample is all of them.
        loss: The key it logs its validation loss under.
        accuracy: The same for the accuracy; None where it has none.
        no_gap: Where there can be no gap, words of the warning that says why.
        random: Its validation draws random numbers: the gap is right to two standard errors.
    """

    sites: int
    unit_dim: int
    examples: int
    loss: str = "val/loss"
    accuracy: str | None = None
    no_gap: str | None = None
    random: bool = False


class Callback(lightning.pytorch.Callback, pytorch_lightning.Callback):
    """A callback of both packages."""


class Spy(Callback):
    """Kills some units before training, fixes each validation's random numbers, remembers what is fitted on what."""

    def on_fit_start(self, trainer, pl_module):
        for module in pl_module.modules():
            if isinstance(module, (nn.Linear, nn.Conv1d, nn.Conv2d, nn.Conv3d)) and module.bias is not None:
                module.bias.data[::3] -= 2

    def on_validation_start(self, trainer, pl_module):
        torch.manual_seed(0)
        self.trainer, self.module = trainer, pl_module
        self.train, self.val = trainer.train_dataloader, trainer.val_dataloaders


def _results(spy: Spy) -> tuple[dict[str, torch.Tensor], dict[str, float]]:
    """The weights and metrics that a fit ended with."""
    metrics = {name: float(value) for name, value in spy.trainer.callback_metrics.items()}
    return {name: value.clone() for name, value in spy.module.state_dict().items()}, metrics


class ReLUCalls(Callback, TorchDispatchMode):
    """Counts, below every function and module, how often each unit of each call of a ReLU is above zero."""

    def __init__(self, unit_dim: int) -> None:
        TorchDispatchMode.__init__(self)
        self.unit_dim, self.call = unit_dim, 0
        self.above: list[np.ndarray] = []  # per call in a step, its (example, position) pairs and its units

    def on_validation_batch_start(self, *args, **kwargs):
        self.call = 0
        self.__enter__()

    def on_validation_batch_end(self, *args, **kwargs):
        self.__exit__(None, None, None)

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        output = func(*args, **(kwargs or {}))
        if func.overloadpacket in (torch.ops.aten.relu, torch.ops.aten.relu_):
            above = (output > 0).movedim(self.unit_dim, -1).flatten(0, -2).numpy()
            before = [self.above.pop(self.call)] if self.call < len(self.above) else []
            self.above.insert(self.call, np.concatenate([*before, above]))
            self.call += 1
        return output


class EventFiles:
    """What the monitors wrote into the event files below a folder."""

    def __init__(self, folder: Path) -> None:
        self.activities: list[np.ndarray] = []  # the last record of each site
        self.gaps = 0
        self.histograms: set[str] = set()
        for directory in {path.parent for path in folder.rglob("events.out.tfevents.*")}:
            events = EventAccumulator(str(directory), size_guidance={"tensors": 0}).Reload()
            self.histograms.update(events.Tags()["histograms"])
            for tag in events.Tags()["tensors"]:
                records = [np.frombuffer(event.tensor_proto.tensor_content, "<f4") for event in events.Tensors(tag)]
                if tag.startswith("training_health/activity/"):
                    self.activities.append(records[-1])
                elif tag == "training_health/gap":
                    self.gaps += len(records)


class Watched:
    """A project's fit under all monitors, and what is true of it.

    Args:
        truth: What is known beforehand.
        folder: Where its logs go.
        fit: Takes callbacks and a folder, makes the model and trains it for two epochs.
        **keys: Further arguments of `TrainValGapMonitor`.
    """

    def __init__(self, truth: Truth, folder: Path, fit: Callable[[list[Any], Path], None], **keys: str) -> None:
        self.truth, spy, alone = truth, Spy(), Spy()
        keys |= {"loss_key": truth.loss} | ({"accuracy_key": truth.accuracy} if truth.accuracy else {})
        dead, gap = DeadReLUMonitor(), TrainValGapMonitor(**keys)
        self._fit(fit, [alone], folder / "alone")
        with warnings.catch_warnings(record=True, action="always") as said:
            self._fit(fit, [dead, gap, WeightHistogramMonitor(), spy], folder / "watched")
        self.untouched = _results(alone), _results(spy)
        self.dead, self.gap, self.logs = dead.summary(), gap.summary(), EventFiles(folder / "watched")
        self.said = [str(warning.message) for warning in said]
        self.parameters = {name for name, parameter in spy.module.named_parameters() if parameter.numel()}
        self.lightning = pytorch_lightning if isinstance(spy.trainer, pytorch_lightning.Trainer) else lightning.pytorch
        self.logger = type(spy.trainer.logger).__name__.replace("NoneType", "none")
        calls, module, val, train = ReLUCalls(truth.unit_dim), spy.module, spy.val, spy.train
        self.val, self.train = self._validate(module, val, calls), self._validate(module, train)
        self.above = calls.above

    def _fit(self, fit: Callable[[list[Any], Path], None], callbacks: list[Callback], folder: Path) -> None:
        folder.mkdir()
        lightning.pytorch.seed_everything(0, verbose=False)
        with contextlib.chdir(folder):  # where some loggers write, whatever they are told
            fit(callbacks, folder)

    def _validate(self, module: Any, loader: Any, *callbacks: Callback) -> dict[str, float]:
        """Without monitors, compilation and torch's fused encoder: every ReLU is a call."""
        fused = torch.backends.mha.get_fastpath_enabled()
        torch.backends.mha.set_fastpath_enabled(False)
        with warnings.catch_warnings(action="ignore"), torch.compiler.set_stance("force_eager"):
            trainer = self.lightning.Trainer(logger=False, callbacks=[Spy(), *callbacks], **QUIET)
            logged = trainer.validate(module, loader, verbose=False)[0]
        torch.backends.mha.set_fastpath_enabled(fused)
        return logged

    def line(self) -> dict[str, str]:
        """The project's line of the table."""
        sites, gap, logs = self.dead["sites"].values(), self.gap, self.logs
        measured = gap.get("loss_gap") is not None
        return {
            "lightning": self.lightning.__name__,
            "sites": str(len(sites)),
            "dead/units": f"{self.dead['dead']}/{self.dead['units']}",
            "n": str(self.dead["n"]),
            "gap in loss": f"{gap['loss_gap']:+.4f} ± {gap['loss_gap_se'] or math.nan:.4f}" if measured else "none",
            "logger": self.logger,
            "activity + gap + histograms": f"{len(logs.activities)} + {logs.gaps} + {len(logs.histograms)}",
            "right": "NO" if any(self.faults()) else "yes",
        }

    def faults(self) -> Iterator[str]:
        """Say in words what is not right."""
        truth, sites = self.truth, self.dead["sites"]
        (weights, metrics), (same_weights, same_metrics) = self.untouched
        if changed := [name for name, value in weights.items() if not torch.equal(value, same_weights[name])]:
            yield f"with monitors other weights: {changed}"
        # The last digits of a validation's loss differ where its window runs without compilation or fusion.
        if changed := [name for name in metrics if not math.isclose(metrics[name], same_metrics[name], rel_tol=1e-4)]:
            yield f"with monitors other metrics: {[(name, metrics[name], same_metrics[name]) for name in changed]}"
        counted = [(site["dead"], site["units"]) for site in sites.values()]
        true = [(int((~above.any(0)).sum()), above.shape[1]) for above in self.above]
        if len(true) != truth.sites or counted != true:
            yield f"{truth.sites} sites; dead and units are {counted}, in truth {true}"
        if not true and not self.dead["cannot_die"]:
            yield "the activations that cannot die are not named"
        if self.dead["n"] != truth.examples:
            yield f"n is {self.dead['n']}, in truth {truth.examples}"
        if any(name.isdecimal() for name in sites):
            yield f"a name is only a number: {list(sites)}"
        yield from self._faults_of_the_gap()
        found, wanted = self.logs.activities, [[1, truth.examples, *above.mean(0)] for above in self.above]
        if [len(record) for record in found] != [len(record) for record in wanted]:
            yield f"{len(found)} records of activity, for {len(wanted)} sites"
        elif not all(np.allclose(record, true, rtol=1e-6) for record, true in zip(found, wanted, strict=True)):
            yield "the records of activity are not the activities"
        if missing := {f"weights/{name}" for name in self.parameters} - self.logs.histograms:
            yield f"{len(missing)} of {len(self.parameters)} parameters have no histogram"
        if self.logs.gaps != (0 if truth.no_gap else EPOCHS):
            yield f"{self.logs.gaps} records of the gap"

    def _faults_of_the_gap(self) -> Iterator[str]:
        truth, gap = self.truth, self.gap
        said = [text[:200] for text in self.said if "Monitor`" in text or "validation_step" in text or "sample" in text]
        if truth.no_gap or gap.get("loss_gap") is None:
            if not truth.no_gap or gap.get("loss_gap") is not None or not any(truth.no_gap in text for text in said):
                yield f"the gap is {gap.get('loss_gap')}, and said is {said}"
            return
        pairs = [("loss_gap", self.val[truth.loss] - self.train[truth.loss])]
        if truth.accuracy:
            pairs.append(("accuracy_gap", self.train[truth.accuracy] - self.val[truth.accuracy]))
        for name, true in pairs:
            margin = 2 * (gap["loss_gap_se"] or 0) if truth.random else 1e-4 * max(1, abs(self.val[truth.loss]))
            if gap[name] is None or not abs(gap[name] - true) <= margin:
                yield f"{name} is {gap[name]}, in truth {true}"
        if {gap["n_train"], gap["n_val"]} != {truth.examples}:
            yield f"the gap's n are {gap['n_train']} and {gap['n_val']}, in truth {truth.examples}"
