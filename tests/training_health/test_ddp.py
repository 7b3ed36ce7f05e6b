"""Two processes give the numbers of one, also where the images do not divide evenly."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest


@pytest.fixture(scope="module")
def found():
    """What `ddp_run.py` prints: per scenario and number of processes."""
    script = Path(__file__).with_name("ddp_run.py")
    done = subprocess.run(
        [sys.executable, str(script)],
        capture_output=True,
        text=True,
        timeout=120,
        env=os.environ | {"OMP_NUM_THREADS": "1"},
        check=False,
    )
    assert done.returncode == 0, done.stderr[-3000:]
    return json.loads(done.stdout[done.stdout.index('{"uneven/1"') :])


def same(one, two) -> None:
    """Equal names and flags, numbers within 1e-6."""
    assert type(one) is type(two)
    if isinstance(one, dict):
        assert list(one) == list(two)
        for key in one:
            same(one[key], two[key])
    elif isinstance(one, list):
        assert len(one) == len(two)
        for a, b in zip(one, two, strict=True):
            same(a, b)
    elif isinstance(one, float):
        assert one == pytest.approx(two, abs=1e-6, nan_ok=True)
    else:
        assert one == two


@pytest.mark.parametrize("scenario", ["uneven", "logged", "metric"])
def test_summaries_and_activities_are_those_of_one_process(found, scenario):
    one, two = found[f"{scenario}/1"], found[f"{scenario}/2"]
    if scenario == "logged":  # its standard error is an estimate from batches, which differ
        assert one["summaries"][0].pop("loss_gap_se") > 0
        assert two["summaries"][0].pop("loss_gap_se") > 0

    same(one["summaries"], two["summaries"])
    assert one["activity"] == two["activity"]


def test_a_unit_that_is_dead_on_one_process_only_is_not_dead(found):
    (activity,) = found["uneven/2"]["activity"]
    (site,) = activity.values()

    assert site == [7 / 13, 6 / 13, 0.0, 1 / 13]
    assert found["uneven/2"]["summaries"][0]["sites"]["net"]["dead_units"] == [2]
    assert found["uneven/2"]["metrics"]["dead_relu/total"] == 0.25


def test_logged_values_are_those_of_one_process_and_known_on_every_rank(found):
    one, two = found["uneven/1"]["metrics"], found["uneven/2"]["metrics"]
    ours = [key for key in one if not key.startswith(("train/", "val/"))]  # Lightning's own count repeated images

    same({key: one[key] for key in ours}, {key: two[key] for key in ours})
    assert len(ours) > 20
    assert found["uneven/2"]["ranks_agree"]


def test_no_hook_stays_on_any_process(found):
    assert all(found[f"{scenario}/2"]["clean"] for scenario in ("uneven", "logged", "metric"))


def test_the_confusion_counts_are_those_of_one_process(found):
    assert found["confusion/2"] == found["confusion/1"]
    images = [int(row.split("|")[2]) for row in found["confusion/2"].splitlines()[2:]]
    assert sum(images) == 13
