"""One finding: what a run's numbers mean, in sentences, with the rule and its source beside them.

Each rule is a pure function from a ``HealthRun`` to findings, in one of the ``rules_*`` modules. *Critical* and
*warning* are alarms and name something to mend; *notice* is worth a look; *info* explains a number that is often
misread. Healthy runs get no alarm: every threshold is set above what healthy training shows. What is measured on fewer
than ``ENOUGH`` examples says so, and is an alarm only where it is beyond what so few can show by chance.
"""

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import Literal

from training_health.health.health_run import HealthRun

Severity = Literal["critical", "warning", "notice", "info"]
SEVERITIES: tuple[Severity, ...] = ("critical", "warning", "notice", "info")
ALARMS = SEVERITIES[:2]


@dataclass(frozen=True)
class Finding:
    """One thing a rule saw in one run.

    Attributes:
        title: A few words, used as the run's verdict too.
        evidence: What was seen: where, epochs, number, n.
        threshold: The rule in words, with its threshold.
        advice: What to try, most promising first; `code` in back-ticks.
        section: The part of the page that shows the evidence.
    """

    rule: str
    severity: Severity
    title: str
    evidence: str
    threshold: str
    source: str
    advice: tuple[str, ...] = ()
    section: Literal["units", "gap", "weights"] = "units"
    site: str = ""


Rule = Callable[[HealthRun], Iterable[Finding]]

ENOUGH = 300  # examples from which on a unit that never fired fires, with 95 % confidence, on less than 1 % of all
CONVENTION = "a convention of these rules"

# {a lever} in advice is where the run's own record may say what it is called there.
LEVERS = ("learning_rate", "initialization", "activation", "normalization", "dropout", "regularization")
LOWER_RATE = "A learning rate 3 to 10 times lower{learning_rate}"
CLIPPING = "Gradient clipping (`Trainer(gradient_clip_val=1.0)`)"

Limit = tuple[str, float, str]  # the name of a run's own, the general fraction, its source


def limit_of(run: HealthRun, limit: Limit) -> tuple[float, str]:
    """The fraction from which on a rule speaks in this run, and where that comes from."""
    name, general, source = limit
    own = run.supplied("limits", name)
    return (own, "the run's own record") if isinstance(own, float) and 0 < own <= 1 else (general, source)


def fill_levers(advice: str, run: HealthRun) -> str:
    """The advice with the names that the run's own record has for its levers."""
    for lever in LEVERS:
        own = run.supplied("advice", lever)
        advice = advice.replace(f"{{{lever}}}", f" (here: {own[:200]})" if own and isinstance(own, str) else "")
    return advice
