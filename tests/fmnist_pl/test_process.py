"""Settings of the process that trains."""

import os
import resource
import subprocess
import sys

import pytest
import torch

from fmnist_pl.process import skip_gpu_search

VARIABLE = "PYTORCH_NVML_BASED_CUDA_CHECK"

FAULTS_OF_BIG_ALLOCATIONS = """
import resource, torch
from fmnist_pl.process import keep_freed_memory
print(keep_freed_memory())
for number in range(60):
    if number == 50:
        before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
    torch.ones(10_000_000)
print(resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before)
"""


@pytest.mark.skipif(sys.platform != "linux", reason="glibc's settings")
def test_freed_memory_is_used_again_without_page_faults():
    run = [sys.executable, "-c", FAULTS_OF_BIG_ALLOCATIONS]
    taken, faults = subprocess.run(run, capture_output=True, text=True, check=True).stdout.split()
    pages_of_one = 10_000_000 * 4 // resource.getpagesize()

    assert taken == "True"
    assert int(faults) < pages_of_one  # ten allocations, 9,766 pages each


def test_without_a_gpu_torch_is_told_not_to_search_again(monkeypatch):
    monkeypatch.setenv(VARIABLE, "1")
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)

    assert skip_gpu_search()
    assert os.environ[VARIABLE] == "0"


def test_with_a_gpu_the_search_stays_as_lightning_set_it(monkeypatch):
    monkeypatch.setenv(VARIABLE, "1")
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)

    assert not skip_gpu_search()
    assert os.environ[VARIABLE] == "1"
