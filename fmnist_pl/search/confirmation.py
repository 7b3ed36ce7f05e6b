"""Is the winner better than the baseline, or was it lucky? Further seeds of both, compared as any two variants."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from optuna.study import Study

from fmnist_pl.compare.comparison import Comparison, compare, run_result
from fmnist_pl.compare.display import Display
from fmnist_pl.compare.finished import LogFolder
from fmnist_pl.compare.output import write_all
from fmnist_pl.compare.plan import wanted_runs
from fmnist_pl.compare.runner import Runner, fit_command
from fmnist_pl.compare.statistics import Difference
from fmnist_pl.search.result import best_trial
from fmnist_pl.variants import variant_name
from training_health.errors import UserError

BASELINE = "baseline"
FOLDER = "confirmation"  # below the search's own
_JUDGED = "test_accuracy"


@dataclass(frozen=True)
class Confirmation:
    """The winner against the baseline.

    Attributes:
        comparison: Of the two; its runs are the only ones of a search that see the test images.
        winner: The winner's name in it.
        epochs: That each run trained.
        searched: The accuracy on the validation images that the search saw, as a fraction.
    """

    comparison: Comparison
    winner: str
    epochs: int
    searched: float | None

    @property
    def difference(self) -> Difference | None:
        """In test accuracy, winner minus baseline; None if no seed has both."""
        return self.comparison.differences[self.winner][_JUDGED]

    @property
    def sentence(self) -> str:
        """Whether the winner is better, in words."""
        difference = self.difference
        if difference is None:
            return "The winner could not be compared with the baseline: no seed has finished runs of both."
        mean = f"{100 * difference.mean:+.2f}"
        seeds = f"{difference.n} further seed{'s' * (difference.n > 1)}"
        if difference.half_width is None:
            return f"The winner's test accuracy is {mean} points from the baseline's with one seed: not a verdict."
        size = f"{mean} ± {100 * difference.half_width:.2f} points of test accuracy, {seeds}"
        if difference.verdict == "noise":
            return f"The winner is not better than the baseline beyond noise ({size}, paired 95 % interval)."
        word = "better" if difference.mean > 0 else "worse"
        return f"The winner is {word} than the baseline ({size}, paired 95 % interval)."


def confirm(
    study: Study,
    winner: Path,
    folder: Path,
    seeds: Sequence[int],
    epochs: int,
    jobs: int,
    *,
    logdir: Path = Path("lightning_logs"),
    options: Sequence[str] = (),
) -> Confirmation:
    """Train the winner and the baseline with each of ``seeds``, test each run once, and compare.

    Stopped or killed and called again, it goes on where it was: finished runs are found in ``logdir`` by content.

    Args:
        study: The search that the winner is of; it says which data to train on and with what options of ``fmnist fit``.
        winner: The winner's overlay.
        folder: Of the search's results; the comparison is written below it.
        seeds: Better not the search's own: with that the winner was chosen.
        epochs: Of each run.
        jobs: How many runs train at a time.
        logdir: Where runs leave and find their folders.
        options: Further options for all runs.

    Raises:
        UserError: If runs cannot be planned or the comparison cannot be written. A run that fails is no error: the
            comparison names its reason.
    """
    if jobs < 1:
        raise UserError(f"--jobs must be at least 1, got {jobs}.", exit_code=2)
    dataset = str(study.user_attrs.get("data", "fashion_mnist")).replace("-", "_")
    trials_options = study.user_attrs.get("options") or []
    fit_options = [f"--data.dataset={dataset}", f"--trainer.max_epochs={epochs}", *trials_options, *options]
    runs = wanted_runs([BASELINE, str(winner)], seeds, fit_options)
    logs, output = LogFolder(logdir), folder / FOLDER
    failures = Runner(logs, output / "output", jobs, Display(), fit_command(logdir)).train(runs)
    results = [run_result(run, logs.finished(run), failures.get(run.digest)) for run in runs]
    comparison = compare(results, BASELINE, runs[0].identity["data"])
    write_all(comparison, output)
    trial = best_trial(study)
    return Confirmation(comparison, variant_name(str(winner)), epochs, None if trial is None else trial.value)
