"""Either of Lightning's packages will do, beside the other or without it."""

import os
import subprocess
import sys
from importlib import import_module

import pytest

from tests.training_health.toys import FEW_EXAMPLES, Toy, pl
from training_health.lightning import MisconfigurationException


def python(code: str, **environment: str) -> subprocess.CompletedProcess:
    return subprocess.run(
        [sys.executable, "-c", f"import sys; {code}"], capture_output=True, text=True, check=False,
        env=os.environ | {"OMP_NUM_THREADS": "1", "PYTHONPATH": os.pathsep.join(sys.path)} | environment,
    )  # fmt: skip


@FEW_EXAMPLES
@pytest.mark.parametrize("name", ["DeadReLUMonitor", "TrainValGapMonitor", "WeightHistogramMonitor"])
def test_the_command_line_takes_a_monitor(name, monkeypatch):
    monkeypatch.setattr(sys, "argv", ["fit"])
    arguments = [f"--trainer.callbacks=training_health.{name}", "--trainer.logger=false", "--seed_everything=0"]

    cli = import_module(f"{pl.__name__}.cli").LightningCLI(Toy, run=False, args=arguments)

    assert name in [type(callback).__name__ for callback in cli.trainer.callbacks]


def test_a_wrong_argument_is_an_error_of_this_package():
    assert issubclass(MisconfigurationException, pl.utilities.exceptions.MisconfigurationException)


@pytest.mark.slow
@pytest.mark.parametrize(
    ("package", "hidden"),
    [("lightning.pytorch", "pytorch_lightning"), ("lightning.pytorch", "none"), ("pytorch_lightning", "lightning")],
)
def test_scalars_histograms_and_records_are_the_same_under(package, hidden):
    files = [
        f"tests/training_health/test_{name}.py" for name in ("contract", "records", "weight_histograms", "packages")
    ]
    options = ["-q", "-p", "no:cacheprovider", "-m", "not slow", "-k", "all or record or drawn or line or error"]

    done = python(
        f"sys.modules[{hidden!r}] = None; import pytest; sys.exit(pytest.main({options + files}))", LIGHTNING=package
    )

    assert done.returncode == 0, done.stdout[-3000:] + done.stderr[-3000:]


def test_without_lightning_one_line_says_what_to_install():
    done = python("sys.modules.update(lightning=None, pytorch_lightning=None); import training_health.dead_relu")

    assert done.stderr.splitlines()[-1].startswith("ModuleNotFoundError: ")
    assert "pip install lightning" in done.stderr.splitlines()[-1]
