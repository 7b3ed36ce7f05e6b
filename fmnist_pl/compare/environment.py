"""How runs that train at the same time share the machine."""

import os
from collections.abc import Mapping


def job_environment(slot: int, jobs: int, cpus: int, gpus: list[str], environment: Mapping[str, str]) -> dict[str, str]:
    """The environment of the run in one slot; a run alone gets this process's own.

    Args:
        slot: Number of the slot, from 0.
        jobs: How many slots there are.
        cpus: Threads to divide among them.
        gpus: CUDA devices to divide among them, as CUDA_VISIBLE_DEVICES names them.
        environment: This process's.
    """
    result = dict(environment)
    if jobs > 1:
        result["OMP_NUM_THREADS"] = str(max(1, cpus // jobs))
        if gpus:
            result["CUDA_VISIBLE_DEVICES"] = gpus[slot % len(gpus)]
    return result


def available_cpus() -> int:
    """OMP_NUM_THREADS if it is set to a number, else the processors this process may use."""
    wanted = os.environ.get("OMP_NUM_THREADS", "")
    if wanted.isdigit() and int(wanted) > 0:
        return int(wanted)
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def available_gpus() -> list[str]:
    """The CUDA devices this process may use, by the names that CUDA_VISIBLE_DEVICES takes."""
    import torch

    named = os.environ.get("CUDA_VISIBLE_DEVICES")
    if named is not None:
        return [name for name in named.split(",") if name]
    return [str(index) for index in range(torch.cuda.device_count())]
