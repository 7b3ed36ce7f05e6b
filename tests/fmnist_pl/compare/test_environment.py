"""How processes that train at the same time divide threads and GPUs."""

import os

import pytest

from fmnist_pl.compare.environment import slot_environment


@pytest.fixture(autouse=True)
def limits(monkeypatch):
    monkeypatch.setenv("OMP_NUM_THREADS", "7")
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "2,5,GPU-7")


def part(slot, jobs):
    environment = slot_environment(slot, jobs)
    return environment["OMP_NUM_THREADS"], environment["CUDA_VISIBLE_DEVICES"]


def test_one_slot_keeps_the_environment():
    assert slot_environment(0, 1) == dict(os.environ)


def test_threads_and_gpus_are_divided():
    assert [part(slot, 2) for slot in range(2)] == [("3", "2,GPU-7"), ("3", "5")]


def test_with_more_slots_than_gpus_and_threads_slots_use_the_same():
    assert [part(slot, 8) for slot in (0, 1, 2, 3, 7)] == [
        ("1", "2"),
        ("1", "5"),
        ("1", "GPU-7"),
        ("1", "2"),
        ("1", "5"),
    ]


def test_hidden_gpus_stay_hidden(monkeypatch):
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "")

    assert part(1, 2) == ("3", "")


def test_without_limits_the_machine_is_divided(monkeypatch):
    monkeypatch.delenv("OMP_NUM_THREADS")
    monkeypatch.delenv("CUDA_VISIBLE_DEVICES")
    monkeypatch.setattr("os.sched_getaffinity", lambda pid: set(range(16)))
    monkeypatch.setattr("torch.cuda.device_count", lambda: 2)

    assert part(1, 2) == ("8", "1")
