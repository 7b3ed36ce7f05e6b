"""What the built wheels hold, and that they work beside a project's own `callbacks`."""

import os
import subprocess
import sys
import zipfile
from pathlib import Path

import pytest

pytestmark = pytest.mark.slow
ROOT = Path(__file__).parents[1]


def built(source, folder):
    """Build `source` as a wheel, unpack it below `folder` and give the names at its top."""
    command = [sys.executable, "-m", "build", "--wheel", "--no-isolation", "--outdir", folder / "dist", source]
    done = subprocess.run(command, capture_output=True, text=True, timeout=300, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    with zipfile.ZipFile(next((folder / "dist").glob("*.whl"))) as wheel:
        wheel.extractall(folder / "unpacked")
    return sorted(path.name for path in (folder / "unpacked").iterdir() if not path.name.endswith(".dist-info"))


def python(code, folder, installed):
    """Run `code` in `folder` with only `installed` of this project to be imported."""
    environment = {name: value for name, value in os.environ.items() if name != "PYTHONPATH"}
    # -I leaves out this repository; its editable install, if any, comes after what is put in front here.
    begin = f"import sys; sys.path[:0] = [{str(folder)!r}, {str(installed)!r}]\n"
    return subprocess.run(
        [sys.executable, "-I", "-c", begin + code],
        cwd=folder, env=environment, capture_output=True, text=True, timeout=300, check=True,
    ).stdout.split()  # fmt: skip


@pytest.fixture(scope="module")
def wheel(tmp_path_factory):
    folder = tmp_path_factory.mktemp("wheel")
    return built(ROOT, folder), folder / "unpacked"


def test_the_wheel_has_two_packages(wheel):
    assert wheel[0] == ["fmnist_pl", "training_health"]
    assert all((wheel[1] / package / "py.typed").is_file() for package in wheel[0])


def test_the_monitors_alone_are_one_package(tmp_path):
    assert built(ROOT / "callbacks", tmp_path) == ["training_health"]
    assert (tmp_path / "unpacked" / "training_health" / "py.typed").is_file()


@pytest.mark.parametrize("name", ["callbacks.py", "callbacks/__init__.py"])
def test_a_project_keeps_its_own_callbacks(wheel, tmp_path, name):
    (tmp_path / name).parent.mkdir(exist_ok=True)
    (tmp_path / name).write_text("class DeadReLUMonitor: ours = True\n")
    said = python(
        "import callbacks, fmnist_pl.cli, training_health\n"
        "print(callbacks.DeadReLUMonitor.ours, hasattr(training_health.DeadReLUMonitor, 'ours'))\n"
        "print(training_health.__file__, fmnist_pl.__file__)",
        tmp_path,
        wheel[1],
    )
    assert said[:2] == ["True", "False"]
    assert said[2:] == [str(wheel[1] / package / "__init__.py") for package in ("training_health", "fmnist_pl")]
