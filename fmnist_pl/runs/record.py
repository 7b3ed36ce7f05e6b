"""What a run leaves besides its curves: its description, its times, its final metrics."""

import datetime
import json
import math
import statistics
import time
from pathlib import Path
from typing import Any

import pytorch_lightning as pl
import torch
from pytorch_lightning.loggers import TensorBoardLogger
from pytorch_lightning.trainer.states import TrainerFn
from tensorboard.plugins.hparams.plugin_data_pb2 import HParamsPluginData
from torch.utils.tensorboard import FileWriter
from torch.utils.tensorboard.summary import hparams as hparams_summaries

from fmnist_pl.loader import Batch
from fmnist_pl.network import parameter_count
from fmnist_pl.runs.folder import sync_curves, wait_for_later_names, write_file
from fmnist_pl.runs.identity import IDENTITY_FILE, versions
from training_health.sinks import write_text

HISTORY = ("train/loss", "train/accuracy", "val/loss", "val/accuracy")
RUN = "run"  # key in the checkpoint: what run it is of
FOR_THE_TAB: dict[str, dict[str, Any]] = {  # what its findings say of this experiment; see training_health.log_format
    "advice": {
        "learning_rate": "`--model.learning_rate`",
        "initialization": "`--model.initialization he`",
        "activation": "`--model.activation leaky_relu`",
        "normalization": "`--model.normalization batch`",
        "dropout": "`--model.conv_dropout`, `--model.hidden_dropout`",
        "regularization": "`--model.weight_decay`, `--variant modern`",
    },
    "limits": {"many_dead_network": 0.30},  # healthy runs of its variants stay below 0.20
}
TICKED = ("variant", "dataset", "seed", "optimizer", "learning_rate")
RESULTS = ("test/accuracy", "test/loss", "val/accuracy", "val/loss", "gap/accuracy", "dead_relu/total")


class RunRecord(pl.Callback):
    """Describes the run in its log at the start, and at the end writes ``summary.json`` and the hparams.

    | record | kind | content |
    | --- | --- | --- |
    | ``training_health/run`` | text | what is run, at the start |
    | ``training_health/result`` | text | the final metrics, at the end |
    | hparams | TensorBoard's | ``settings``, with the final metrics, at the end |

    Args:
        settings: ``variant``, ``dataset``, ``seed``, and the options worth comparing across runs.
        identity: What the run is made of; see `fmnist_pl.runs.identity.identity`.
        test_checkpoint: The checkpoint that is tested: "best", "last" or "none".
        overlay: Digest of what the variant's overlay says.
    """

    def __init__(
        self, settings: dict[str, Any], identity: dict[str, Any], test_checkpoint: str = "best", overlay: str = ""
    ) -> None:
        self.settings, self.identity = settings, identity
        self.test_checkpoint, self.overlay = test_checkpoint, overlay
        self.history: list[dict[str, float]] = []
        self.last_epoch: dict[str, float] = {}  # what was logged last under each key
        self.best: dict[str, float] | None = None  # the validation with the lowest finite loss, the first if several
        self.findings: dict[str, dict[str, Any]] = {}  # of each monitor: its summary and its sentence
        self.began = False  # no checkpoint is loaded any more, but into a run that is tested at its end
        self._epoch_started = 0.0
        self._validated = False  # in this epoch
        self._tested = 0  # images
        self._batches = 0.0, 0  # of an epoch: those taken, and all there are
        self._started = datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds")

    def on_train_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Write the description that the Training Health tab shows during the run."""
        self.began = True
        loader: Any = trainer.train_dataloader
        self._batches = trainer.num_training_batches, len(loader)
        described = {**self.description(trainer, pl_module), **FOR_THE_TAB, "options": self.identity.get("options")}
        write_text(trainer, "run", described)
        if trainer.is_global_zero:
            for logger in trainer.loggers:
                if isinstance(logger, TensorBoardLogger):
                    write_json(Path(logger.log_dir) / IDENTITY_FILE, self.identity)

    def on_train_epoch_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Note the time."""
        self._epoch_started, self._validated = time.perf_counter(), False

    def on_validation_epoch_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Note that the epoch has validation metrics of its own: the trainer keeps those of earlier ones."""
        self._validated = not trainer.sanity_checking

    def on_validation_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Keep the best validation, of which an epoch may have several: that is when the best checkpoint is saved."""
        metrics = {key: float(value) for key, value in trainer.callback_metrics.items() if key.startswith("val/")}
        if self._validated and trainer.state.fn == TrainerFn.FITTING:
            self.best = best_of([*([self.best] if self.best else []), {"epoch": trainer.current_epoch, **metrics}])

    def on_train_epoch_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Keep what is known of the epoch; the seconds include validation and the monitors."""
        logged = {key: float(value) for key, value in trainer.callback_metrics.items()}
        self.last_epoch = dict(sorted({**self.last_epoch, **logged}.items()))
        monitors = [callback for callback in trainer.callbacks if hasattr(callback, "sentence")]  # type: ignore[attr-defined]
        for monitor in monitors:
            name, found = type(monitor).__name__, without_nan(monitor.summary())
            if found or name not in self.findings:  # after a resume nothing, until the next validation
                self.findings[name] = {"summary": found, "sentence": monitor.sentence()}
        known = [key for key in HISTORY if key in logged and (self._validated or not key.startswith("val/"))]
        metrics = {key: logged[key] for key in known}
        if (done := trainer.fit_loop.epoch_loop.batch_idx + 1) < trainer.num_training_batches:  # max_steps, max_time
            metrics["batches"] = done
        seconds = time.perf_counter() - self._epoch_started
        self.history.append({"epoch": trainer.current_epoch, **metrics, "seconds": seconds})

    def on_test_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Note that nothing is left to be loaded."""
        self.began, self._tested = True, 0

    on_validation_start = on_predict_start = on_test_start

    def on_test_batch_end(
        self, trainer: pl.Trainer, pl_module: pl.LightningModule, outputs: object, batch: Batch, *args: int
    ) -> None:
        """Count the images, of which the options of a trainer may leave some out."""
        self._tested += len(batch.images)

    def on_save_checkpoint(
        self, trainer: pl.Trainer, pl_module: pl.LightningModule, checkpoint: dict[str, Any]
    ) -> None:
        """Say in every checkpoint what run it is of, and what is known so far."""
        checkpoint[RUN] = {
            **self.description(trainer, pl_module),
            "identity": self.identity,
            "overlay": self.overlay,
            "history": self.history,
            "best": self.best,
            "last_epoch": self.last_epoch,
            "findings": self.findings,
            "training_batches": self._batches,
        }

    def on_load_checkpoint(
        self, trainer: pl.Trainer, pl_module: pl.LightningModule, checkpoint: dict[str, Any]
    ) -> None:
        """Keep what was known: Lightning forgets metrics, and a run may be resumed only to be tested.

        Not where a run is tested at its end: the best checkpoint knows less.
        """
        if trainer.state.fn == TrainerFn.FITTING and (run := checkpoint.get(RUN)):
            # What is malformed is to fail here, not in the epoch's end that adds to it.
            sum(run["last_epoch"].values(), sum(sum(e.values()) + e["epoch"] + e["seconds"] for e in run["history"]))
            tuple((found["summary"], found["sentence"]) for found in run["findings"].values())
            self.history, self.last_epoch, self.findings = run["history"], run["last_epoch"], run["findings"]
            self._started, self.overlay = run["started"], run["overlay"]
            self._batches = tuple(run.get("training_batches", self._batches))
            self.best = run["best"] if "best" in run else best_of(self.history)

    def description(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> dict[str, Any]:
        """What was run, on what, with which versions."""
        return {
            **self.settings,
            **getattr(pl_module, "measured", {}),
            "max_epochs": trainer.max_epochs,
            "parameters": parameter_count(pl_module),
            "devices": trainer.world_size,
            "device": pl_module.device.type,
            "threads": torch.get_num_threads(),
            "versions": versions(),
            "started": self._started,
        }

    def summary(self, trainer: pl.Trainer, pl_module: pl.LightningModule, tested: str = "best") -> dict[str, Any]:
        """Everything known after testing (``tested``: "best", "last" or "none"); None for NaN, as JSON needs it."""
        history = self.history
        best = self.best or {}
        seconds = [entry["seconds"] for entry in history]
        there = len(getattr(trainer.test_dataloaders, "images", ()))
        test = {key: float(value) for key, value in trainer.callback_metrics.items() if key.startswith("test/")}
        return without_nan(
            {
                **self.description(trainer, pl_module),
                "identity": self.identity,
                "test_checkpoint": tested,
                "epochs": len(history),
                "best_epoch": best.get("epoch"),
                "best_val_loss": best.get("val/loss"),
                "best_val_accuracy": best.get("val/accuracy"),
                "last_epoch": self.last_epoch,
                "test": test,
                "test_images": (min(self._tested * trainer.world_size, there), there),
                "training_batches": self._batches,
                "seconds_per_epoch": statistics.median(seconds) if seconds else None,
                "history": history,
                "monitors": {name: found["summary"] for name, found in self.findings.items()},
                "sentences": [found["sentence"] for found in self.findings.values() if found["sentence"]],
            }
        )

    def write(self, trainer: pl.Trainer, summary: dict[str, Any]) -> None:
        """Write ``summary.json``, the hparams with their final metrics, and the tab's result record."""
        metrics = {**summary["last_epoch"], **summary["test"]}
        wait_for_later_names(trainer.loggers, own=True)
        for logger in trainer.loggers:
            if isinstance(logger, TensorBoardLogger):
                self._write_hparams(logger.log_dir, [key for key in RESULTS if metrics.get(key) is not None])
        result = {
            "status": "finished",
            **{key: summary[key] for key in ("epochs", "best_epoch", "seconds_per_epoch", "sentences")},
            "val_accuracy": summary["best_val_accuracy"],
            "test_accuracy": summary["test"].get("test/accuracy"),
            "test_loss": summary["test"].get("test/loss"),
        }
        write_text(trainer, "result", result)
        for logger in trainer.loggers:
            logger.finalize("success")
        sync_curves(trainer.loggers)
        for logger in trainer.loggers:  # the last: what has a summary is finished
            if folder := getattr(logger, "log_dir", None):
                write_json(Path(folder) / "summary.json", summary)

    def _write_hparams(self, folder: str, metrics: list[str]) -> None:
        """One record at the end: the dashboard reads the metrics from the scalars of the same names."""
        plain = {
            name: value if isinstance(value, int | float | str) else str(value) for name, value in self.settings.items()
        }
        experiment, *session = hparams_summaries(plain, dict.fromkeys(metrics, 0.0))
        found = HParamsPluginData.FromString(experiment.value[0].metadata.plugin_data.content)
        for hparam in found.experiment.hparam_infos:  # the dashboard ticks five: those that differ, then by name
            hparam.differs = hparam.name in TICKED
        experiment.value[0].metadata.plugin_data.content = found.SerializeToString()
        writer = FileWriter(folder)
        for summary in (experiment, *session):
            writer.add_summary(summary)
        writer.close()


def best_of(validations: list[dict[str, float]]) -> dict[str, float] | None:
    """The entry with the lowest finite validation loss, the first if several; None without one."""
    finite = [entry for entry in validations if math.isfinite(entry.get("val/loss", math.nan))]
    return min(finite, key=lambda entry: entry["val/loss"], default=None)


def without_nan(value: Any) -> Any:  # noqa: ANN401
    """The same nested value with None for every NaN and infinity."""
    if isinstance(value, dict):
        return {key: without_nan(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [without_nan(item) for item in value]
    return None if isinstance(value, float) and not math.isfinite(value) else value


def write_json(path: Path, value: Any) -> None:  # noqa: ANN401
    """Write a plain value as JSON."""
    write_file(path, json.dumps(value, indent=2) + "\n")
