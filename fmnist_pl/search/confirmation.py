"""The winner of a search, and whether it is better than the baseline or was lucky: further seeds of both."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import yaml
from optuna.study import Study
from optuna.trial import TrialState

from fmnist_pl.search.study import best_of
from training_health.durable_file import replace_durably
from training_health.errors import UserError

if TYPE_CHECKING:
    from fmnist_pl.compare.comparison import Comparison
    from fmnist_pl.compare.results import Difference

BASELINE, WINNER = "baseline", "winner"  # the variants' names; the second also that of its file
FOLDER = "confirmation"  # below the search's own


@dataclass(frozen=True)
class Confirmation:
    """The winner against the baseline.

    Attributes:
        comparison: Of the two; its runs are the only ones of a search that see the test images.
        winner: The winner's name in it.
        epochs: That each run trained.
        searched: The accuracy on the validation images that the search saw, as a fraction.
    """

    comparison: "Comparison"
    winner: str
    epochs: int
    searched: float | None

    @property
    def difference(self) -> "Difference | None":
        """In test accuracy, winner minus baseline; None if no seed has both."""
        return self.comparison.differences[self.winner]["test_accuracy"]

    @property
    def sentence(self) -> str:
        """Whether the winner is better, in words."""
        difference = self.difference
        if difference is None:
            return "The winner could not be compared with the baseline: no seed has finished runs of both."
        mean = f"{100 * difference.mean:+.2f}"
        if difference.half_width is None:
            return f"The winner's test accuracy is {mean} points from the baseline's with one seed: not a verdict."
        verdict = "not better than the baseline beyond noise"
        if difference.verdict != "noise":
            verdict = f"{'better' if difference.mean > 0 else 'worse'} than the baseline"
        return (
            f"The winner is {verdict} ({mean} ± {100 * difference.half_width:.2f} points of test accuracy, "
            f"{difference.n} further seed{'s' * (difference.n > 1)}, paired 95 % interval)."
        )


def write_winner(study: Study, folder: Path) -> Path:
    """Write the best trial's configuration as ``folder/winner.yaml``, for ``fmnist fit --variant folder/winner.yaml``.

    Raises:
        UserError: If no trial was completed, or the file cannot be written.
    """
    from fmnist_pl.search.space import Space

    trials = study.get_trials(deepcopy=False)
    trial = best_of(trials)
    if trial is None:
        raise UserError(
            f"No trial of the study {study.study_name!r} was completed, so it has no winner. The report in {folder} "
            "says why; repeat the search with more trials or with a space that trains."
        )
    path = folder / f"{WINNER}.yaml"
    complete = sum(one.state == TrialState.COMPLETE for one in trials)
    name = "".join(letter if letter.isprintable() else " " for letter in study.study_name)
    head = f"# Trial {trial.number} of the search {name}: the best of {complete} that trained to the end.\n"
    overlay = {**Space(study.user_attrs["space"]).overlay(trial.params), "variant": WINNER}
    try:
        replace_durably(path, (head + yaml.safe_dump(overlay, sort_keys=False, allow_unicode=True)).encode())
    except OSError as error:
        raise UserError(f"{path} cannot be written: {error.strerror}. Make room, and repeat the command.") from error
    return path


def confirm(
    study: Study, winner: Path, folder: Path, seeds: Sequence[int], epochs: int, jobs: int, logdir: Path
) -> Confirmation:
    """Train the winner and the baseline with each of ``seeds``, test each run once, and compare.

    Finished runs are found in ``logdir``; interrupted and called again, it trains what is missing. ``seeds`` had
    better not be the search's own, with which the winner was chosen. A run that fails is named by the comparison.
    """
    from fmnist_pl.compare.comparison import train_and_compare

    settings = study.user_attrs
    options = [f"--data.dataset={settings['data']}", f"--trainer.max_epochs={epochs}", *settings["options"]]
    comparison = train_and_compare(
        [BASELINE, str(winner)],
        seeds,
        reference=BASELINE,
        options=options,
        jobs=jobs,
        logdir=logdir,
        output=folder / FOLDER,
    )
    trial = best_of(study.get_trials(deepcopy=False))
    return Confirmation(comparison, WINNER, epochs, None if trial is None else trial.value)
