"""The example in a project that is not ours, and the independence of the package."""

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

import training_health
from tests.training_health.toys import events

EXAMPLE = Path(training_health.__file__).parents[1] / "examples" / "any_lightning_project.py"


@pytest.fixture(scope="module")
def example(tmp_path_factory):
    """The example's lines and log folder, from a process in which fmnist_pl cannot be imported."""
    folder = tmp_path_factory.mktemp("example")
    block = "import sys; sys.modules['fmnist_pl'] = None; sys.argv = sys.argv[1:]; import runpy; "
    done = subprocess.run(
        [sys.executable, "-c", f"{block}runpy.run_path(sys.argv[0], run_name='__main__')", str(EXAMPLE), str(folder)],
        capture_output=True,
        text=True,
        check=False,
        env=os.environ | {"OMP_NUM_THREADS": "1"},
    )
    assert done.returncode == 0, done.stderr[-3000:]
    return done.stdout.splitlines(), folder


def test_resnet18_has_seventeen_sites_under_their_names(example):
    resnet = next(line for line in example[0] if "layer1.0.relu:2" in line)

    sites = re.findall(r"(\S+) \d+/(\d+)[,.]", resnet)
    assert len(sites) == 17
    assert sites[0] == ("relu", "64")
    assert sites[-1] == ("layer4.1.relu:2", "512")
    assert re.match(r"\d+\.\d % of the network is dead \(\d+ of 3,904 units, on 32 validation examples\)", resnet)


def test_a_model_of_functional_calls_has_its_site(example):
    assert any(re.search(r"of 16 units, on 32 validation examples\): relu \d+/16\.", line) for line in example[0])


def test_both_modules_have_a_gap(example):
    gaps = [line for line in example[0] if line.startswith("The gap is")]

    assert len(gaps) == 2
    assert all("n = 32 each" in line for line in gaps)
    assert "Mode effect" in gaps[0]
    assert "Mode effect" not in gaps[1]  # it logs no running accuracy


def test_both_logs_hold_scalars_histograms_and_records(example):
    for name in ("ResNetClassifier", "FunctionalClassifier"):
        tags = {tag for tag, _, _ in events(example[1] / name)}
        assert {"dead_relu/total", "gap/accuracy", "training_health/gap"} <= tags
        assert any(tag.startswith("gradients/") for tag in tags)
