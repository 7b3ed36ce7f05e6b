"""Resume from the end of every epoch, and compare everything that the run leaves with one that was not interrupted."""

import shutil
import tempfile
from collections.abc import Callable
from pathlib import Path

from tests.soak.command import EPOCHS, TWO_RANKS, differences, ending, fit, fit_elsewhere

KEEP = "--trainer.callbacks+=tests.soak.command.KeepEpochs"
ACCUMULATING = "--trainer.accumulate_grad_batches=3"
SWA = [f"--trainer.callbacks.{name}" for name in ("swa_lrs=0.01", "swa_epoch_start=2")]
STOPPING = [f"--trainer.callbacks.{name}" for name in ("monitor=val/loss", "min_delta=10.0", "patience=3")]
CASES = {
    "modern": ("modern",),
    "batch_norm, three batches per step": ("batch_norm", ACCUMULATING),
    "validation twice per epoch": ("baseline", "--trainer.val_check_interval=0.5"),
    "validation every second epoch": ("baseline", "--trainer.check_val_every_n_epoch=2"),
    "one-cycle": ("baseline", "--model.schedule=one_cycle"),
    "SGD with momentum, no monitors": ("sgd_momentum", "--monitors=off"),
    "averaged weights": ("batch_norm", "--trainer.callbacks+=EMAWeightAveraging"),
    "stochastic weight averaging": ("baseline", "--trainer.callbacks+=StochasticWeightAveraging", *SWA),
    "early stopping": ("baseline", "--trainer.callbacks+=EarlyStopping", *STOPPING),
}
TWO_RANKS_CASES = {
    "modern, two ranks": ("modern", *TWO_RANKS),
    "batch_norm, three batches per step, two ranks": ("batch_norm", ACCUMULATING, *TWO_RANKS),
}


def check(
    logs: Path, variant: str, *options: str, epochs: range = range(1, EPOCHS + 1), run: Callable[..., Path] = fit
) -> list[str]:
    """Every difference between a run and the same run resumed after each of ``epochs``.

    The folder that it resumes in holds the curves of all epochs: those that are done again must not be there twice.
    """
    straight = run(logs, KEEP, *options, variant=variant)
    expected, found = ending(straight), []
    options = tuple(option for option in options if "callbacks" not in option)  # added by the saved configuration
    for epoch in epochs:
        resumed = straight.with_name(f"version_{epoch}")
        shutil.copytree(straight, resumed)
        (resumed / "summary.json").unlink()
        if epoch < EPOCHS:  # after the last it is only tested
            shutil.move(resumed / "checkpoints" / f"epoch{epoch}.ckpt", resumed / "checkpoints" / "last.ckpt")
        run(logs, "--resume", str(resumed), *options, variant=variant)
        found += [f"from epoch {epoch}: {where}" for where in differences(expected, ending(resumed))]
    return found


def soak() -> str:
    """All cases, all epochs."""
    found = []
    for cases, run in ((CASES, fit), (TWO_RANKS_CASES, fit_elsewhere)):
        for name, (variant, *options) in cases.items():
            with tempfile.TemporaryDirectory() as folder:
                found += [f"{name}, {where}" for where in check(Path(folder), variant, *options, run=run)]
    assert not found, "\n".join(found)
    points = EPOCHS * (len(CASES) + len(TWO_RANKS_CASES))
    return f"{points} resumed runs, one rank and two, from every epoch's end: 0 differences"
