"""Settings of the process that trains, made by the command line before the first tensor."""

import ctypes
import logging
import os
import sys
import warnings

import torch

_M_TRIM_THRESHOLD, _M_TOP_PAD, _M_MMAP_THRESHOLD = -1, -2, -3  # glibc's malloc.h
_MIB = 1 << 20


def keep_freed_memory() -> bool:
    """Have glibc keep freed blocks for the next step instead of returning them to the kernel.

    A training step allocates and frees some 60 MB of activations. By default each is mapped and page-faulted again:
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
    settings = {_M_MMAP_THRESHOLD: 1024 * _MIB, _M_TRIM_THRESHOLD: 2047 * _MIB, _M_TOP_PAD: 256 * _MIB}
    return all([mallopt(name, size) for name, size in settings.items()])


def skip_gpu_search() -> bool:
    """Have torch's optimisers stop looking for a GPU at every step on a machine that has none.

    Lightning asks torch to look through NVIDIA's management library, so that a later fork is safe; without a GPU that
    loads the library again each time, 0.1 ms per step, and there is nothing that a fork could harm.

    Returns:
        Whether there is no GPU.
    """
    if torch.cuda.is_available():
        return False
    os.environ["PYTORCH_NVML_BASED_CUDA_CHECK"] = "0"
    return True


def quiet_libraries() -> None:
    """Hide Lightning's notices (devices found, tips, the seed) and warnings that a user cannot act on.

    Warnings and errors of Lightning's loggers stay.
    """
    for name in ("pytorch_lightning", "lightning_fabric", "lightning.pytorch", "lightning.fabric"):
        logging.getLogger(name).setLevel(logging.WARNING)
    warnings.filterwarnings("ignore", message=".*LeafSpec.* is deprecated", category=FutureWarning)  # Lightning's own
    for message in (
        "The number of training batches .* is smaller than the logging interval",  # everything is logged per epoch
        "The dirpath has changed from",  # an evaluation has a folder of its own and chooses no best checkpoint
        "Checkpoint directory .* exists and is not empty",  # of a run that resumes
    ):
        warnings.filterwarnings("ignore", message=message)
