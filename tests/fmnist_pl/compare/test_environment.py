"""How runs share threads and GPUs."""

from fmnist_pl.compare.environment import available_cpus, available_gpus, job_environment


def test_a_run_alone_keeps_the_environment():
    assert job_environment(0, 1, 16, ["0", "1"], {"HOME": "/h"}) == {"HOME": "/h"}


def test_threads_and_gpus_are_divided():
    environments = [job_environment(slot, 3, 16, ["2", "5"], {}) for slot in range(3)]

    assert environments == [
        {"OMP_NUM_THREADS": "5", "CUDA_VISIBLE_DEVICES": "2"},
        {"OMP_NUM_THREADS": "5", "CUDA_VISIBLE_DEVICES": "5"},
        {"OMP_NUM_THREADS": "5", "CUDA_VISIBLE_DEVICES": "2"},
    ]


def test_more_jobs_than_threads_get_one_each():
    assert job_environment(1, 4, 2, [], {}) == {"OMP_NUM_THREADS": "1"}


def test_the_users_own_limits_are_kept(monkeypatch):
    monkeypatch.setenv("OMP_NUM_THREADS", "3")
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "4,7")

    assert available_cpus() == 3
    assert available_gpus() == ["4", "7"]


def test_hidden_gpus_stay_hidden(monkeypatch):
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "")

    assert available_gpus() == []
