"""The planted network has the dead units that it says, in both forms and modes, and a row says what was found."""

import pytest
import torch

from benchmarks.planted.measure import cells
from benchmarks.planted.network import BATCH, DEAD, FEW, FORMS, ONE, SITES, Easy, Hard, count, examples

FOUND = {"found": dict(DEAD), "parameters": True, "buffers": True}


@pytest.mark.parametrize("training", [True, False])
@pytest.mark.parametrize("form", FORMS)
@pytest.mark.parametrize("seed", [0, 1])
def test_the_dead_units_are_those_that_were_planted(seed, form, training):
    fired = count(FORMS[form](seed).train(training), list(examples(seed)[0].split(BATCH)))

    assert {site: len(counts) for site, counts in fired.items()} == SITES
    assert {site: [unit for unit, n in enumerate(counts) if n == 0] for site, counts in fired.items()} == DEAD
    assert [(counts[14], counts[15]) for counts in fired.values()] == [(1, 9)] * 4


def test_the_unit_that_fires_for_one_example_does_so_at_three_positions():
    images = examples()[0]

    with torch.no_grad():
        fires = Easy().conv1(images)[:, 14] > 0

    assert fires.sum() == fires[ONE].sum() == 3
    assert len(range(*FEW.indices(1024))) == 8


def test_both_forms_compute_the_same():
    images = examples()[0][:64]
    assert torch.equal(Easy(3).eval()(images), Hard(3).eval()(images))


def test_a_tool_that_finds_and_names_everything():
    assert cells("ours", {"easy": [FOUND, FOUND], "hard": [FOUND, FOUND]}) == [
        "3, 2, 5, 4", "3, 2, 5, 4", "yes", "yes: n examples", "yes", "yes"
    ]  # fmt: skip


def test_a_tool_that_counts_otherwise_in_a_second_run_changes_buffers_and_crashes():
    first = {"found": {"a": 3, "b": 2, "c": 5, "d": 4}, "parameters": True, "buffers": False}
    second = {"found": {"a": 7, "b": 2, "c": 5, "d": 4}, "parameters": True, "buffers": True}
    crash = {"error": "RuntimeError: sizes"}

    row = cells("torchdiag", {"easy": [first, second], "hard": [crash, crash]})

    assert row == ["3, 2, 5, 4 / 7, 2, 5, 4", "crash: RuntimeError: sizes", "no", "no", "yes", "**no**"]


def test_a_tool_that_sees_fewer_layers():
    partial = {"found": {"act": 5}, "parameters": True, "buffers": True}
    nothing = {"found": {}, "parameters": True, "buffers": True}

    assert cells("torchdiag", {"easy": [partial], "hard": [nothing]})[:2] == ["act: 5", "none"]


def test_a_tool_that_names_as_many_units_but_others():
    wrong = {"found": DEAD | {"conv1": [0, 1, 7]}, "parameters": True, "buffers": True}

    assert cells("torchlens", {"easy": [wrong], "hard": [FOUND]})[2] == "**wrong ones**"
