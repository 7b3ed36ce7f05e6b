"""The report's sections on the choices: which mattered, and what each value did."""

from collections.abc import Sequence

from fmnist_pl.search.report.anova import Anova, Choice
from fmnist_pl.search.report.design import Curved
from fmnist_pl.search.report.document import Block, Bullets, Plot, Section, Table, Text, code
from fmnist_pl.search.report.effects import ENOUGH, Effect, effects
from fmnist_pl.search.report.importance import RELIABLE, Importances
from fmnist_pl.search.report.plots_of_choices import choices_plot, effects_plot
from fmnist_pl.search.report.trial_records import TrialRecord, choice_names
from fmnist_pl.search.report.verdicts import Verdict, p_text, what_mattered

_DRAWN = 5  # choices in the plot of values
_FEW = "since there are too few trials to look for an optimum inside their range"
_SHAPES: dict[Curved, str] = {
    "all": "numbers may have an optimum inside their range",
    "logarithmic": f"numbers on a logarithmic scale may have an optimum inside their range, the others a trend, {_FEW}",
    "none": f"numbers have a trend only, {_FEW}",
}


def mattered(found: Sequence[Verdict], anova: Anova, early: Anova | None, importances: Importances) -> Section:
    """The choices by what they did, with Optuna's importance beside it."""
    blocks: list[Block] = [Bullets(what_mattered(found, anova, early))]
    if anova.unknown is None:
        rows = [(verdict.choice.name, verdict.difference, verdict.matters) for verdict in found if verdict.judged]
        caption = (
            "How far apart each choice's best and worst values are when the other choices are held, of the values "
            f"that at least {ENOUGH} completed trials have. Grey bars are no more than chance makes of choices that "
            "do nothing."
        )
        blocks += [Plot(choices_plot(rows), caption)] if rows else []
        blocks.append(Text(_how(anova)))
    blocks += _table(found, early, importances)
    blocks.append(Text(_optunas(importances)))
    return Section("Which choices mattered?", blocks)


def values(records: Sequence[TrialRecord], found: Sequence[Verdict], anova: Anova) -> Section | None:
    """Accuracy by value of every choice; None if no trial made one."""
    contributions = {choice.name: choice.contributions for choice in anova.choices}
    order = [verdict.choice.name for verdict in found]
    names = [*order, *(name for name in choice_names(records) if name not in order)]
    groups = {name: effects(records, name, contributions.get(name, {}), anova.mean) for name in names}
    rows = [_row(effect) for name in names for effect in groups[name]]
    if not rows:
        return None
    blocks: list[Block] = [
        Text(
            "The mean accuracy as seen credits a value with whatever else its trials had in common: the sampler drifts "
            "towards good trials, and they share choices that do nothing. The mean with the other choices held takes "
            "that out as far as a sum of effects can. A value that does badly may show in its pruned trials, which "
            "have no part in the means."
        )
    ]
    if drawn := [groups[verdict.choice.name] for verdict in found if verdict.matters][:_DRAWN]:
        caption = "Mean accuracy by value with the other choices held, of the choices that are beyond chance."
        blocks.append(Plot(effects_plot(drawn), caption))
    head = ["choice", "value", "n", "mean ± sd, %", "others held, %", "best, %", "pruned", "failed"]
    return Section("What each value did", [*blocks, Table(head, rows)])


def _table(found: Sequence[Verdict], early: Anova | None, importances: Importances) -> list[Block]:
    shares = {choice.name: choice for choice in importances.choices}
    soon = {choice.name: choice for choice in early.choices if choice.comparable} if early is not None else {}
    names = list(dict.fromkeys([*(verdict.choice.name for verdict in found), *soon, *shares]))
    by_name = {verdict.choice.name: verdict for verdict in found}
    rows = []
    for name in names:
        verdict, share = by_name.get(name), shares.get(name)
        rows.append(
            [
                code(name),
                code(verdict.best.value) if verdict and verdict.best else "-",
                code(verdict.worst.value) if verdict and verdict.worst else "-",
                f"{100 * verdict.difference:.2f}" if verdict and verdict.best else "-",
                _p_cell(verdict.choice) if verdict and verdict.judged else "-",
                "-" if not verdict or not verdict.judged else "yes" if verdict.matters else "not shown",
                _p_cell(soon[name]) if name in soon else "-",
                f"{100 * share.share:.0f} ({min(100 * share.chance, 100):.0f})" if share else "-",
            ]
        )
    p_early = "p early" if early is None else f"p after epoch {early.epoch}"
    head = [
        "choice",
        "best value",
        "worst value",
        "points apart",
        "p",
        "beyond chance?",
        p_early,
        "PED-ANOVA, % (chance)",
    ]
    return [Table(head, rows)] if rows else []


def _how(anova: Anova) -> str:
    shape = _SHAPES[anova.curved]
    return (
        f"Method: the accuracy of {anova.n} completed trials is fitted by a sum of what each choice contributes "
        f"({shape}); that explains {100 * anova.explained:.0f} % of the variation. A choice is beyond chance if "
        "leaving it out loses more than a choice that does nothing would (F test, p adjusted for the number of choices "
        "by Benjamini and Hochberg, below 0.05). Choices that only work together do not show as such. Pruned trials "
        "are left out: they trained for fewer epochs. The early p is of the accuracy after the last epoch that they "
        "have in common with the others: it counts every trial, but favours what learns fast." + _fenced(anova)
    )


def _fenced(anova: Anova) -> str:
    if anova.fence is None:
        return ""
    who = "One trial lies" if anova.below == 1 else f"{anova.below} trials lie"
    return (
        f" {who} below Tukey's fence of {100 * anova.fence:.2f} %, and the fit takes that accuracy for theirs: a trial "
        "that hardly learned would decide it alone."
    )


def _optunas(importances: Importances) -> str:
    if importances.unknown is not None:
        return f"Optuna's importance (PED-ANOVA) is not given. {importances.unknown}"
    few = (
        f" {importances.n} completed trials are few for it: below {RELIABLE} the order changes with a few trials."
        if importances.n < RELIABLE
        else ""
    )
    return (
        f"PED-ANOVA is Optuna's own importance: how far the choice's values among the best {importances.best} trials "
        "differ from its values among all that were tried, as a share of the sum over choices; conditional choices "
        "included. It is no effect in points, and low for a choice that the sampler settled early, since then all "
        "trials share the good value. In brackets what it reaches in one of twenty searches when the results are "
        f"shuffled over the trials: a share below that is noise.{few}"
    )


def _row(effect: Effect) -> list[str]:
    accuracy = effect.accuracy
    if accuracy is None:
        mean = "-"
    else:
        mean = f"{100 * accuracy.mean:.2f}" + ("" if accuracy.sd is None else f" ± {100 * accuracy.sd:.2f}")
    return [
        code(effect.choice),
        code(effect.value),
        str(accuracy.n if accuracy else 0),
        mean,
        "-" if effect.adjusted is None else f"{100 * effect.adjusted:.2f}",
        "-" if effect.best is None else f"{100 * effect.best:.2f}",
        str(effect.pruned),
        str(effect.failed),
    ]


def _p_cell(choice: Choice) -> str:
    return p_text(choice.p_value).removeprefix("p = ").removeprefix("p ")
