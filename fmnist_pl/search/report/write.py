"""The report of a search: ``report.md``, ``report.html`` with the plots, ``trials.csv``."""

from pathlib import Path
from typing import Any

from optuna.study import Study

from fmnist_pl.search.confirmation import Confirmation
from fmnist_pl.search.report import sections_answers, sections_choices, sections_trials
from fmnist_pl.search.report.anova import analyse, analyse_early
from fmnist_pl.search.report.document import Bullets, Document, Section, code
from fmnist_pl.search.report.document_html import html_page
from fmnist_pl.search.report.document_markdown import markdown
from fmnist_pl.search.report.guidance import guidance, sentences
from fmnist_pl.search.report.importance import importances
from fmnist_pl.search.report.trial_records import csv_text, trial_records
from fmnist_pl.search.report.verdicts import verdicts, what_mattered
from fmnist_pl.search.result import WINNER, best_trial
from fmnist_pl.search.sampler import RANDOM_TRIALS
from fmnist_pl.search.tally import LOST, RETRY_OF
from training_health.durable_file import replace_durably
from training_health.errors import UserError


def write_report(study: Study, folder: Path, confirmation: Confirmation | None) -> None:
    """Write what a study found; each file is replaced as a whole.

    Args:
        study: In any state: without a completed trial the report says so.
        folder: Made if need be.
        confirmation: The winner against the baseline; None if that was not done.

    Raises:
        UserError: If the files cannot be written.
    """
    document = report(study, folder, confirmation)
    contents = {
        "trials.csv": csv_text(trial_records(study)),
        "report.md": markdown(document),
        "report.html": html_page(document),
    }
    try:
        for name, text in contents.items():
            replace_durably(folder / name, text.encode())
    except OSError as error:
        raise UserError(
            f"The report cannot be written into {folder}: {error.strerror or error}. Make room or choose another "
            "folder, and repeat the command: finished trials are not repeated."
        ) from error


def report(study: Study, folder: Path, confirmation: Confirmation | None) -> Document:
    """The report's content.

    Args:
        study: See `write_report`.
        folder: Where the winner's overlay lies.
        confirmation: See `write_report`.
    """
    records = trial_records(study)
    winner = best_trial(study)
    title = f"Search {code(study.study_name, 80)}"
    outcome = f"{sections_trials.counted(records)}; {sections_trials.data_name(study)}."
    tried = sections_trials.searched(study, records)
    failed = sections_trials.failures(records)
    last = [] if failed is None else [failed]
    found = guidance(records, _validation_images(study), RANDOM_TRIALS, _given(study))
    if winner is None or found is None:
        nothing = "No trial was completed, so there is no winner, and nothing can be said about the choices."
        return Document(title, [Section("In short", [Bullets([outcome, nothing])]), tried, *last])
    best = next(record for record in records if record.number == winner.number)
    anova, early = analyse(study), analyse_early(study)
    judged = verdicts(records, anova)
    values = sections_choices.values(records, judged, anova)
    short = [
        f"{outcome} Best: trial {best.number} with {100 * (best.accuracy or 0):.2f} % on the validation images.",
        "The winner has not been trained with further seeds yet." if confirmation is None else confirmation.sentence,
        *what_mattered(judged, anova, early),
        sentences(found)[-1],
        f"Do dead units cost anything? {sections_answers.dead_units_answer(records)}",
    ]
    return Document(
        title,
        [
            Section("In short", [Bullets(short)]),
            sections_answers.confirmed(confirmation),
            sections_trials.best(best, str(folder / f"{WINNER}.yaml")),
            sections_choices.mattered(judged, anova, early, importances(study)),
            *([] if values is None else [values]),
            sections_trials.trial_and_error(records, found),
            *sections_trials.costs(records),
            sections_answers.dead_units(records),
            tried,
            *last,
        ],
    )


def _given(study: Study) -> list[dict[str, Any]]:
    """What the space names to be tried first, as the first suggestions had it: the file may say 1e-3, or 1 for 1.0."""
    space = study.user_attrs.get("space")
    first = space.get("first") if isinstance(space, dict) else None
    suggested = [
        trial.params
        for trial in study.get_trials(deepcopy=False)
        if RETRY_OF not in trial.system_attrs and trial.user_attrs.get(LOST) != "void"
    ]
    return suggested[: len(first or [])]


def _validation_images(study: Study) -> int:
    from fmnist_pl.data import SYNTHETIC_IMAGES, VALIDATION_IMAGES

    synthetic = study.user_attrs.get("data") == "synthetic"
    return min(VALIDATION_IMAGES, SYNTHETIC_IMAGES["train"] // 5) if synthetic else VALIDATION_IMAGES
