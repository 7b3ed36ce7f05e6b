"""How processes that train at the same time divide the machine."""

import os


def slot_environment(slot: int, jobs: int) -> dict[str, str]:
    """The environment of the process in one slot: this process's own, with the slot's part of threads and GPUs.

    ``OMP_NUM_THREADS`` and ``CUDA_VISIBLE_DEVICES`` of this process bound what is divided. With fewer GPUs than slots
    several slots use the same one; a single slot gets everything.

    Args:
        slot: Number of the slot, from 0 to ``jobs - 1``.
        jobs: How many slots there are.
    """
    environment = dict(os.environ)
    if jobs > 1:
        environment["OMP_NUM_THREADS"] = str(max(1, _threads() // jobs))
        if gpus := _gpus():
            environment["CUDA_VISIBLE_DEVICES"] = ",".join(gpus[slot::jobs] or [gpus[slot % len(gpus)]])
    return environment


def _threads() -> int:
    wanted = os.environ.get("OMP_NUM_THREADS", "")
    if wanted.isdigit() and int(wanted) > 0:
        return int(wanted)
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def _gpus() -> list[str]:
    """By the names that CUDA_VISIBLE_DEVICES takes; empty if that hides them."""
    import torch

    named = os.environ.get("CUDA_VISIBLE_DEVICES")
    if named is not None:
        return [name for name in named.split(",") if name]
    return [str(index) for index in range(torch.cuda.device_count())]
