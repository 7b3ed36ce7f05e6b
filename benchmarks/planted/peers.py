"""How each peer is attached, as its README says, and where its answer is read. A few lines each.

An adapter returns callbacks that run the peer, and a function that returns what it found: its own name of a layer ->
the dead units, or their number where it names none, or a text where it counts something else.
"""

import contextlib
import io
import json
import re
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import pytorch_lightning as pl
import torch
from torch import Tensor, nn
from torch.utils.data import DataLoader

from benchmarks.channel import Channel

Found = dict[str, Any]
Batches = DataLoader[tuple[Tensor, ...]]
Attached = tuple[list[pl.Callback], Callable[[], Found]]


@dataclass(frozen=True)
class Setting:
    """What is trained, the examples in order, and a folder for the peer's files."""

    net: nn.Module
    optimizer: torch.optim.Optimizer
    loader: Batches
    folder: Path

    @property
    def everything(self) -> Tensor:
        """All examples as one batch."""
        return torch.stack([image for image, _ in self.loader.dataset])


class Hooks(pl.Callback):
    """Calls the peer after a step of the optimizer, with the loss, and at an epoch's end, after validation."""

    def __init__(self, step: Callable[[Tensor], Any] | None = None, epoch: Callable[[], Any] | None = None) -> None:
        self.step, self.epoch = step, epoch

    def on_train_batch_end(self, trainer: pl.Trainer, module: pl.LightningModule, outputs: Any, *_: object) -> None:  # noqa: ANN401
        """A step."""
        if self.step:
            self.step(outputs["loss"])

    def on_train_epoch_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """An epoch."""
        if self.epoch:
            self.epoch()


def _ours(at: Setting, monitors: Iterable[str] = ("DeadReLUMonitor",)) -> Attached:
    import training_health

    callbacks = [getattr(training_health, name)() for name in monitors]
    return callbacks, lambda: {name: site["dead_units"] for name, site in callbacks[0].summary()["sites"].items()}


def _ormas(at: Setting, **options: int) -> Attached:
    from ormas_monitor.integrations.lightning import OrmasMonitorCallback

    def read() -> Found:
        found = Found()
        for line in (at.folder / "ormas/diary.jsonl").read_text().splitlines():
            event = json.loads(line)
            if event["event"] == "manifest":
                watched = {layer["layer"]: layer["relu_after"] for layer in event["producers"][:-1]}  # all but the last
                found |= {name: [] if relu else "not watched" for name, relu in watched.items()}
            elif event["event"] in ("channels", "channels_cleared"):
                units = sorted(event["certified"] + event["flat"] + event["observed"])
                found[event["layer"]] = len(units) + event["n_decayed"] if event["n_decayed"] else units
        return found

    monitor = OrmasMonitorCallback(out=at.folder / "ormas", verbose=False, **options)
    return [monitor], read


def _traintools(at: Setting, **options: int) -> Attached:
    from traintools import PlasticityProbe

    found, probe = Found(), PlasticityProbe(at.net, **options)

    def epoch() -> None:
        found.update({layer.name: round(layer.dead_fraction * layer.n_units) for layer in probe.measure().layers})
        probe.reset_buffers()

    return [Hooks(epoch=epoch)], lambda: found


def _torchdiag(at: Setting) -> Attached:
    import torchdiag

    found, everything = Found(), at.everything

    def epoch() -> None:
        with contextlib.redirect_stdout(io.StringIO()):
            report = torchdiag.check_dead_neurons(at.net, everything)
        found.update({name: layer["dead"] for name, layer in report.items()})

    return [Hooks(epoch=epoch)], lambda: found


def _torchlens(at: Setting) -> Attached:
    import torchlens

    found, everything = Found(), at.everything
    options = torchlens.options.CaptureOptions(unwrap_when_done=True)  # without it Lightning's next `self.log` fails

    def epoch() -> None:
        at.net.eval()
        table = torchlens.debug.dead_neurons(torchlens.trace(at.net, everything, capture=options))
        at.net.train()
        relu = table[table["op"].str.startswith("relu")]
        found.update(zip(relu["op"], relu["sample_dead_idx"], strict=True))

    return [Hooks(epoch=epoch)], lambda: found


def _dead_relu_viz(at: Setting) -> Attached:
    from dead_relu_viz import visualization

    said = io.StringIO()

    def epoch() -> None:
        said.seek(0)
        said.truncate()
        with contextlib.redirect_stdout(said):
            visualization(at.net, at.loader, with_activation=True)

    def read() -> Found:
        lines = re.findall(r"^  (\w+) ->  (?:(\d+) dead|none dead)", said.getvalue(), re.MULTILINE)
        return {name: int(dead or 0) for name, dead in lines if name != "out"}

    return [Hooks(epoch=epoch)], read


def _torchmortem(at: Setting) -> Attached:
    from torchmortem import Autopsy

    autopsy = Autopsy(at.net, optimizer=at.optimizer)
    autopsy.attach()

    def read() -> Found:
        report = autopsy.report(at.folder / "report.json")
        findings = [finding for finding in report.findings if finding.category == "dead_units"]
        return {f.affected_layers[0]: f"{100 * f.evidence['mean_dead_frac']:.0f} %" for f in findings}

    return [Hooks(step=lambda loss: autopsy.step(loss=loss.item()))], read


def _torch_audit(at: Setting) -> Attached:
    from torch_audit import autopatch

    auditor = autopatch(at.net, optimizer=at.optimizer, every_n_steps=len(at.loader), reporters=[])

    def read() -> Found:
        findings = [finding for finding in auditor.finish().findings if finding.rule_id in ("TA103", "TA105")]
        return {f"{f.module_path} ({f.rule_id})": f.message for f in findings}

    return [], read


def _neuraldbg(at: Setting) -> Attached:
    from neuraldbg import NeuralDbg

    debugger = NeuralDbg(at.net).__enter__()

    def read() -> Found:
        last = debugger.previous_activation_stats.items()
        return {name: f"{100 * stats['dead_ratio']:.0f} %" for name, stats in last if name.startswith("ReLU_")}

    return [Hooks(step=lambda loss: debugger.record_loss(loss.item()))], read


def _wandb_watch(at: Setting) -> Attached:
    import wandb

    run = wandb.init(mode="offline", dir=at.folder, settings=wandb.Settings(console="off", silent=True))
    run.watch(at.net, log="all", log_freq=len(at.loader))
    return [Hooks(epoch=lambda: run.log({"epoch": 1}))], dict


def fastai_fit(
    net: nn.Module, training: Batches, validation: Batches, rate: float, epochs: int, watched: bool, gated: bool
) -> Callable[[], Found]:
    """Train in fastai's own loop, with or without its `ActivationStats`."""
    import fastai.callback.progress  # noqa: F401 - adds `no_bar` to Learner
    from fastai.basics import SGD, Callback, CrossEntropyLossFlat, DataLoaders, Learner
    from fastai.callback.hook import ActivationStats

    class Gate(Callback):
        def before_epoch(self) -> None:
            channel = self.learn.channel
            if self.epoch:
                channel.end(1)
            channel.begin()

    stats = ActivationStats(include_paramless=True)
    learner = Learner(
        DataLoaders(training, validation),
        net,
        CrossEntropyLossFlat(),
        SGD,
        cbs=[*[stats] * watched, *[Gate()] * gated],
    )
    learner.channel = Channel() if gated else None
    with learner.no_bar(), learner.no_logging():
        learner.fit(epochs if epochs > 0 else 10**6, rate)

    def read() -> Found:
        names = [name for name, module in net.named_modules() if not list(module.children())]
        zeros = {name: stats.layer_stats(index)[2][-1] for index, name in enumerate(names)}
        return {name: f"{100 * zero:.0f} %" for name, zero in zeros.items() if name.startswith(("relu", "act"))}

    return read


_ALL = ("DeadReLUMonitor", "WeightHistogramMonitor", "TrainValGapMonitor")
PEERS: dict[str, Callable[[Setting], Attached]] = {  # a name that has a comma is a second row of the same package
    "off": lambda _at: ([], dict),
    "off, again": lambda _at: ([], dict),
    "ours": _ours,
    "ours, all three": partial(_ours, monitors=_ALL),
    "ormas-monitor": _ormas,
    "ormas-monitor, widest": partial(_ormas, check_every=1, patience=16),
    "traintools": _traintools,
    "traintools, widest": partial(_traintools, max_samples=10**9),
    "torchdiag": _torchdiag,
    "torchlens": _torchlens,
    "dead-relu-viz": _dead_relu_viz,
    "torchmortem": _torchmortem,
    "torch-audit": _torch_audit,
    "neuraldbg": _neuraldbg,
    "wandb": _wandb_watch,
}
