"""Settings of the process that trains."""

import os
import resource
import subprocess
import sys

import pytest
import torch

from fmnist_pl.process import skip_gpu_search

VARIABLE = "PYTORCH_NVML_BASED_CUDA_CHECK"

FAULTS_OF_A_BIG_ALLOCATION = """
import resource, torch
from fmnist_pl.process import keep_freed_memory
keep = keep_freed_memory() if {keep} else False
faults = lambda: resource.getrusage(resource.RUSAGE_SELF).ru_minflt
torch.ones(8_000_000)  # room for what follows
before = faults()
for _ in range(5):
    torch.ones(5_000_000)
print(keep, faults() - before)
"""


def measured(keep: bool) -> tuple[str, int]:
    code = FAULTS_OF_A_BIG_ALLOCATION.format(keep=keep)
    output = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout
    taken, faults = output.split()
    return taken, int(faults)


@pytest.mark.skipif(sys.platform != "linux", reason="glibc's settings")
def test_freed_memory_is_used_again_without_page_faults():
    pages_of_five = 5 * 5_000_000 * 4 // resource.getpagesize()

    taken, faults = measured(keep=True)

    assert taken == "True"
    assert faults < pages_of_five / 100
    assert measured(keep=False)[1] > pages_of_five / 2


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
