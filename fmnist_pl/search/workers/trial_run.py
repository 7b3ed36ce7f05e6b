"""One trial: an ordinary run of ``fmnist fit`` that reports its epochs, stops when told to, and is not tested."""

import functools
import gc
import math
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytorch_lightning as pl

from fmnist_pl import cli
from fmnist_pl.checkpoints.names import LAST, PREVIOUS
from fmnist_pl.search.workers.job import DIVERGED, DONE, PRUNED, TrialJob
from training_health.errors import UserError

IsHopeless = Callable[[int, float], bool]
_ACCURACY, _LOSSES = "val/accuracy", ("train/loss", "val/loss")


class PruningReport(pl.Callback):
    """Reports the validation accuracy of every epoch, and ends a training that is hopeless or has diverged.

    Optuna's own callback (``optuna_integration.PyTorchLightningPruningCallback``) reports the same under the same
    number, but prunes by an exception out of the validation: a pruned run would be no ordinary run, without its last
    epoch's training figures, without hparams and summary. It needs the package ``lightning`` beside the
    ``pytorch_lightning`` that trains here, and the study in the process that trains. This one lets the epoch end.

    Args:
        is_hopeless: Takes the epoch (from 0) and the accuracy.
    """

    def __init__(self, is_hopeless: IsHopeless) -> None:
        self.is_hopeless = is_hopeless
        self.pruned = False
        self.failure: str | None = None
        self.accuracy: float | None = None
        self.validation_loss: float | None = None

    def on_train_epoch_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Report; the last epoch is not pruned, for nothing is left to be saved."""
        figures = {key: float(value) for key, value in trainer.callback_metrics.items()}
        for key in _LOSSES:
            if not math.isfinite(figures.get(key, 0.0)):
                self.failure = f"{key} was {figures[key]} after epoch {trainer.current_epoch + 1}"
                trainer.should_stop = True
                return
        if _ACCURACY not in figures:
            return
        self.accuracy, self.validation_loss = figures[_ACCURACY], figures.get("val/loss")
        hopeless = self.is_hopeless(trainer.current_epoch, self.accuracy)
        if hopeless and trainer.current_epoch + 1 < (trainer.max_epochs or 0):
            self.pruned = trainer.should_stop = True


class TrialCLI(cli.FashionCLI):
    """``fmnist fit`` with the report of its epochs.

    Args:
        report: Takes the epochs.
        *args: Those of `FashionCLI`.
        **options: Those of `FashionCLI`.
    """

    last: "TrialCLI | None" = None  # LightningCLI runs as it is constructed, and `main` returns nothing

    def __init__(self, *args: Any, report: PruningReport, **options: Any) -> None:  # noqa: ANN401
        self.report = report
        super().__init__(*args, **options)

    def instantiate_classes(self) -> None:
        """Add the report to the callbacks of the run."""
        super().instantiate_classes()
        self.trainer.callbacks.append(self.report)  # type: ignore[attr-defined]
        TrialCLI.last = self


def run_trial(job: TrialJob, is_hopeless: IsHopeless) -> dict[str, Any]:
    """Train a trial.

    Returns:
        The message that ends it; see `fmnist_pl.search.workers.job`.

    Raises:
        UserError: For what the user can mend, as ``fmnist fit`` does.
    """
    report = PruningReport(is_hopeless)
    cli.main(fit_arguments(job), functools.partial(TrialCLI, report=report))
    run, TrialCLI.last = TrialCLI.last, None
    assert run is not None
    gc.collect()  # a trainer and its module refer to each other, and to all images
    folder = Path(str(run.trainer.log_dir))
    for name in (LAST, PREVIOUS):  # two thirds of the disk's space, for going on with a run that has ended
        (folder / "checkpoints" / name).unlink(missing_ok=True)
    record = run.record
    dead = record.last_epoch.get("dead_relu/total", math.nan)
    figures = {
        "run": str(folder),
        "seconds": sum(entry["seconds"] for entry in record.history),
        "dead_share": dead if math.isfinite(dead) else None,
        "validation_loss": report.validation_loss,
    }
    if report.failure is not None:
        return {"kind": DIVERGED, "reason": report.failure, "figures": figures}
    if report.pruned:
        return {"kind": PRUNED, "figures": figures}
    if report.accuracy is None:
        raise UserError(
            f"The trial's epochs logged no {_ACCURACY}, by which trials are judged. Leave validation on: check the "
            "options of `fmnist fit` that the search was given."
        )
    return {"kind": DONE, "value": report.accuracy, "figures": figures}


def fit_arguments(job: TrialJob) -> list[str]:
    """The command line that trains a trial; anybody may repeat it."""
    return [
        *("fit", "--variant", job.overlay),
        f"--seed_everything={job.seed}",
        f"--trainer.max_epochs={job.epochs}",
        "--test_checkpoint=none",
        f"--trainer.logger.init_args.save_dir={job.folder}",
        *job.options,
    ]
