"""The example in a project that is not ours, and the report of its logs, from processes without fmnist_pl."""

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

import training_health
from tests.training_health.toys import events

PACKAGE = Path(training_health.__file__).parent
EXAMPLE = PACKAGE.parent / "examples" / "any_lightning_project.py"


def python(*arguments) -> subprocess.CompletedProcess:
    return subprocess.run(
        [sys.executable, *map(str, arguments)],
        capture_output=True,
        text=True,
        check=False,
        env=os.environ | {"OMP_NUM_THREADS": "1", "PYTHONPATH": str(PACKAGE.parent)},
    )


@pytest.fixture(scope="module")
def example(tmp_path_factory):
    """The example's lines and log folder."""
    folder = tmp_path_factory.mktemp("example")
    block = "import runpy, sys; sys.modules['fmnist_pl'] = None; del sys.argv[0]; runpy.run_path(sys.argv[0], None, "
    done = python("-c", f"{block}'__main__')", EXAMPLE, folder)
    assert done.returncode == 0, done.stderr[-3000:]
    return done.stdout.splitlines(), folder


@pytest.mark.slow
def test_every_relu_call_and_the_gap_of_both_modules_are_told(example):
    resnet, resnet_gap, functional, functional_gap = example[0]

    sites = re.findall(r"(\S+) \d+/(\d+)[,.]", resnet)
    assert (len(sites), sites[0], sites[-1]) == (17, ("relu", "64"), ("layer4.1.relu:2", "512"))
    assert "of 3,904 units, on 32 validation examples" in resnet
    assert re.search(r"of 16 units, on 32 validation examples\): relu \d+/16\.", functional)
    assert all("n = 32 each" in line for line in (resnet_gap, functional_gap))
    assert "Mode effect" in resnet_gap
    assert "Mode effect" not in functional_gap  # it logs no running accuracy


@pytest.mark.slow
@pytest.mark.parametrize("name", ["ResNetClassifier", "FunctionalClassifier"])
def test_the_logs_hold_scalars_histograms_and_records(example, name):
    tags = {tag for tag, _, _ in events(example[1] / name)}

    assert {"dead_relu/total", "gap/accuracy", "training_health/gap"} <= tags
    assert any(tag.startswith("gradients/") for tag in tags)


@pytest.mark.slow
def test_the_report_of_the_example_is_one_file(example, tmp_path):
    done = python("-m", "training_health", "report", "--logdir", example[1], "--output", tmp_path / "report.html")

    assert (done.returncode, done.stdout.strip()) == (0, str(tmp_path / "report.html"))
    assert "ResNetClassifier" in (tmp_path / "report.html").read_text()


def test_a_folder_that_is_not_there_is_one_line_without_a_traceback(tmp_path):
    done = python("-m", "training_health", "report", "--logdir", tmp_path / "absent", "--output", tmp_path / "out.html")

    assert done.returncode == 1
    assert re.fullmatch(r"error: .*absent.*\n", done.stderr)


def test_importing_the_package_imports_neither_torch_nor_lightning():
    done = python("-c", "import sys, training_health; print({'torch', 'pytorch_lightning'} & set(sys.modules))")

    assert done.stdout == "set()\n"
