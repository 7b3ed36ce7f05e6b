"""Writes the report of a search: one Markdown text, the same as HTML with charts, and the trials as CSV."""

import re
import shlex
import textwrap
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from statistics import median
from typing import Any

import yaml
from jinja2 import Environment, PackageLoader, StrictUndefined
from optuna.study import Study
from optuna.trial import TrialState

from fmnist_pl.compare.output import sentences
from fmnist_pl.compare.results import Comparison
from fmnist_pl.data import VALIDATION_IMAGES
from fmnist_pl.runs.folder import write_file
from fmnist_pl.search.report import statistics
from fmnist_pl.search.report.charts import draw, for_display
from fmnist_pl.search.report.page import html_page
from fmnist_pl.search.report.trials import METRICS, accuracy, by_sampling, csv_text, outcome
from fmnist_pl.search.study import RANDOM_TRIALS, best_of, origin

_SETTINGS = ("data", "images", "epochs", "seed", "options", "space")  # the study's attributes
_FILTERS: dict[str, Callable[[Any], Any]] = {
    "code": lambda value: code(value),
    "cell": lambda value: code(value).replace("|", r"\|"),
    "median": median,
    "origin": origin,
    "outcome": outcome,
    "p": lambda value: "p < 0.001" if value < 0.001 else f"p = {value:.3f}",
    "percent": lambda value: f"{100 * value:.2f} %",
    "points": lambda effect: f"{100 * effect.difference:.2f} ± {100 * effect.half_width:.2f}",
    "yaml": lambda value: textwrap.indent(yaml.safe_dump(value, sort_keys=False), "    "),
}


def write_report(study: Study, folder: Path, confirmation: Comparison | None) -> None:
    """Write ``report.md``, ``report.html`` and ``trials.csv``; each file is replaced as a whole.

    Args:
        study: In any state: what cannot be said is called unknown.
        folder: Made if need be.
        confirmation: The winner against the baseline; None if that was not done.

    Raises:
        UserError: If the files cannot be written.
    """
    trials, settings = study.get_trials(deepcopy=False), {name: study.user_attrs.get(name) for name in _SETTINGS}
    done = [trial for trial in trials if trial.state == TrialState.COMPLETE]
    accuracies = [accuracy(trial) for trial in done]
    analysis = statistics.analyse([trial.params for trial in done], accuracies)
    random, guided = by_sampling(trials, len((settings["space"] or {}).get("first") or []), RANDOM_TRIALS)
    groups = {"random": [*map(accuracy, random)], "guided": [*map(accuracy, guided)]}
    known = [trial for trial in done if trial.user_attrs.get("dead_fraction") is not None]
    front = [trials[trial.number] for trial in for_display(trials, "parameters").best_trials]
    charts = draw(trials, analysis, guided[0].number if guided else None)
    images = VALIDATION_IMAGES[settings["data"] or "fashion_mnist"]
    environment = Environment(
        loader=PackageLoader("fmnist_pl.search", "report"),
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.filters |= _FILTERS
    text = environment.get_template("template.md").render(
        name=study.study_name,
        counts=Counter(map(outcome, trials)),
        settings=settings,
        n=len(done),
        best=best_of(trials),
        images=images,
        tied=statistics.not_told_apart(accuracies, images),
        command=f"fmnist fit --variant {shlex.quote(str(folder / 'winner.yaml'))}",
        metrics=METRICS,
        confirmation=confirmation,
        sentences=sentences,
        analysis=analysis,
        groups=groups,
        guidance=statistics.guidance(*groups.values()),
        random_trials=RANDOM_TRIALS,
        front=sorted(front, key=accuracy),
        dead_n=len(known),
        dead=statistics.dead_units([t.user_attrs["dead_fraction"] for t in known], [*map(accuracy, known)]),
        failures=[trial for trial in trials if trial.state == TrialState.FAIL],
        last_attempt={origin(trial): trial.number for trial in trials},
        charts=charts,
        limits=statistics,
    )
    text = re.sub(r"\n{3,}", "\n\n", text).strip() + "\n"
    write_file(folder / "trials.csv", csv_text(trials))
    write_file(folder / "report.md", text)
    write_file(folder / "report.html", html_page(f"Search {study.study_name}", text, charts))


def code(value: Any) -> str:  # noqa: ANN401
    """``value`` as one short line of Markdown code, safe whatever a user named."""
    printable = "".join(letter if letter.isprintable() else " " for letter in statistics.shown(value))
    text = re.sub(r" +", " ", printable).replace("`", "'").strip() or " "
    return f"`{text if len(text) <= 200 else text[:199] + '…'}`"
