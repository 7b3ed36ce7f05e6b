"""One trial: an ordinary run of ``fmnist fit`` that reports its epochs, may be pruned, and is not tested."""

import math
from pathlib import Path

import optuna
import pytorch_lightning as pl
import yaml

from fmnist_pl import cli
from fmnist_pl.checkpoints.checkpoint_file import RESUMABLE
from fmnist_pl.runs.folder import write_file
from fmnist_pl.runs.record import without_nan
from fmnist_pl.search.space import Space
from fmnist_pl.search.worker import Search, TrialFailedError
from training_health.errors import UserError

_ACCURACY = "val/accuracy"


class PruningReport(pl.Callback):
    """Reports the validation accuracy of every epoch; ends a training that is to be pruned or has diverged.

    Optuna's own callback prunes by an exception out of the validation, and a pruned run would be no ordinary run: no
    training metrics of its last epoch, no hparams, no summary. This one lets the epoch end. It logs nothing.
    """

    def __init__(self, trial: optuna.Trial) -> None:
        self.trial, self.pruned, self.failure = trial, False, ""

    def on_train_epoch_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Report. The last epoch is not pruned, for nothing is left to be saved."""
        metrics, epoch = {key: float(value) for key, value in trainer.callback_metrics.items()}, trainer.current_epoch
        for key in ("train/loss", "val/loss"):
            if not math.isfinite(metrics.get(key, 0.0)):
                self.failure = f"{key} was {metrics[key]} after epoch {epoch + 1}"
        if not self.failure and _ACCURACY in metrics:
            self.trial.report(metrics[_ACCURACY], epoch)
            self.pruned = epoch + 1 < (trainer.max_epochs or 0) and bool(self.trial.should_prune())
        trainer.should_stop = trainer.should_stop or self.pruned or bool(self.failure)


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
        parameters, excess, violation = self.space.size(params)
        for name, value in excess.items():
            trial.set_constraint(name, value)
        if violation:
            trial.set_user_attr("failure", violation)
            raise optuna.TrialPruned
        overlay = self.search.folder / "configurations" / f"trial_{trial.number:04}.yaml"
        text = f"# Trial {trial.number} of the search {self.search.name}.\n"
        write_file(overlay, text + yaml.safe_dump(self.space.overlay(params), sort_keys=False))
        settings = self.search.settings
        arguments = [
            *("fit", "--variant", str(overlay)),
            f"--seed_everything={settings.seed}",
            f"--trainer.max_epochs={settings.epochs}",
            "--test_checkpoint=none",
            f"--trainer.logger.init_args.save_dir={self.search.folder}",
            f"--data.dataset={settings.data}",
            *([] if settings.images is None else [f"--data.training_images={settings.images}"]),
            *settings.options,
        ]
        report = PruningReport(trial)
        run = cli.main(arguments, callbacks=[report])
        folder, metrics = Path(str(run.trainer.log_dir)), without_nan(run.record.last_epoch)
        for name in RESUMABLE:  # two thirds of the disk's space, and nobody resumes a run that has ended
            (folder / "checkpoints" / name).unlink(missing_ok=True)
        attributes = {
            "parameters": parameters,
            "seconds": sum(epoch["seconds"] for epoch in run.record.history),
            "dead_fraction": metrics.get("dead_relu/total"),
            "validation_loss": metrics.get("val/loss"),
            "run": str(folder),
            **({"failure": report.failure} if report.failure else {}),
        }
        for name, attribute in attributes.items():
            trial.set_user_attr(name, attribute)
        if report.failure:
            raise TrialFailedError(report.failure)
        if report.pruned:
            raise optuna.TrialPruned
        if _ACCURACY not in metrics:
            raise UserError(f"its epochs logged no {_ACCURACY}, by which trials are judged. Leave validation on.")
        return float(metrics[_ACCURACY])
