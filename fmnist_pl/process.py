"""What concerns processes that train: freed memory, the search for a GPU, notices, signals, parts of the machine.

It imports torch only inside functions: the number of threads must be set before.
"""

import contextlib
import ctypes
import functools
import gc
import importlib
import io
import logging
import os
import signal
import sys
import threading
import time
import warnings
from collections.abc import Iterator
from types import FrameType, ModuleType
from typing import Any

from training_health.garbage import no_collection

_M_TRIM_THRESHOLD, _M_TOP_PAD, _M_MMAP_THRESHOLD = -1, -2, -3  # glibc's malloc.h
_MIB = 1 << 20
_PR_SET_PDEATHSIG = 1  # Linux's prctl.h
PARENT = "FMNIST_PARENT"  # environment variable: id of the process with which this one ends
_NAMES = {signal.SIGINT: "Ctrl-C", signal.SIGTERM: "SIGTERM"}


def keep_freed_memory() -> bool:
    """Have glibc keep freed blocks for the next step instead of returning them to the kernel.

    A training step allocates and frees some 60 MB of activations. By default each is mapped and page-faulted again:
    4,400 faults per step of the baseline, none with these thresholds, for a step that is a quarter shorter.
    Returns whether this system's C library took the settings; elsewhere nothing happens.
    """
    try:
        mallopt = ctypes.CDLL("libc.so.6").mallopt
    except (OSError, AttributeError):  # not Linux; musl has no mallopt
        return False
    settings = {_M_MMAP_THRESHOLD: 1024 * _MIB, _M_TRIM_THRESHOLD: 2047 * _MIB, _M_TOP_PAD: 256 * _MIB}
    return all([mallopt(name, size) for name, size in settings.items()])


def skip_gpu_search() -> None:
    """Have torch's optimisers stop looking for a GPU at every step on a machine that has none.

    Lightning asks torch to look through NVIDIA's management library, so that a later fork is safe; without a GPU that
    loads the library again each time, 0.1 ms per step, and there is nothing that a fork could harm.
    """
    import torch

    if not torch.cuda.is_available():
        os.environ["PYTORCH_NVML_BASED_CUDA_CHECK"] = "0"


_freeze_once = functools.cache(gc.freeze)


@contextlib.contextmanager
def quick_imports() -> Iterator[None]:
    """Look for no garbage within the block, and after the process's first one never among what is there at its end.

    Importing torch and Lightning makes 700,000 objects, which six collections would go through in 0.6 s.
    """
    with no_collection():
        try:
            yield
        finally:
            _freeze_once()


def import_lightning() -> None:
    """Import Lightning, torchmetrics and the monitors without packages that they load and training never calls.

    torchmetrics loads ``scipy.signal`` only to see whether a renamed window is there; torch's compiler ``triton``,
    which makes kernels for GPUs, where there is none; the monitors Lightning's other package, whose trainer then takes
    them for no callbacks. Together they take 140 MiB and an eighth of the start. Whoever needs one imports it later.
    """
    import torch

    window = ModuleType("scipy.signal")
    window.hamming = None  # type: ignore[attr-defined]
    hidden: dict[str, ModuleType | None] = {window.__name__: window, "lightning": None}  # None: as if not installed
    if not torch.accelerator.is_available():
        hidden["triton"] = None
        logging.getLogger("torch.utils.flop_counter").setLevel(logging.ERROR)  # else it warns that it is not
    hidden = {name: module for name, module in hidden.items() if name not in sys.modules}
    sys.modules.update(hidden)  # type: ignore[arg-type]
    for name in ("torchmetrics", "pytorch_lightning", "training_health.lightning"):
        importlib.import_module(name)
    for name in hidden:
        del sys.modules[name]


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
        r"`ModelCheckpoint\(monitor='val/loss'\)` could not find",  # no validation: the summary says what was tested
    ):
        warnings.filterwarnings("ignore", message=message)


class _Output(io.FileIO):
    """A standard stream that loses what nobody reads any more, or what no disk takes, instead of ending the run."""

    def write(self, data: Any) -> int:  # noqa: ANN401
        try:
            return super().write(data)
        except OSError:
            return memoryview(data).nbytes


class _Messages(io.TextIOWrapper):
    """A stream of messages, whose names of files shall not steer the terminal: control characters are escaped."""

    def write(self, text: str) -> int:
        return super().write(printable(text))


def printable(text: object) -> str:
    """The text with every control character but those of white space escaped, and every byte that is no text."""
    return "".join(c if c.isprintable() or c in "\n\r\t" else c.encode("unicode_escape").decode() for c in str(text))


def keep_writing() -> None:
    """Let no closed pipe, full disk or closed stream end the process in the middle of its work."""
    # What goes wrong in TensorBoard's writing thread is raised again where the next record is written.
    threading.excepthook = lambda args: None if issubclass(args.exc_type, OSError) else threading.__excepthook__(args)
    for number, name in enumerate(("stdin", "stdout", "stderr")):
        try:
            os.fstat(number)
        except OSError:  # closed: else a file of the run would take its number, and what libraries print
            os.dup2(os.open(os.devnull, os.O_RDWR), number)
            os.set_inheritable(number, True)
        if number and not (sys.platform == "win32" and os.isatty(number)):  # a console there takes text, not bytes
            stream, buffered = getattr(sys, name), io.BufferedWriter(_Output(number, "wb", closefd=False))
            coding = getattr(stream, "encoding", "utf-8"), "backslashreplace"  # names of files may be any bytes
            kind, direct = (_Messages, True) if number == 2 else (io.TextIOWrapper, os.isatty(number))
            setattr(sys, name, kind(buffered, *coding, line_buffering=direct))


class Stopped(SystemExit):
    """Ends the process with the status that shells give to its signal: 130 after Ctrl-C, 143 after SIGTERM."""

    def __init__(self, number: int) -> None:
        # A rank that Lightning launched ends as if all were well: a failed one makes Lightning kill the first rank.
        super().__init__(128 + number if os.environ.get("LOCAL_RANK", "0") == "0" else 0)
        self.reason = _NAMES[signal.Signals(number)]


@contextlib.contextmanager
def stop_at_once() -> Iterator[None]:
    """Raise `Stopped` for both signals within the block; no effect outside the main thread, which gets no signals."""
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    before = {number: signal.signal(number, _stop) for number in _NAMES}
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


def replace_lightnings_handler() -> None:
    """Put ours back, within `stop_at_once`: Lightning's handler of SIGTERM talks to the other ranks, which may hang."""
    if signal.getsignal(signal.SIGINT) is _stop:
        signal.signal(signal.SIGTERM, _stop)


def _stop(number: int, _frame: FrameType | None) -> None:
    raise Stopped(number)


@contextlib.contextmanager
def ending_children() -> Iterator[None]:
    """Have the ranks that are started within the block end when this process does, whenever that is."""
    end_with_parent()
    os.environ[PARENT] = str(os.getpid())
    try:
        yield
    finally:
        os.environ.pop(PARENT, None)


def end_with_parent() -> None:
    """Have this process killed when its parent ends, or has ended already, if `PARENT` in the environment names it.

    Not on Windows, where a parent that has ended keeps its number, and a virtual environment's Python has another one.
    """
    parent = int(os.environ.pop(PARENT, "0"))
    if not parent or not hasattr(signal, "SIGKILL"):
        return
    with contextlib.suppress(OSError, AttributeError):  # Linux: at once, whatever this process does
        ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)

    def watch() -> None:
        while os.getppid() == parent:
            time.sleep(1)
        os.kill(os.getpid(), signal.SIGKILL)

    if os.getppid() != parent:
        watch()
    threading.Thread(target=watch, daemon=True).start()


def ended_by(status: int) -> str | None:
    """Which signal a status below 0 stands for, in words; None for others."""
    if status >= 0:
        return None
    name = {known.value: known.name for known in signal.Signals}.get(-status, f"signal {-status}")
    return f"ended by {name}" + (" (out of memory?)" if name == "SIGKILL" else "")


def slot_environment(slot: int, jobs: int) -> dict[str, str]:
    """The environment of the process in one slot (0 to ``jobs - 1``): its part of the threads and GPUs.

    ``OMP_NUM_THREADS`` and ``CUDA_VISIBLE_DEVICES`` of this process bound what is divided. With fewer GPUs than slots
    several slots use the same one; a single slot gets everything.
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
        import torch

        visible = ",".join(map(str, range(torch.cuda.device_count())))
    if gpus := [name for name in visible.split(",") if name]:
        environment["CUDA_VISIBLE_DEVICES"] = ",".join(gpus[slot::jobs] or [gpus[slot % len(gpus)]])
    return environment
