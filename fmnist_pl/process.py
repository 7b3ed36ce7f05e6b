"""Settings of the process that trains, made by the command line before the first tensor."""

import ctypes
import os
import sys

import torch

_M_TRIM_THRESHOLD, _M_TOP_PAD, _M_MMAP_THRESHOLD = -1, -2, -3  # glibc's malloc.h
_MIB = 1 << 20


def keep_freed_memory() -> bool:
    """Have glibc keep freed blocks for the next step instead of returning them to the kernel.

    A training step allocates and frees some 60 MB of activations. By default each is mapped and page-faulted anew:
    4,400 faults per step of the baseline, none with these thresholds, for a step that is a quarter shorter.

    Returns:
        Whether this system's C library took the settings; elsewhere nothing happens.
    """
    if sys.platform != "linux":
        return False
    try:
        mallopt = ctypes.CDLL("libc.so.6").mallopt
    except (OSError, AttributeError):  # musl has no mallopt
        return False
    taken = [
        mallopt(_M_MMAP_THRESHOLD, 1024 * _MIB),
        mallopt(_M_TRIM_THRESHOLD, 2047 * _MIB),
        mallopt(_M_TOP_PAD, 256 * _MIB),
    ]
    return all(taken)


def skip_gpu_search() -> bool:
    """Have torch's optimisers stop looking for a GPU at every step on a machine that has none.

    Lightning asks torch to look through NVIDIA's management library, so that a later fork is safe; without a GPU that
    loads the library anew each time, 0.1 ms per step, and there is nothing that a fork could harm.

    Returns:
        Whether there is no GPU.
    """
    if torch.cuda.is_available():
        return False
    os.environ["PYTORCH_NVML_BASED_CUDA_CHECK"] = "0"
    return True
