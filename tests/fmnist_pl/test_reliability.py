"""The soak's checks with fewer repetitions: exact resume, kills, several processes, damaged data."""

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from fmnist_pl.checkpoints.checkpoint_file import load_checked
from tests.soak import data_damage, every_batch, same_seed, two_ranks
from tests.soak.toys import differences

needs_fork = pytest.mark.skipif(not hasattr(os, "fork"), reason="needs fork")


@pytest.mark.parametrize("toy", every_batch.TOYS, ids=lambda toy: toy.name)
def test_from_every_few_batches_a_resumed_run_ends_like_one_that_was_not_interrupted(toy, tmp_path):
    points, differing = every_batch.check(toy, tmp_path, every=6 if toy.monitors else 4)

    assert differing == []
    assert points >= 3


@pytest.fixture(scope="module")
def another_process():
    """What another process reports: it forks, and a test runner full of threads is no place for that."""
    code = """
import json
from tests.soak import same_seed, sigkill
print(json.dumps({"weights": same_seed.weights_hash(), "kills": sigkill.check(kills=4, seed=2)}))
"""
    ended = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=300)
    assert ended.returncode == 0, ended.stderr
    return json.loads(ended.stdout.splitlines()[-1])


@needs_fork
def test_a_run_that_is_killed_again_and_again_ends_like_one_that_was_not(another_process):
    hits, *_, wrong = another_process["kills"]

    assert wrong == []
    assert hits == 4


@needs_fork
def test_the_same_seed_gives_the_same_weights_in_another_process(another_process):
    assert another_process["weights"] == same_seed.weights_hash()


@pytest.fixture(scope="module")
def two(tmp_path_factory):
    """What two processes report; most of the time goes into starting them."""
    return two_ranks.on_two_ranks(tmp_path_factory.mktemp("two"), every=6)


def test_two_processes_resume_exactly(two):
    assert two["resume"]["found"] == []
    assert two["resume"]["points"] >= 3


def test_two_processes_train_like_one_on_an_odd_number_of_images(two, tmp_path):
    single, double = two_ranks.outcome(two_ranks.COMPARED, tmp_path), two["compare"]

    weights, figures = two_ranks.furthest(single, double)
    assert weights < 1e-5
    assert figures < 1e-6
    assert {"val/loss", "val/accuracy", "train/loss", "train/accuracy", "gap/accuracy"} <= single["figures"].keys()


def test_two_processes_write_what_one_writes(two, tmp_path):
    assert two["compare"]["files"] == two_ranks.outcome(two_ranks.COMPARED, tmp_path)["files"]


def test_damaged_data_is_refused_with_the_files_name():
    refused, wrong = data_damage.check(300, seed=1)

    assert wrong == []
    assert refused > 250


RUN = ["--variant", "no_dropout", "--data.dataset=synthetic", "--model.conv_channels=[2,2]", "--model.hidden_units=[4]"]
TWO = ["--trainer.devices=2", "--trainer.strategy=ddp", "--trainer.accelerator=cpu"]


def start(folder: Path, *options: str) -> subprocess.Popen:
    command = [sys.executable, "-m", "fmnist_pl", "fit", *RUN, "--monitors=off", *options]
    environment = {**os.environ, "OMP_NUM_THREADS": "1", "DATA_DIR": str(folder), "PYTHONPATH": str(Path.cwd())}
    return subprocess.Popen(
        command, cwd=folder, env=environment, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True
    )


def wait_for(path: Path, process: subprocess.Popen) -> None:
    until = time.monotonic() + 120
    while not path.exists():
        assert process.poll() is None, process.communicate()[0]
        assert time.monotonic() < until
        time.sleep(0.05)


def test_the_command_saves_and_ends_with_a_status_of_its_own_when_it_is_told_to_stop(tmp_path):
    long = ["--data.batch_size=1", "--trainer.limit_val_batches=1", "--checkpoint.every_n_batches=1"]
    process = start(tmp_path, *long)
    checkpoint = tmp_path / "lightning_logs" / "no_dropout-synthetic" / "version_0" / "checkpoints" / "last.ckpt"
    wait_for(checkpoint, process)
    process.send_signal(signal.SIGTERM)
    said = process.communicate(timeout=60)[0]

    assert process.returncode == 143
    assert "Go on with: fmnist fit --resume lightning_logs/no_dropout-synthetic/version_0" in said
    assert "Traceback" not in said
    assert load_checked(checkpoint)["global_step"] > 0


def test_one_ranks_failure_ends_all_with_its_message(tmp_path):
    failing = "--trainer.callbacks+={class_path: tests.soak.failing_rank.FailsOnOneRank, init_args: {rank: 1}}"
    process = start(tmp_path, *TWO, "--data.training_images=200", failing)
    said = process.communicate(timeout=120)[0]

    assert process.returncode not in (0, None)
    assert "error: rank 1 has had enough." in said


def test_the_comparison_of_two_runs_finds_what_differs():
    assert differences({"a": [1.0, float("nan")]}, {"a": [1.0, float("nan")]}) == []
    assert differences({"a": [1.0, 2.0]}, {"a": [1.0, 2.0000000001]}) == ["/a/1: 2.0 and 2.0000000001"]
    assert differences({"a": 1}, {"b": 1, "a": 1}) == ["/b is in one only"]
