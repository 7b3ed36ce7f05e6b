"""What only POSIX systems have is not needed: the commands run with it hidden."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

SCRIPT = Path(__file__).with_name("without_posix.py")


def without_posix(*words, cwd):
    """Run it in ``cwd``, warnings being no errors; returns its output."""
    ended = subprocess.run(
        [sys.executable, SCRIPT, *map(str, words)], cwd=cwd, capture_output=True, text=True, timeout=300, check=False,
        env={**os.environ, "OMP_NUM_THREADS": "1", "PYTHONPATH": os.pathsep.join(sys.path)},
    )  # fmt: skip
    assert ended.returncode == 0, ended.stdout[-2000:] + ended.stderr[-4000:]
    return ended.stdout


def test_every_module_is_imported(tmp_path):
    names = without_posix("import", cwd=tmp_path).split()

    assert {"fmnist_pl.compare.training", "fmnist_pl.search.worker", "training_health.tab.one_file"} <= set(names)


@pytest.mark.slow
def test_a_run_is_trained_resumed_tested_and_reported(tmp_path):
    data = ("--data.dataset=synthetic", "--data.training_images=500")

    without_posix("fit", *data, "--trainer.max_epochs=1", cwd=tmp_path)
    run = Path("lightning_logs/baseline-synthetic/version_0")
    resumed = without_posix("fit", "--resume", run, "--trainer.max_epochs=2", cwd=tmp_path)
    tested = without_posix("test", "--ckpt_path", run, cwd=tmp_path)
    without_posix("report", cwd=tmp_path)

    assert "epoch 2/2" in resumed
    assert "test/accuracy" in tested
    assert "baseline-synthetic/version_0" in (tmp_path / "report.html").read_text(encoding="utf-8")


@pytest.mark.slow
def test_a_comparison_trains_its_runs(tmp_path):
    options = ("--variants", "baseline", "--seeds", 0, "--epochs", 1, "--dataset", "synthetic")

    printed = without_posix("compare", *options, "--data.training_images=500", cwd=tmp_path)

    assert "baseline" in printed
    assert len(list(tmp_path.glob("lightning_logs/baseline-synthetic/version_*/summary.json"))) == 1
