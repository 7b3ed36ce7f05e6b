"""All rules together, and the verdict they add up to."""

from dataclasses import replace

from training_health.health import rules_gap, rules_units, rules_weights
from training_health.health.finding import ALARMS, SEVERITIES, Finding, Rule, fill_levers
from training_health.health.health_run import HealthRun

NOT_NUMBERS = {"nonfinite_weights", "loss_not_finite"}
DEATHS = {"whole_layer_dead", "many_dead_units", "dead_from_the_start", "mass_death"}
RULES: tuple[Rule, ...] = (*rules_weights.RULES, *rules_units.RULES, *rules_gap.RULES)


def find_all(run: HealthRun) -> list[Finding]:
    """Applies every rule, worst finding first; rules of one severity stay in their order.

    Where weights or losses are not numbers, no unit is called dead: early monitors counted an output of NaN as zero.
    """
    found = [finding for rule in RULES for finding in rule(run)]
    if any(finding.rule in NOT_NUMBERS for finding in found):
        found = [finding for finding in found if finding.rule not in DEATHS]
    found = [replace(finding, advice=tuple(fill_levers(text, run) for text in finding.advice)) for finding in found]
    return sorted(found, key=lambda finding: SEVERITIES.index(finding.severity))


def verdict(run: HealthRun, found: list[Finding]) -> tuple[str, str]:
    """Level and words of the overview's verdict: a severity, "healthy" or "unknown"."""
    if run.newer_format:
        return "unknown", "Newer log format"
    if run.last_epoch is None:
        return "unknown", "No epoch yet"
    alarms = [finding for finding in found if finding.severity in ALARMS]
    if alarms:
        more = len({finding.title for finding in alarms}) - 1
        return alarms[0].severity, alarms[0].title + (f", and {more} more" if more else "")
    notices = [finding for finding in found if finding.severity == "notice"]
    return ("notice", notices[0].title) if notices else ("healthy", "No alarm")
