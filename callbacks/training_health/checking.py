"""The findings for a saved model, for a test or a check of one's own: text, JSON, SARIF, an exit status."""

from __future__ import annotations

import json
import math
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import suppress
from dataclasses import dataclass
from types import SimpleNamespace
from typing import Any, Literal
from urllib.parse import quote

import numpy as np
import torch
from torch import Tensor, nn

from training_health.batches import count_examples
from training_health.errors import UserError
from training_health.health.finding import SEVERITIES, Finding
from training_health.health.findings import find_all
from training_health.health.health_run import read_run
from training_health.inspection import Inspection, inspect
from training_health.log_format import FORMAT_VERSION, Record

FailOn = Literal["critical", "warning", "notice", "never"]
_SARIF_LEVELS = {"critical": "error", "warning": "warning", "notice": "note", "info": "note"}
_SARIF_SCHEMA = "https://docs.oasis-open.org/sarif/sarif/v2.1.0/errata01/os/schemas/sarif-schema-2.1.0.json"


@dataclass(frozen=True)
class Checked:
    """What `check` found; printed, it is the dead units' sentence and two lines per finding."""

    findings: list[Finding]  # worst first
    inspection: Inspection

    def __str__(self) -> str:
        """Lay the findings out."""
        counted = str(self.inspection).splitlines()
        lines = [counted[0], *(counted[-1:] if self.inspection.assumed else [])]  # a guess of the units' dimension
        for finding in self.findings:
            lines.append(f"{finding.severity}: {finding.title} [{finding.rule}]")
            lines.append(f"    {' '.join([finding.evidence, *finding.advice])}")
        return "\n".join(lines if self.findings else [*lines, "No finding."])

    def at_least(self, severity: FailOn) -> list[Finding]:
        """The findings of a severity or worse; none for "never".

        Raises:
            UserError: There is no such severity.
        """
        if severity not in (*SEVERITIES, "never"):
            raise UserError(f"There is no severity {severity!r}: choose {', '.join(SEVERITIES)} or never.", exit_code=2)
        worse = SEVERITIES[: SEVERITIES.index(severity) + 1] if severity != "never" else ()
        return [finding for finding in self.findings if finding.severity in worse]

    def to_dict(self) -> dict[str, Any]:
        """Plain values, for JSON: the findings, and what `inspect` counted."""
        return {"findings": [vars(finding) for finding in self.findings], "dead_units": self.inspection.to_dict()}

    def to_sarif(self, artifact: str) -> dict[str, Any]:
        """A log in SARIF 2.1.0, as code-scanning services read it.

        Args:
            artifact: Path of the model's file, relative to the repository, where the services show the findings.
        """
        by_rule = {finding.rule: finding for finding in reversed(self.findings)}
        rules = [
            {
                "id": rule,
                "shortDescription": {"text": finding.title},
                "fullDescription": {"text": f"{finding.threshold} Source: {finding.source}."},
                "help": {"text": " ".join(finding.advice) or finding.threshold},
            }
            for rule, finding in by_rule.items()
        ]
        file = {"physicalLocation": {"artifactLocation": {"uri": quote(artifact)}}}
        results = [
            {
                "ruleId": finding.rule,
                "ruleIndex": list(by_rule).index(finding.rule),
                "level": _SARIF_LEVELS[finding.severity],
                "message": {"text": f"{finding.title}. {finding.evidence}"},
                "locations": [file | ({"logicalLocations": [{"name": finding.site}]} if finding.site else {})],
                "partialFingerprints": {"ruleAndSite/v1": f"{finding.rule}:{finding.site}"},
            }
            for finding in self.findings
        ]
        driver = {"name": "training_health", "rules": rules}
        runs = [{"tool": {"driver": driver}, "results": results, "columnKind": "unicodeCodePoints"}]
        return {"$schema": _SARIF_SCHEMA, "version": "2.1.0", "runs": runs}


def check(
    model: nn.Module,
    batches: Iterable[Any],
    *,
    forward: Callable[[nn.Module, Any], Any] | None = None,
    count: Callable[[Any], int | None] = count_examples,
    unit_dims: Mapping[str, int] | None = None,
    eager: bool = True,
) -> Checked:
    """Judge a saved model on some batches by the rules of the tab *Training Health*, in eval mode.

    Rule ids are stable. Those that need no history of the training apply: ``nonfinite_weights``,
    ``units_not_a_number`` and ``whole_layer_dead`` (critical), ``many_dead_units`` (warning, or a notice),
    ``many_rare_units`` and ``unwatched_sites`` (notices). Parameters and buffers count as weights, but not infinities
    in buffers other than running statistics: masks hold them on purpose. The model stays as it is, as with `inspect`,
    and it costs as much: one evaluation of the batches.

    As a test of one's own::

        def test_the_saved_model_is_healthy():
            found = training_health.check(load_my_model(), my_validation_loader())
            assert not found.at_least("warning"), found

    Args:
        model: As for `inspect`.
        batches: As for `inspect`; on fewer than 300 examples less is an alarm.
        forward: As for `inspect`.
        count: As for `inspect`.
        unit_dims: As for `inspect`.
        eager: As for `inspect`.

    Returns:
        A `Checked`: printed the findings; ``findings``, ``at_least("warning")``, ``to_dict()`` and ``to_sarif(path)``
        give them to programs.

    Raises:
        UserError: As for `inspect`.

    Example::

        >>> import torch
        >>> from torch import nn
        >>> from training_health import check
        >>> net = nn.Sequential(nn.Linear(3, 4), nn.ReLU(), nn.Linear(4, 2)).requires_grad_(False)
        >>> _ = net[0].bias.fill_(-99.0)
        >>> found = check(net, [torch.rand(400, 3)])
        >>> [(finding.rule, finding.severity) for finding in found.at_least("warning")]
        [('whole_layer_dead', 'critical')]
    """
    found = inspect(model, batches, forward=forward, count=count, unit_dims=unit_dims, eager=eager)
    contents, data = {}, {}
    for tag, kind, vector, content in _records(model, found):
        contents[tag] = json.dumps({"version": FORMAT_VERSION, "kind": kind, **content}).encode()
        data[tag] = [SimpleNamespace(step=0, wall_time=0.0, numpy=np.array([0, *vector], np.float32))]
    run = read_run("model", contents, data)
    run.history = False
    return Checked(find_all(run), found)


def _records(model: nn.Module, found: Inspection) -> Iterator[Record]:
    """What the monitors would have logged at the end of an epoch."""
    yield from found.report.records()
    yield from found.report.coverage_records()
    tensors = {name: t for group in (model.named_parameters(), model.named_buffers()) for name, t in group}
    known = {name: t for name, t in tensors.items() if not nn.parameter.is_lazy(t)}
    numbers = [_broken(name, tensor) for name, tensor in known.items()]
    if numbers:
        yield "nonfinite", "nonfinite", [1, *numbers], {"parameters": list(known)}


def _broken(name: str, tensor: Tensor) -> float:
    """How many elements of a weight are NaN or infinite; NaN where it cannot be read."""
    is_mask = not isinstance(tensor, nn.Parameter) and not name.rpartition(".")[2].startswith("running_")
    with suppress(Exception):  # one of a kind that lacks an operation
        if tensor.layout != torch.strided:
            tensor = (tensor.coalesce() if tensor.layout == torch.sparse_coo else tensor).values()
        return float((tensor.isnan() if is_mask else ~tensor.isfinite()).sum())
    return math.nan
