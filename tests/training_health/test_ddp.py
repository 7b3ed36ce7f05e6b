"""Two processes give the numbers of one, also where the examples do not divide evenly."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def found():
    """What `ddp_run.py` prints: per scenario and number of processes."""
    script = Path(__file__).with_name("ddp_run.py")
    environment = os.environ | {"OMP_NUM_THREADS": "1", "PYTHONPATH": os.pathsep.join(filter(None, sys.path))}
    done = subprocess.run(
        [sys.executable, str(script)], capture_output=True, text=True, timeout=300, env=environment, check=False
    )
    assert done.returncode == 0, done.stderr[-3000:]
    return json.loads(done.stdout[done.stdout.index('{"uneven/1"') :])


def numbers(value) -> list:
    """The leaves of a nested value, in order, with the keys that lead to them."""
    if isinstance(value, dict):
        return [item for key in value for item in [key, *numbers(value[key])]]
    return [item for entry in value for item in numbers(entry)] if isinstance(value, list) else [value]


def assert_same(one, two) -> None:
    for a, b in zip(numbers(one), numbers(two), strict=True):
        assert (a == pytest.approx(b, abs=1e-6, nan_ok=True)) if isinstance(a, float) else (a == b)


@pytest.mark.parametrize("scenario", ["uneven", "logged", "metric"])
def test_summaries_and_activities_are_those_of_one_process(found, scenario):
    one, two = found[f"{scenario}/1"], found[f"{scenario}/2"]
    if scenario == "logged":  # its standard error is an estimate from batches, which differ
        assert one["summaries"][0].pop("loss_gap_se") > 0
        assert two["summaries"][0].pop("loss_gap_se") > 0

    assert_same(one["summaries"], two["summaries"])
    assert one["activity"] == two["activity"]
    assert two["clean"]  # no hook stays


def test_a_unit_that_is_dead_on_one_process_only_is_not_dead(found):
    ((_, _, *activity),) = found["uneven/2"]["activity"]

    assert activity == pytest.approx([7 / 13, 6 / 13, 0.0, 1 / 13])
    assert found["uneven/2"]["summaries"][0]["sites"]["net"]["dead_units"] == [2]
    assert found["uneven/2"]["metrics"]["dead_relu/total"] == 0.25


def test_logged_values_are_those_of_one_process_and_known_on_every_rank(found):
    one, two = found["uneven/1"]["metrics"], found["uneven/2"]["metrics"]
    ours = [key for key in one if not key.startswith(("train/", "val/"))]  # Lightning's own count repeats

    assert_same({key: one[key] for key in ours}, {key: two[key] for key in ours})
    assert len(ours) > 20
    assert found["uneven/2"]["ranks_agree"]


def test_the_confusion_counts_are_those_of_one_process(found):
    assert found["confusion/2"] == found["confusion/1"]
    assert sum(int(row.split("|")[2]) for row in found["confusion/2"].splitlines()[2:]) == 13
