"""A saved model's findings by rule id, and what programs get of them."""

import json

import pytest
import torch
from torch import nn

from tests.training_health.toys import dense_network, dropout_network, fingerprint
from training_health import check
from training_health.errors import UserError

IMAGES = [torch.randn(200, 1, 6, 6, generator=torch.Generator().manual_seed(seed)) for seed in (0, 1)]


def network(dead: int = 0) -> nn.Module:
    torch.manual_seed(0)
    net = dense_network()
    with torch.no_grad():
        net[1].bias[:dead] = -1000
    return net


def not_a_number() -> nn.Module:
    net = network()
    with torch.no_grad():
        net[1].weight[3, 0] = float("nan")
    return net


def infinite_statistics() -> nn.Module:
    net = dropout_network()
    net[1].running_var[2] = float("inf")
    return net


def rare() -> nn.Module:
    """Units that fire on the one example in 400 whose first pixel is largest."""
    net = network()
    largest = torch.cat(IMAGES).flatten(1)[:, 0].topk(2).values.mean()
    with torch.no_grad():
        net[1].weight[:4], net[1].bias[:4] = 0, -largest
        net[1].weight[:4, 0] = 1
    return net


def with_buffer(name: str, buffer: torch.Tensor) -> nn.Module:
    net = network()
    net.register_buffer(name, buffer)
    return net


class Opaque(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.rnn = nn.RNN(36, 4, nonlinearity="relu", batch_first=True)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.rnn(x.flatten(2))[0]


@pytest.mark.parametrize(
    ("made", "expected"),
    [
        (network, {}),
        (dropout_network, {}),
        (lambda: network(2), {}),
        (lambda: network(3), {"many_dead_units": "notice"}),
        (lambda: network(6), {"many_dead_units": "warning"}),
        (lambda: network(8), {"whole_layer_dead": "critical"}),
        (not_a_number, {"nonfinite_weights": "critical", "units_not_a_number": "critical"}),
        (infinite_statistics, {"nonfinite_weights": "critical"}),
        (lambda: with_buffer("mask", torch.full((8, 8), -torch.inf).triu(1)), {}),  # of attention
        (lambda: with_buffer("table", torch.tensor([torch.nan])), {"nonfinite_weights": "critical"}),
        (lambda: with_buffer("adjacency", torch.eye(9).to_sparse()), {}),
        (
            lambda: with_buffer("adjacency", torch.full((9, 9), torch.nan).to_sparse()),
            {"nonfinite_weights": "critical"},
        ),
        (rare, {"many_rare_units": "notice"}),
        (Opaque, {"unwatched_sites": "notice"}),
    ],
)
def test_planted_faults_are_found_by_their_ids_and_healthy_models_have_none(made, expected):
    found = check(made(), IMAGES)

    assert {finding.rule: finding.severity for finding in found.findings} == expected


def test_nothing_is_said_about_epochs_of_which_nothing_is_known():
    evidence = [
        finding.evidence
        for made in (network(6), network(8), not_a_number(), rare())
        for finding in check(made, IMAGES).findings
    ]

    assert len(evidence) == 5
    assert not any("epoch" in text or "record" in text for text in evidence)


def test_the_text_names_severity_rule_evidence_and_what_to_try():
    lines = str(check(network(8), IMAGES)).splitlines()

    assert lines[0].startswith("100.0 % of the network is dead (8 of 8 units, on 400 examples)")
    assert lines[1] == "critical: relu.2 is dead [whole_layer_dead]"
    assert "All 8 units of relu.2 output 0 on every example (n = 400). On these" in lines[2]
    assert "LeakyReLU" in lines[2]
    assert str(check(network(), IMAGES)).splitlines()[1:] == ["No finding."]


@pytest.mark.parametrize(
    ("dead", "fails"),
    [(0, []), (3, ["notice"]), (6, ["warning", "notice"]), (8, ["critical", "warning", "notice"])],
)
def test_a_finding_counts_from_its_severity_on(dead, fails):
    found = check(network(dead), IMAGES)

    assert [level for level in ("critical", "warning", "notice", "never") if found.at_least(level)] == fails


def test_plain_values_are_json_with_findings_and_counts():
    values = json.loads(json.dumps(check(network(8), IMAGES).to_dict(), allow_nan=False))

    assert values["findings"][0]["rule"] == "whole_layer_dead"
    assert values["findings"][0]["site"] == "relu.2"
    assert values["dead_units"]["dead"] == 8


def test_sarif_has_what_its_schema_requires():
    log = json.loads(json.dumps(check(not_a_number(), IMAGES).to_sarif("runs/my model.ckpt"), allow_nan=False))

    assert (log["version"], log["$schema"].rsplit("/", 1)[1]) == ("2.1.0", "sarif-schema-2.1.0.json")
    (run,) = log["runs"]
    rules = run["tool"]["driver"]["rules"]
    assert run["tool"]["driver"]["name"] == "training_health"
    assert len(run["results"]) == 2
    for result in run["results"]:
        assert result["message"]["text"]
        assert result["level"] == "error"
        assert rules[result["ruleIndex"]]["id"] == result["ruleId"]
        assert result["locations"][0]["physicalLocation"]["artifactLocation"]["uri"] == "runs/my%20model.ckpt"
    assert run["results"][1]["locations"][0]["logicalLocations"] == [{"name": "relu.2"}]


def test_the_levels_of_sarif_follow_the_severities():
    results = [check(network(dead), IMAGES).to_sarif("m")["runs"][0]["results"] for dead in (0, 3, 6, 8)]

    assert [[result["level"] for result in found] for found in results] == [[], ["note"], ["warning"], ["error"]]


def test_the_model_stays_as_it_is():
    net = dropout_network()
    before = fingerprint(net)

    check(net, IMAGES)

    assert fingerprint(net) == before
    assert net.training


def test_a_guess_is_told():
    text = str(check(nn.ReLU(), [torch.randn(20, 3, 7)]))

    assert "Units assumed, since not known, in this dimension (name it with unit_dims): relu: 1." in text


def test_no_example_is_an_error():
    with pytest.raises(UserError, match="There is no example to look at") as raised:
        check(network(), [])

    assert raised.value.exit_code == 2


def test_a_severity_that_is_none_is_an_error():
    with pytest.raises(UserError, match="no severity 'bad': choose critical, warning, notice, info or never"):
        check(network(), IMAGES).at_least("bad")


def test_a_model_without_weights_or_relus_is_checked():
    found = check(nn.Flatten(), IMAGES)

    assert found.findings == []
    assert str(found).startswith("No ReLU was seen")
