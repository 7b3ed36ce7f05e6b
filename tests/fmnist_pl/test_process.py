"""Settings of the process that trains."""

import os
import resource
import signal
import subprocess
import sys
import time

import pytest
import torch

from fmnist_pl.process import ended_by, printable, skip_gpu_search, slot_environment

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


def test_training_starts_without_what_it_never_calls_which_can_be_had_afterwards():
    code = """
import sys
from fmnist_pl.process import import_lightning
import_lightning()
import fmnist_pl.cli
never = {"scipy.signal", "scipy.stats", "triton", "lightning"}
print(sorted((never | {"pytorch_lightning", "torchmetrics"}) & set(sys.modules)))
from scipy.signal import find_peaks
"""
    run = [sys.executable, "-W", "ignore", "-c", code]
    done = subprocess.run(run, env={**os.environ, "CUDA_VISIBLE_DEVICES": ""}, capture_output=True, text=True)
    assert (done.stdout, done.stderr) == ("['pytorch_lightning', 'torchmetrics']\n", "")


def test_what_is_imported_quickly_is_no_longer_searched_for_garbage_and_what_comes_later_is():
    code = """
import gc, weakref
from fmnist_pl.process import quick_imports
class Node: pass
def circle():
    node = Node()
    node.itself = node
    return weakref.ref(node)
with quick_imports():
    import decimal
    assert not gc.isenabled()
later = circle()
with quick_imports():  # once more, as by whoever calls the command twice
    pass
gc.collect()
print(gc.isenabled(), gc.get_freeze_count() > 1000, later())
gc.disable()
with quick_imports():
    pass
print(gc.isenabled())
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert (done.stdout, done.stderr) == ("True True None\nFalse\n", "")


def test_what_steers_a_terminal_is_escaped():
    assert printable("a\x1b[31m\x00\udcfc\n\tü") == "a\\x1b[31m\\x00\\udcfc\n\tü"


def test_without_a_gpu_torch_is_told_not_to_search_again(monkeypatch):
    monkeypatch.setenv(VARIABLE, "1")
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)

    skip_gpu_search()

    assert os.environ[VARIABLE] == "0"


def test_with_a_gpu_the_search_stays_as_lightning_set_it(monkeypatch):
    monkeypatch.setenv(VARIABLE, "1")
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)

    skip_gpu_search()

    assert os.environ[VARIABLE] == "1"


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


CHILD = "import time; from fmnist_pl.process import end_with_parent; end_with_parent(); print('ready', flush=True)"
PARENT_OF_IT = """
import os, subprocess, sys
environment = {**os.environ, "FMNIST_PARENT": sys.argv[2] or str(os.getpid())}
subprocess.Popen([sys.executable, "-c", sys.argv[1] + "; time.sleep(600)"], env=environment).wait()
"""


@pytest.mark.parametrize("dead_before", [False, True])
def test_a_process_ends_with_its_parent_also_if_that_has_ended_before(dead_before):
    another = str(os.getpid()) if dead_before else ""
    began = time.monotonic()
    with subprocess.Popen([sys.executable, "-c", PARENT_OF_IT, CHILD, another], stdout=subprocess.PIPE) as process:
        if not dead_before:
            assert process.stdout.readline() == b"ready\n"
            process.send_signal(signal.SIGKILL)
        assert process.stdout.read() == b""  # at its end, when the child too has closed it

    assert time.monotonic() - began < 60


WRITER = """
import sys, time
from fmnist_pl.process import keep_writing
keep_writing()
print("first", flush=True)
for number in range(3):
    time.sleep(0.2)
    print(number, flush=True)
    print(number, b"\\xff".decode("utf-8", "surrogateescape"), file=sys.stderr)
open(sys.argv[1], "w").write("done")
"""


@pytest.mark.parametrize("ends", ["{} | head -1", "{} > /dev/full 2>&1", "{} >&- 2>&-", "{} 2>&- | true"])
def test_a_process_whose_output_nobody_takes_goes_on(tmp_path, ends):
    file = tmp_path / "done"
    command = ends.format(f"{sys.executable} -c '{WRITER}' {file}")
    ended = subprocess.run(["bash", "-o", "pipefail", "-c", command], stderr=subprocess.PIPE, text=True)

    assert (ended.returncode, file.read_text()) == (0, "done")
    assert "Error" not in ended.stderr


@pytest.mark.parametrize(
    ("status", "words"),
    [
        (-9, "ended by SIGKILL (out of memory?)"),
        (-15, "ended by SIGTERM"),
        (-40, "ended by signal 40"),
        (1, None),
        (0, None),
    ],
)
def test_signals_have_names(status, words):
    assert ended_by(status) == words
