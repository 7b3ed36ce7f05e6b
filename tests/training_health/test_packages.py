"""Projects that are not ours: either of Lightning's packages, their report, no fmnist_pl."""

import os
import re
import subprocess
import sys
from importlib import import_module
from pathlib import Path

import pytest

import training_health
from tests.training_health.toys import FEW_EXAMPLES, Toy, events, pl
from training_health.lightning import MisconfigurationException


def python(code: str, **environment: str) -> subprocess.CompletedProcess:
    # A W&B service that this process started would write into this process's folder, not into the other's.
    environment = {name: value for name, value in os.environ.items() if name != "WANDB_SERVICE"} | environment
    return subprocess.run(
        [sys.executable, "-c", f"import sys; {code}"], capture_output=True, text=True, check=False,
        env=environment | {"OMP_NUM_THREADS": "1", "PYTHONPATH": os.pathsep.join(sys.path)},
    )  # fmt: skip


@FEW_EXAMPLES
@pytest.mark.parametrize("name", ["DeadReLUMonitor", "GapStopping", "TrainValGapMonitor", "WeightHistogramMonitor"])
def test_the_command_line_takes_a_monitor(name, monkeypatch):
    monkeypatch.setattr(sys, "argv", ["fit"])
    arguments = [f"--trainer.callbacks=training_health.{name}", "--trainer.logger=false", "--seed_everything=0"]

    cli = import_module(f"{pl.__name__}.cli").LightningCLI(Toy, run=False, args=arguments)

    assert name in [type(callback).__name__ for callback in cli.trainer.callbacks]


def test_a_wrong_argument_is_an_error_of_this_package():
    assert issubclass(MisconfigurationException, pl.utilities.exceptions.MisconfigurationException)


PACKAGES = [
    ("lightning.pytorch", "pytorch_lightning"),
    ("lightning.pytorch", "none"),
    ("pytorch_lightning", "lightning"),
]


@pytest.mark.slow
@pytest.mark.parametrize(("package", "hidden"), PACKAGES)
def test_scalars_histograms_and_records_are_the_same_under(package, hidden):
    files = [
        f"tests/training_health/test_{name}.py"
        for name in ("contract", "records", "sinks", "weight_histograms", "packages")
    ]
    options = ["-q", "-p", "no:cacheprovider", "-m", "not slow", "-k", "all or record or drawn or line or error"]

    done = python(
        f"sys.modules[{hidden!r}] = None; import pytest; sys.exit(pytest.main({options + files}))", LIGHTNING=package
    )

    assert done.returncode == 0, done.stdout[-3000:] + done.stderr[-3000:]


@pytest.mark.slow
def test_each_package_alone_or_beside_the_other_writes_the_same_bits(tmp_path):
    def digest(package, hidden):
        folder = str(tmp_path / package / hidden)
        done = python(
            f"import hashlib, pathlib; sys.modules[{hidden!r}] = None; from tests.training_health.test_sinks import *; "
            f"folder = pathlib.Path({folder!r}); "
            "seeded_fit(folder, 'tensorboard'); "
            "found = [(tag, step, value.SerializeToString()) for tag, step, value in events(folder)]; "
            "print(len(found), hashlib.sha256(repr(found).encode()).hexdigest())",
            LIGHTNING=package,
        )
        assert done.returncode == 0, done.stderr[-3000:]
        return done.stdout.split()

    found = [digest(*pair) for pair in PACKAGES]

    assert int(found[0][0]) > 100
    assert found[1:] == found[:1] * (len(PACKAGES) - 1)


def test_without_lightning_one_line_says_what_to_install():
    done = python("sys.modules.update(lightning=None, pytorch_lightning=None); import training_health.dead_relu")

    assert done.stderr.splitlines()[-1].startswith("ModuleNotFoundError: ")
    assert "pip install lightning" in done.stderr.splitlines()[-1]


EXAMPLE = Path(training_health.__file__).parents[1] / "examples" / "any_lightning_project.py"


def run(script: str, *arguments) -> tuple[int, str, str]:
    """Exit status, standard output and standard error of a script or ``-m training_health``."""
    runner = "run_module" if script == "training_health" else "run_path"
    block = f"import runpy; sys.modules['fmnist_pl'] = None; sys.argv[1:] = {list(map(str, arguments))}"
    done = python(f"{block}; runpy.{runner}({script!r}, run_name='__main__')")
    return done.returncode, done.stdout, done.stderr


@pytest.fixture(scope="module")
def example(tmp_path_factory):
    """The example's lines and log folder."""
    folder = tmp_path_factory.mktemp("example")
    status, lines, errors = run(str(EXAMPLE), folder)
    assert status == 0, errors[-3000:]
    return lines.splitlines(), folder


@pytest.mark.slow
def test_every_relu_call_and_the_gap_of_both_modules_are_told(example):
    resnet, resnet_gap, functional, functional_gap = example[0]

    sites = re.findall(r"(\S+) \d+/(\d+)[,.]", resnet)
    assert (len(sites), sites[0], sites[-1]) == (17, ("relu", "64"), ("layer4.1.relu:2", "512"))
    assert "of 3,904 units, on 32 validation examples" in resnet
    assert re.search(r"of 16 units, on 32 validation examples\): relu \d+/16\.", functional)
    assert all("n = 32 each" in line for line in (resnet_gap, functional_gap))
    assert ("Mode effect" in resnet_gap, "Mode effect" in functional_gap) == (True, False)  # one logs no accuracy


@pytest.mark.slow
def test_the_logs_hold_scalars_histograms_and_records_and_the_report_is_one_file(example, tmp_path):
    for name in ("ResNetClassifier", "FunctionalClassifier"):
        tags = {tag for tag, _, _ in events(example[1] / name)}
        assert {"dead_relu/total", "gap/accuracy", "training_health/gap"} <= tags
        assert any(tag.startswith("gradients/") for tag in tags)

    status, lines, _ = run("training_health", "report", "--logdir", example[1], "--output", tmp_path / "report.html")

    assert (status, lines.strip()) == (0, str(tmp_path / "report.html"))
    assert "ResNetClassifier" in (tmp_path / "report.html").read_text()


def test_a_folder_that_is_not_there_is_one_line_without_a_traceback(tmp_path):
    status, _, errors = run("training_health", "report", "--logdir", tmp_path / "absent", "--output", tmp_path / "out")

    assert status == 1
    assert re.fullmatch(r"error: .*absent.*\n", errors)


def test_importing_the_package_imports_neither_torch_nor_lightning():
    done = python("import training_health; print({'torch', 'pytorch_lightning', 'lightning'} & set(sys.modules))")

    assert done.stdout == "set()\n"
