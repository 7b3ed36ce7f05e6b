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
    if jobs == 1:
        return environment
    limit = environment.get("OMP_NUM_THREADS", "")
    # The processors that this process may use; macOS cannot tell.
    processors = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    threads = int(limit) if limit.isdigit() and int(limit) > 0 else processors
    environment["OMP_NUM_THREADS"] = str(max(1, threads // jobs))
    visible = environment.get("CUDA_VISIBLE_DEVICES")
    if visible is None:
        import torch  # takes seconds

        visible = ",".join(map(str, range(torch.cuda.device_count())))
    if gpus := [name for name in visible.split(",") if name]:
        environment["CUDA_VISIBLE_DEVICES"] = ",".join(gpus[slot::jobs] or [gpus[slot % len(gpus)]])
    return environment
