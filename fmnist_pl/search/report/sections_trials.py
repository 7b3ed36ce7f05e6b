"""The report's sections on the trials: what was searched, what came of it, what it cost."""

from collections.abc import Sequence
from typing import NamedTuple

from optuna.distributions import BaseDistribution, CategoricalDistribution
from optuna.study import Study

from fmnist_pl.search.report.document import Block, Bullets, Plot, Section, Table, Text, code
from fmnist_pl.search.report.effects import shown
from fmnist_pl.search.report.guidance import Guidance, sentences
from fmnist_pl.search.report.pareto import Cost, pareto_front
from fmnist_pl.search.report.plots import against_cost, best_against_trials
from fmnist_pl.search.report.trial_records import State, TrialRecord, completed, in_state

_WIDE = 20  # ratio of largest to smallest cost from which on its axis is logarithmic


class Kind(NamedTuple):
    """A cost, with the words for it."""

    name: str
    axis: str
    less: str
    of: Cost


def counted(records: Sequence[TrialRecord]) -> str:
    """How many trials ended how."""
    words: dict[State, str] = {"complete": "completed", "pruned": "pruned", "failed": "failed"}
    words |= {"running": "still running", "waiting": "waiting"}
    counts = [(word, len(in_state(records, state))) for state, word in words.items()]
    told = [f"{count} {word}" for word, count in counts if count or word == "completed"]
    n, lost = sum(count for _, count in counts), len(in_state(records, "lost"))
    more = f" ({lost} more {'was' if lost == 1 else 'were'} lost with the process and not counted)" if lost else ""
    return f"{n} trial{'s' * (n != 1)}: {', '.join(told)}{more}"


def searched(study: Study, records: Sequence[TrialRecord]) -> Section:
    """What was searched, and how much of it."""
    attributes = study.user_attrs
    subset = attributes.get("subset")
    images = "all" if subset is None else f"{subset:,}" if isinstance(subset, int) else code(subset)
    table = Table(
        ["", "this search"],
        [
            ["trials", counted(records).split(": ", 1)[1]],
            ["data", data_name(study)],
            ["training images per trial", images],
            ["epochs per trial", code(attributes.get("epochs", "not recorded"))],
            ["seed", code(attributes.get("seed", "not recorded"))],
            ["objective", "accuracy on the validation images after the last epoch; no trial sees the test images"],
        ],
    )
    return Section("What was searched", [table, *_space(study)])


def data_name(study: Study) -> str:
    """What the trials were trained on."""
    synthetic = study.user_attrs.get("data") == "synthetic"
    return "SYNTHETIC garments, not Fashion-MNIST" if synthetic else "Fashion-MNIST"


def best(record: TrialRecord, winner_file: str) -> Section:
    """The best trial, with every choice that it made."""
    figures = [
        ("validation accuracy", _percent(record.accuracy)),
        ("validation loss", "-" if record.validation_loss is None else f"{record.validation_loss:.4f}"),
        ("parameters", "-" if record.parameters is None else f"{record.parameters:,}"),
        ("training time", "-" if record.seconds is None else f"{_seconds(record.seconds)} s"),
        ("dead share", "none can die, or not recorded" if record.dead_share is None else _percent(record.dead_share)),
        ("run", "-" if record.run is None else code(record.run)),
    ]
    rows = [*figures, *((code(name), code(shown(value))) for name, value in record.choices.items())]
    text = f"Trial {record.number}. To train it: {code(f'make train VARIANT={winner_file}')}"
    return Section("The best trial", [Text(text), Table(["", "value"], rows)])


def trial_and_error(records: Sequence[TrialRecord], found: Guidance) -> Section:
    """Best value against trials, and what to make of it."""
    blocks: list[Block] = [Bullets(sentences(found))]
    if found.n > 1:
        figure = best_against_trials(records, found.first_guided)
        blocks.append(Plot(figure, "Accuracy of each trial, and the best so far."))
    return Section("Was it trial and error?", blocks)


def costs(records: Sequence[TrialRecord]) -> list[Section]:
    """Accuracy against parameters and against seconds."""
    kinds = (
        Kind("parameters", "parameters", "with fewer", lambda record: record.parameters),
        Kind("training time", "seconds of training", "in less", lambda record: record.seconds),
    )
    return [section for kind in kinds if (section := _cost(records, kind)) is not None]


def failures(records: Sequence[TrialRecord]) -> Section | None:
    """Each trial that failed or was lost, with its reason; None if there is none."""
    repeated = {number: record.number for record in records for number in record.retries[-1:]}
    rows = []
    for record in records:
        if record.state in ("failed", "lost") or (record.state == "pruned" and record.failure):
            reason = code(record.failure) if record.failure else "none recorded; its worker may have been killed"
            again = f"trial {repeated[record.number]}" if record.number in repeated else "-"
            rows.append([str(record.number), record.state, reason, again])
    return (
        Section("Trials that failed or were lost", [Table(["trial", "state", "reason", "repeated as"], rows)])
        if rows
        else None
    )


def _cost(records: Sequence[TrialRecord], kind: Kind) -> Section | None:
    values = [value for record, _ in completed(records) if (value := kind.of(record)) is not None]
    if len(values) < 2:
        return None
    front = pareto_front(records, kind.of)
    rows = [
        [
            *(str(record.number), _percent(record.accuracy)),
            "-" if record.parameters is None else f"{record.parameters:,}",
            _seconds(record.seconds),
            "-" if record.run is None else code(record.run),
        ]
        for record in front
    ]
    table = Table(["trial", "validation accuracy", "parameters", "seconds", "run"], rows)
    log = min(values) > 0 and max(values) / min(values) >= _WIDE
    caption = f"Completed trials. No other trial is as accurate as one on the front {kind.less} {kind.name}."
    text = (
        f"The front, from the cheapest to the most accurate: {_gain(front, kind)}. Each point is one run with "
        "one seed: neighbours on it may change places with another."
    )
    if kind.name == "training time":
        text += " Seconds are as measured beside whatever else ran on the machine, other trials included."
    plot = Plot(against_cost(records, front, kind.of, kind.axis, log=log), caption)
    return Section(f"Accuracy against {kind.name}", [Text(text), plot, table])


def _gain(front: Sequence[TrialRecord], kind: Kind) -> str:
    cheapest, dearest = front[0], front[-1]
    if cheapest is dearest:
        return f"trial {cheapest.number} alone, which is both"
    factor = (kind.of(dearest) or 0) / (kind.of(cheapest) or 1)
    points = 100 * ((dearest.accuracy or 0) - (cheapest.accuracy or 0))
    return f"{points:.2f} points for {factor:.1f} times the {kind.name}"


def _space(study: Study) -> list[Block]:
    """The choices as the trials saw them."""
    ranges: dict[str, list[str]] = {}
    for trial in study.get_trials(deepcopy=False):
        for name, distribution in trial.distributions.items():
            text = _range(distribution)
            if text not in ranges.setdefault(name, []):
                ranges[name].append(text)
    rows = [[code(name), "; or ".join(texts)] for name, texts in ranges.items()]
    return [Table(["choice", "from"], rows)] if rows else [Text("No trial made a choice.")]


def _range(distribution: BaseDistribution) -> str:
    if isinstance(distribution, CategoricalDistribution):
        return ", ".join(code(shown(choice)) for choice in distribution.choices)
    low, high = getattr(distribution, "low", None), getattr(distribution, "high", None)
    scale = ", logarithmic" if getattr(distribution, "log", False) else ""
    step = getattr(distribution, "step", None)
    steps = f", in steps of {shown(step)}" if step not in (None, 1) else ""
    return f"{shown(low)} to {shown(high)}{scale}{steps}"


def _seconds(value: float | None) -> str:
    return "-" if value is None else f"{value:.1f}" if value < 10 else f"{value:.0f}"


def _percent(value: float | None) -> str:
    return "-" if value is None else f"{100 * value:.2f} %"
