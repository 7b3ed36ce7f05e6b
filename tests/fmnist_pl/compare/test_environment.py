"""How processes that train at the same time divide threads and GPUs."""

import os

import pytest

from fmnist_pl.compare.environment import slot_environment


@pytest.mark.parametrize(
    ("threads", "gpus", "jobs", "slots"),
    [
        ("7", "2,5,GPU-7", 2, [("3", "2,GPU-7"), ("3", "5")]),
        ("2", "2,5", 3, [("1", "2"), ("1", "5"), ("1", "2")]),  # more slots than threads and GPUs
        ("7", "", 2, [("3", ""), ("3", "")]),  # hidden GPUs stay hidden
        (None, None, 2, [("8", "0"), ("8", "1")]),  # all of the machine
        ("7", "0,1", 1, [("7", "0,1")]),
    ],
)
def test_threads_and_gpus_are_divided(monkeypatch, threads, gpus, jobs, slots):
    monkeypatch.setattr("os.sched_getaffinity", lambda pid: set(range(16)))
    monkeypatch.setattr("torch.cuda.device_count", lambda: 2)
    for name, value in (("OMP_NUM_THREADS", threads), ("CUDA_VISIBLE_DEVICES", gpus)):
        monkeypatch.delenv(name, raising=False)
        if value is not None:
            monkeypatch.setenv(name, value)

    environments = [slot_environment(slot, jobs) for slot in range(jobs)]

    assert [(found["OMP_NUM_THREADS"], found["CUDA_VISIBLE_DEVICES"]) for found in environments] == slots
    assert environments[0]["PATH"] == os.environ["PATH"]
