"""One finding: what a run's numbers mean, in sentences, with the rule and its source beside them.

Each rule is a pure function from a ``HealthRun`` to findings, in one of the ``rules_*`` modules. *Critical* and
*warning* are alarms and name something to mend; *notice* is worth a look; *info* explains a number that is often
misread. Healthy runs get no alarm: every threshold is set above what healthy training shows.
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

LOWER_RATE = "A learning rate 3 to 10 times lower"
CLIPPING = "Gradient clipping (`Trainer(gradient_clip_val=1.0)`)"
