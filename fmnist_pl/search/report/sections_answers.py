"""The report's sections on dead units and on the winner's further seeds."""

from collections.abc import Sequence

from fmnist_pl.compare.comparison import Comparison
from fmnist_pl.compare.figures import BY_KEY
from fmnist_pl.compare.notes import notes
from fmnist_pl.compare.statistics import Difference, Spread
from fmnist_pl.search.confirmation import Confirmation
from fmnist_pl.search.report.dead_units import METHOD, Relation, answer, relation
from fmnist_pl.search.report.document import Block, Bullets, Plot, Section, Table, Text, code
from fmnist_pl.search.report.plots import dead_against_accuracy
from fmnist_pl.search.report.trial_records import TrialRecord, completed, in_state

_SHOWN = ("val_accuracy", "test_accuracy", "gap", "dead_share", "seconds_per_epoch")
_CHECKPOINT = (
    "A trial is judged by its last epoch; a run here is tested with its checkpoint of the lowest validation loss, the "
    "winner's and the baseline's alike."
)


def dead_units_answer(records: Sequence[TrialRecord]) -> str:
    """Do dead units cost anything? By the completed trials."""
    pairs = [(r.dead_share, accuracy) for r, accuracy in completed(records) if r.dead_share is not None]
    return answer(_relation(pairs), len(pairs))


def dead_units(records: Sequence[TrialRecord]) -> Section:
    """Dead share against accuracy over all trials."""
    done = [(r.dead_share, accuracy) for r, accuracy in completed(records) if r.dead_share is not None]
    pruned = [
        (r.dead_share, r.accuracy)
        for r in in_state(records, "pruned")
        if r.dead_share is not None and r.accuracy is not None
    ]
    blocks: list[Block] = [Text(dead_units_answer(records))]
    if len(done) + len(pruned) > 1:
        caption = "Completed trials, and pruned ones as they were when they were given up."
        blocks.append(Plot(dead_against_accuracy(records), caption))
    rows = [_relation_row("completed trials", done)]
    if pruned:
        rows.append(_relation_row("completed and pruned trials", [*done, *pruned]))
    head = ["over", "n", "rank correlation (95 % interval)", "p", "points per 10 points of dead share (95 % interval)"]
    blocks += [Table(head, rows), Text(_caution(records, bool(pruned)))]
    return Section("Do dead units cost anything?", blocks)


def confirmed(confirmation: Confirmation | None) -> Section:
    """The winner against the baseline with seeds that the search did not see."""
    title = "The winner with further seeds"
    if confirmation is None:
        text = "The winner has not been trained with further seeds yet: how good it is beyond the search is not known."
        return Section(title, [Text(text)])
    comparison = confirmation.comparison
    head = ["variant", "n", *(BY_KEY[key].heading for key in _SHOWN)]
    rows = [
        [code(variant.name), str(len(variant.complete)), *(_spread_cell(key, variant.spreads[key]) for key in _SHOWN)]
        for variant in comparison.variants
    ]
    differences = comparison.differences[confirmation.winner]
    pairs = max((d.n for d in differences.values() if d is not None), default=0)
    rows.append(["difference", str(pairs), *(_difference_cell(key, differences[key]) for key in _SHOWN)])
    failed = [run for run in comparison.runs if run.failure is not None]
    reasons = [f"Failed: {code(run.variant)} seed {run.seed}: {code(run.failure)}" for run in failed]
    blocks: list[Block] = [Text(f"{confirmation.sentence} {_regression(confirmation)}".strip()), Table(head, rows)]
    return Section(title, [*blocks, Bullets([*reasons, *notes(comparison), _untouched(comparison), _CHECKPOINT])])


def _relation(pairs: Sequence[tuple[float, float]]) -> Relation | None:
    return relation([dead for dead, _ in pairs], [accuracy for _, accuracy in pairs])


def _relation_row(name: str, pairs: Sequence[tuple[float, float]]) -> list[str]:
    found = _relation(pairs)
    if found is None:
        return [name, str(len(pairs)), "-", "-", "-"]
    rho = f"{found.rho:+.2f} ({found.low:+.2f} to {found.high:+.2f})"
    slope = f"{found.slope:+.2f} ({found.slope_low:+.2f} to {found.slope_high:+.2f})"
    return [name, str(found.n), rho, "< 0.001" if found.p_value < 0.001 else f"{found.p_value:.3f}", slope]


def _caution(records: Sequence[TrialRecord], some_pruned: bool) -> str:
    text = (
        f"{METHOD}; the slope is Theil and Sen's (scipy.stats.theilslopes). This is association: the trials differ in "
        "everything at once, and a choice that kills units, such as a high learning rate, changes accuracy by itself."
    )
    if some_pruned:
        text += (
            " Pruned trials trained for fewer epochs, so they are less accurate for that alone: the first row is the "
            "fairer one."
        )
    without = [accuracy for r, accuracy in completed(records) if r.dead_share is None]
    if without:
        text += f" {len(without)} completed trials without a dead share, such as those without a ReLU, are left out."
    return text


def _regression(confirmation: Confirmation) -> str:
    """What became of the search's figure."""
    winner = next(v for v in confirmation.comparison.variants if v.name == confirmation.winner)
    validation = winner.spreads["val_accuracy"]
    if validation is None or confirmation.searched is None:
        return ""
    return (
        f"Its validation accuracy is {100 * validation.mean:.2f} % on average here and was "
        f"{100 * confirmation.searched:.2f} % in the search; the training may differ in epochs and images."
    )


def _untouched(comparison: Comparison) -> str:
    runs = len([run for run in comparison.runs if run.failure is None])
    return f"These {runs} runs are the only ones of the search that were tested on the test images, each once."


def _spread_cell(key: str, spread: Spread | None) -> str:
    figure = BY_KEY[key]
    if spread is None:
        return "-"
    return figure.shown(spread.mean) + ("" if spread.sd is None else f" ± {figure.shown(spread.sd)}")


def _difference_cell(key: str, difference: Difference | None) -> str:
    figure = BY_KEY[key]
    if difference is None:
        return "-"
    mean = figure.shown(difference.mean, sign=True)
    if difference.half_width is None:
        return mean
    text = f"{mean} ± {figure.shown(difference.half_width)}"
    return f"**{text}**" if difference.verdict == "different" else text
