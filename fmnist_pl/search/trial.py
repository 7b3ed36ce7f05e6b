"""One trial: an ordinary run of ``fmnist fit`` that reports its epochs, may be pruned, and is not tested."""

import math
import time
from pathlib import Path
from typing import Any

import optuna
import pytorch_lightning as pl
import yaml

from fmnist_pl import cli
from fmnist_pl.checkpoints.checkpoint_file import RESUMABLE
from fmnist_pl.search.space import Space
from fmnist_pl.search.worker import Search, TrialFailedError
from training_health.durable_file import replace_durably
from training_health.errors import UserError

_ACCURACY = "val/accuracy"


class PruningReport(pl.Callback):
    """Reports the validation accuracy of every epoch; ends a training that is to be pruned or has diverged.

    Optuna's own callback prunes by an exception out of the validation, and a pruned run would be no ordinary run: no
    training metrics of its last epoch, no hparams, no summary. This one lets the epoch end.
    """

    def __init__(self, trial: optuna.Trial) -> None:
        self.trial = trial
        self.pruned = False
        self.failure: str | None = None
        self.accuracy: float | None = None
        self.attributes: dict[str, Any] = {}
        self._started = 0.0

    def on_train_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Note the time."""
        self._started = time.perf_counter()

    def on_train_epoch_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Report. The last epoch is not pruned, for nothing is left to be saved."""
        metrics = {key: float(value) for key, value in trainer.callback_metrics.items()}
        for key in ("train/loss", "val/loss"):
            if not math.isfinite(metrics.get(key, 0.0)):
                self.failure = f"{key} was {metrics[key]} after epoch {trainer.current_epoch + 1}"
                trainer.should_stop = True
                return
        self.accuracy = metrics.get(_ACCURACY)
        if self.accuracy is None:
            return
        self.trial.report(self.accuracy, trainer.current_epoch)
        if trainer.current_epoch + 1 < (trainer.max_epochs or 0) and self.trial.should_prune():
            self.pruned = trainer.should_stop = True

    def on_fit_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Collect what the trial is to say of itself."""
        metrics = {key: float(value) for key, value in trainer.callback_metrics.items()}
        finite = {key: value for key, value in metrics.items() if math.isfinite(value)}
        self.attributes = {
            "run": str(trainer.log_dir),
            "seconds": time.perf_counter() - self._started,
            "dead_fraction": finite.get("dead_relu/total"),
            "validation_loss": finite.get("val/loss"),
        }


class FitObjective:
    """Trains the trials of a search in this process."""

    def __init__(self, search: Search) -> None:
        self.search, self.space = search, Space(search.settings.space)

    def __call__(self, trial: optuna.Trial) -> float:
        """Train a trial.

        Returns:
            Its validation accuracy after the last epoch, as a fraction.

        Raises:
            TrialPruned: It fell behind the others, or its network is beyond the space's limits.
            TrialFailedError: Its losses are no numbers any more.
            UserError: For what ends every trial, such as data that are missing.
        """
        params = self.space.suggest(trial)
        size = self.space.size(params)
        for name, excess in size.excess.items():
            trial.set_constraint(name, excess)
        if size.violation is not None:
            trial.set_user_attr("failure", size.violation)
            raise optuna.TrialPruned
        trial.set_user_attr("parameters", size.parameters)
        overlay = self.search.folder / "configurations" / f"trial_{trial.number:04}.yaml"
        text = f"# Trial {trial.number} of the search {self.search.name}.\n"
        try:
            replace_durably(overlay, (text + yaml.safe_dump(self.space.overlay(params), sort_keys=False)).encode())
        except OSError as error:
            raise UserError(
                f"{overlay} cannot be written: {error.strerror}. Make room, and repeat the command."
            ) from error
        report = PruningReport(trial)
        try:
            cli.main(fit_arguments(self.search, overlay), callbacks=[report])
        except SystemExit as stop:
            if stop.code == 2:
                raise UserError(
                    f"fmnist fit does not take {overlay}; {self.search.folder / 'output'} says why."
                ) from stop
            raise
        for name in RESUMABLE:  # two thirds of the disk's space, and nobody resumes a run that has ended
            Path(report.attributes["run"], "checkpoints", name).unlink(missing_ok=True)
        for name, value in report.attributes.items():
            trial.set_user_attr(name, value)
        if report.failure is not None:
            trial.set_user_attr("failure", report.failure)
            raise TrialFailedError(report.failure)
        if report.pruned:
            raise optuna.TrialPruned
        if report.accuracy is None:
            raise UserError(f"its epochs logged no {_ACCURACY}, by which trials are judged. Leave validation on.")
        return report.accuracy


def fit_arguments(search: Search, overlay: Path) -> list[str]:
    """The command line that trains the trial with this overlay; anybody may repeat it."""
    settings = search.settings
    return [
        *("fit", "--variant", str(overlay)),
        f"--seed_everything={settings.seed}",
        f"--trainer.max_epochs={settings.epochs}",
        "--test_checkpoint=none",
        f"--trainer.logger.init_args.save_dir={search.folder}",
        f"--data.dataset={settings.data}",
        *([] if settings.images is None else [f"--data.training_images={settings.images}"]),
        *settings.options,
    ]
