"""Which choices mattered, and how to say so."""

from collections.abc import Sequence
from dataclasses import dataclass

from fmnist_pl.search.report.anova import Anova, Choice
from fmnist_pl.search.report.document import code
from fmnist_pl.search.report.effects import Effect, effects, largest_difference
from fmnist_pl.search.report.trial_records import TrialRecord


@dataclass(frozen=True)
class Verdict:
    """A choice with the values that it went best and worst with.

    Attributes:
        choice: What the analysis of variance says.
        best: None, as the next, if fewer than two values can be compared.
        worst: See above.
    """

    choice: Choice
    best: Effect | None
    worst: Effect | None

    @property
    def judged(self) -> bool:
        """Whether two values can be compared."""
        return self.choice.comparable and self.best is not None

    @property
    def matters(self) -> bool:
        """Whether it can be judged and is beyond chance."""
        return self.judged and self.choice.matters

    @property
    def difference(self) -> float:
        """Between the two, as a fraction."""
        if self.best is None or self.worst is None:
            return 0.0
        return (self.best.adjusted or 0.0) - (self.worst.adjusted or 0.0)

    @property
    def as_seen(self) -> float:
        """Between the two without holding the other choices; below 0 if it contradicts `difference`."""
        if self.best is None or self.worst is None or self.best.accuracy is None or self.worst.accuracy is None:
            return 0.0
        return self.best.accuracy.mean - self.worst.accuracy.mean


def verdicts(records: Sequence[TrialRecord], anova: Anova) -> list[Verdict]:
    """Of every choice: those beyond chance first, each kind by falling difference."""
    result = []
    for choice in anova.choices:
        extremes = largest_difference(effects(records, choice.name, choice.contributions))
        result.append(Verdict(choice, *(extremes or (None, None))))
    return sorted(result, key=lambda verdict: (not verdict.matters, -verdict.difference))


def what_mattered(found: Sequence[Verdict], anova: Anova, early: Anova | None) -> list[str]:
    """Which choices mattered and which did not, in sentences."""
    if anova.unknown is not None:
        return [f"Which choices mattered cannot be said. {anova.unknown}", *_early(early)]
    matter = [verdict for verdict in found if verdict.matters]
    rest = [code(verdict.choice.name) for verdict in found if verdict.judged and not verdict.matters]
    settled = [code(name) for name in [*(v.choice.name for v in found if not v.judged), *anova.settled]]
    if matter:
        result = [f"What mattered, beyond chance and with the other choices held: {'; '.join(map(_told, matter))}."]
        result += [f"Not told from chance with {anova.n} completed trials: {_listed(rest)}."] if rest else []
    else:
        result = [
            f"No choice can be told from chance with {anova.n} completed trials. That does not show that none matters: "
            "small differences need more trials."
        ]
    if settled:
        result[-1] += f" Not judged, since nearly all completed trials share one value: {_listed(settled)}."
    return [*result, *_early(early)]


def _told(verdict: Verdict) -> str:
    name, p = code(verdict.choice.name), p_text(verdict.choice.p_value)
    if verdict.best is None or verdict.worst is None:
        return f"{name} ({p})"
    better = f"{100 * verdict.difference:.2f} points better than {code(verdict.worst.value)}"
    if verdict.as_seen < 0:
        seen = f"as seen {code(verdict.worst.value)} is {-100 * verdict.as_seen:.2f} points better"
        return f"{name} (but not which value is best: {code(verdict.best.value)} is {better}, {p}, yet {seen})"
    return f"{name} ({code(verdict.best.value)} is {better}, {p})"


def _early(early: Anova | None) -> list[str]:
    """What the pruned trials add."""
    if early is None or early.unknown is not None:
        return []
    names = [f"{code(choice.name)} ({p_text(choice.p_value)})" for choice in early.choices if choice.matters]
    where = f"After epoch {early.epoch}, where the pruned trials count too ({early.n} trials)"
    return [f"{where}, beyond chance: {_listed(names)}." if names else f"{where}, none is beyond chance."]


def p_text(value: float) -> str:
    """A p value in words."""
    return "p < 0.001" if value < 0.001 else f"p = {value:.3f}"


def _listed(names: Sequence[str]) -> str:
    return names[0] if len(names) == 1 else f"{', '.join(names[:-1])} and {names[-1]}"
