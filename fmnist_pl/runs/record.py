"""What a run leaves besides its curves: its description, its times, its final figures."""

import datetime
import json
import math
import platform
import statistics
import time
from pathlib import Path
from typing import Any

import pytorch_lightning as pl
import torch
import torchvision
from pytorch_lightning.loggers import TensorBoardLogger
from torch.utils.tensorboard.summary import hparams as hparams_summaries

from fmnist_pl.network import parameter_count
from fmnist_pl.runs import identity as run_identity
from training_health.durable_file import replace_durably
from training_health.sinks import write_text

HISTORY = ("train/loss", "train/accuracy", "val/loss", "val/accuracy")
RUN = "run"  # key in the checkpoint: what run it is of
RUN_FORMAT = 1
MONITORS = "monitors"  # key in the checkpoint: what the monitors had found so far
NO_FINDINGS: dict[str, Any] = {"monitors": {}, "sentences": []}
FOR_THE_TAB: dict[str, dict[str, Any]] = {  # what its findings say of this experiment; see training_health.log_format
    "advice": {
        "learning_rate": "`--model.learning_rate`",
        "clipping": "`--trainer.gradient_clip_val`",
        "initialization": "`--model.initialization he`",
        "activation": "`--model.activation leaky_relu`",
        "normalization": "`--model.normalization batch`",
        "dropout": "`--model.conv_dropout`, `--model.hidden_dropout`",
        "regularization": "`--model.weight_decay`, `--variant modern`",
        "epochs": "`--trainer.max_epochs`",
        "precision": "`--trainer.precision`",
    },
    "limits": {"many_dead_network": 0.30},  # healthy runs of its variants stay below 0.20
    "metrics": {"val_accuracy": "val/accuracy", "val_loss": "val/loss"},
}
RESULTS = ("test/accuracy", "test/loss", "val/accuracy", "val/loss", "gap/accuracy", "dead_relu/total")


class RunRecord(pl.Callback):
    """Describes the run in its log at the start, and at the end writes ``summary.json`` and the hparams.

    Args:
        variant: Name of the variant.
        dataset: "fashion_mnist" or "synthetic".
        seed: The run's seed.
        settings: The options worth comparing across runs: plain values for the HParams dashboard.
        identity: What makes the run the same as another, by content; see `fmnist_pl.runs.identity`.
        test_checkpoint: Which weights are tested: "best" (lowest validation loss) or "last".
        overlay: Digest of what the variant's overlay says.
    """

    def __init__(
        self,
        variant: str,
        dataset: str,
        seed: int,
        settings: dict[str, Any],
        *,
        identity: dict[str, Any] | None = None,
        test_checkpoint: str = "best",
        overlay: str = "",
    ) -> None:
        self.variant, self.dataset, self.seed, self.settings = variant, dataset, seed, settings
        self.identity, self.test_checkpoint, self.overlay = identity or {}, test_checkpoint, overlay
        self.history: list[dict[str, float]] = []
        self.last_epoch: dict[str, float] = {}
        self._epoch_started = self._seconds_before = 0.0
        self._trained = False
        self._monitors_before: dict[str, Any] = dict(NO_FINDINGS)
        self._started = datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds")
        self._fitted_history: list[dict[str, float]] = []
        self._findings: dict[str, Any] = dict(NO_FINDINGS)

    def on_train_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Write the description that the Training Health tab shows while the run goes on."""
        self._epoch_started = time.perf_counter() - self._seconds_before  # an epoch that is resumed in the middle
        write_text(trainer, "run", {**self.description(trainer, pl_module), **FOR_THE_TAB})
        if trainer.is_global_zero:
            for logger in trainer.loggers:
                if isinstance(logger, TensorBoardLogger):
                    Path(logger.log_dir).mkdir(parents=True, exist_ok=True)
                    write_json(Path(logger.log_dir) / run_identity.FILE_NAME, self.identity)

    def on_train_epoch_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Note the time."""
        self._epoch_started = time.perf_counter()

    def on_train_epoch_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Keep the epoch's figures; the seconds include validation and the monitors."""
        figures = {key: float(trainer.callback_metrics[key]) for key in HISTORY if key in trainer.callback_metrics}
        self._trained = True
        seconds = time.perf_counter() - self._epoch_started
        self.history.append({"epoch": trainer.current_epoch, **figures, "seconds": seconds})

    def on_fit_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Keep the fit's figures: testing loads the best checkpoint, and with it every callback's older state."""
        self.last_epoch = {key: float(value) for key, value in sorted(trainer.callback_metrics.items())}
        self._fitted_history = list(self.history)
        self._findings = _monitors(trainer) if self._trained else self._monitors_before

    def state_dict(self) -> dict[str, Any]:
        """The epochs so far, for a run that is resumed."""
        return {
            "history": self.history,
            "seconds": time.perf_counter() - self._epoch_started,
            "started": self._started,
        }

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Go on after those epochs."""
        self.history = list(state_dict["history"])
        self._seconds_before = state_dict["seconds"]
        self._started = state_dict["started"]

    def on_save_checkpoint(
        self, trainer: pl.Trainer, pl_module: pl.LightningModule, checkpoint: dict[str, Any]
    ) -> None:
        """Say in every checkpoint what run it is of."""
        checkpoint[RUN] = {
            **self.description(trainer, pl_module),
            "format": RUN_FORMAT,
            "identity": self.identity,
            "overlay": self.overlay,
        }
        # For a run that ends between its last epoch and its test, and is resumed only to be tested.
        checkpoint[MONITORS] = json.loads(json.dumps(without_nan(_monitors(trainer))))

    def on_load_checkpoint(
        self, trainer: pl.Trainer, pl_module: pl.LightningModule, checkpoint: dict[str, Any]
    ) -> None:
        """Keep what the monitors had found."""
        self._monitors_before = checkpoint.get(MONITORS, NO_FINDINGS)

    def description(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> dict[str, Any]:
        """What was run, on what, with which versions."""
        return {
            "variant": self.variant,
            "dataset": self.dataset,
            "seed": self.seed,
            "max_epochs": trainer.max_epochs,
            "parameters": parameter_count(pl_module),
            "devices": trainer.world_size,
            "device": pl_module.device.type,
            "threads": torch.get_num_threads(),
            "versions": versions(),
            "started": self._started,
            **self.settings,
        }

    def summary(self, trainer: pl.Trainer, pl_module: pl.LightningModule, tested: str = "best") -> dict[str, Any]:
        """Everything known after testing; NaN and infinity become None so that it is valid JSON.

        Args:
            trainer: The trainer that fitted and tested.
            pl_module: Its module.
            tested: Which weights were tested, "best" or "last".
        """
        history = self._fitted_history
        best = best_epoch(history)
        seconds = [entry["seconds"] for entry in history]
        test = {key: float(value) for key, value in trainer.callback_metrics.items() if key.startswith("test/")}
        return without_nan(
            {
                **self.description(trainer, pl_module),
                "identity": self.identity,
                "test_checkpoint": tested,
                "epochs": len(history),
                "best_epoch": best,
                "best_val_loss": None if best is None else history[best]["val/loss"],
                "best_val_accuracy": None if best is None else history[best].get("val/accuracy"),
                "last_epoch": self.last_epoch,
                "test": test,
                "seconds_per_epoch": statistics.median(seconds) if seconds else None,
                "history": history,
                **self._findings,
            }
        )

    def write(self, trainer: pl.Trainer, summary: dict[str, Any]) -> None:
        """Write ``summary.json``, the hparams with their final metrics, and the tab's result record."""
        for logger in trainer.loggers:
            folder = getattr(logger, "log_dir", None)
            if folder:
                write_json(Path(folder) / "summary.json", summary)
            if isinstance(logger, TensorBoardLogger):
                final = {key: summary["test"].get(key, summary["last_epoch"].get(key)) for key in RESULTS}
                self._write_hparams(logger, {key: value for key, value in final.items() if value is not None})
        result = {
            "status": "finished",
            "epochs": summary["epochs"],
            "best_epoch": summary["best_epoch"],
            "val_accuracy": summary["best_val_accuracy"],
            "test_accuracy": summary["test"].get("test/accuracy"),
            "test_loss": summary["test"].get("test/loss"),
            "seconds_per_epoch": summary["seconds_per_epoch"],
            "sentences": summary["sentences"],
        }
        write_text(trainer, "result", result)
        for logger in trainer.loggers:
            logger.finalize("success")

    def _write_hparams(self, logger: TensorBoardLogger, final: dict[str, float]) -> None:
        """One record at the end: the dashboard reads the metrics from the scalars of the same names."""
        values = {"variant": self.variant, "dataset": self.dataset, "seed": self.seed, **self.settings}
        plain = {
            key: value if isinstance(value, bool | int | float | str) else str(value) for key, value in values.items()
        }
        writer = logger.experiment._get_file_writer()
        for summary in hparams_summaries(plain, dict.fromkeys(final, 0.0)):
            writer.add_summary(summary)


def _monitors(trainer: pl.Trainer) -> dict[str, Any]:
    """What the monitors have found: ``monitors`` in figures, ``sentences`` in words."""
    monitors = [callback for callback in trainer.callbacks if hasattr(callback, "sentence")]  # type: ignore[attr-defined]
    return {
        "monitors": {type(monitor).__name__: monitor.summary() for monitor in monitors},
        "sentences": [sentence for monitor in monitors if (sentence := monitor.sentence())],
    }


def best_epoch(history: list[dict[str, float]]) -> int | None:
    """Index of the entry with the lowest finite validation loss, the first if several; None without one."""
    losses = [entry.get("val/loss", math.nan) for entry in history]
    finite = [index for index, loss in enumerate(losses) if math.isfinite(loss)]
    return min(finite, key=lambda index: losses[index]) if finite else None


def versions() -> dict[str, str]:
    """Of everything that the figures depend on."""
    return {
        "python": platform.python_version(),
        "torch": str(torch.__version__),
        "torchvision": str(torchvision.__version__),
        "pytorch_lightning": pl.__version__,
    }


def without_nan(value: Any) -> Any:  # noqa: ANN401
    """The same nested value with None for every NaN and infinity."""
    if isinstance(value, dict):
        return {key: without_nan(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [without_nan(item) for item in value]
    return None if isinstance(value, float) and not math.isfinite(value) else value


def write_json(path: Path, value: Any) -> None:  # noqa: ANN401
    """Write a file that a reader, also one after a crash, finds whole or not at all."""
    replace_durably(path, (json.dumps(value, indent=2) + "\n").encode())
