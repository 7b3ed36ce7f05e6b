"""The line between the benchmark and a contender's process: "go" one way, measured seconds the other.

Each contender lives in a process of its own, because allocator settings, thread pools and peak memory belong to a
process, and because Keras lives in another virtual environment. While one runs the others block on their pipe.
Standard library only.
"""

import argparse
import contextlib
import json
import os
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

_VARIABLE = "BENCHMARK_CHANNEL"  # "<descriptor to read>,<descriptor to write>"
ROOT = Path(__file__).resolve().parent.parent


class Channel:
    """The contender's end."""

    def __init__(self) -> None:
        reading, writing = (int(number) for number in os.environ[_VARIABLE].split(","))
        self._in, self._out = os.fdopen(reading), os.fdopen(writing, "w")
        self._start = 0.0

    def begin(self) -> None:
        """Block until the next round begins and start the clock; the process ends when there is no next round."""
        if not self._in.readline():
            sys.stdout.flush()
            os._exit(0)  # from within a trainer's loop: there is nothing to tidy up
        self._start = time.perf_counter()

    def end(self, units: float, seconds: float | None = None) -> None:
        """Hand back the round's seconds (default: since `begin`) per unit of work, and this process's peak memory."""
        import resource  # not on Windows

        seconds = time.perf_counter() - self._start if seconds is None else seconds
        peak_mib = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
        print(json.dumps({"seconds": seconds / units, "peak_mib": peak_mib}), file=self._out, flush=True)

    def run(self, work: Callable[[], None], units: float) -> None:
        """Do ``work``, which is ``units`` of it, in every round."""
        while True:
            self.begin()
            work()
            self.end(units)


def contender_parser(description: str | None) -> argparse.ArgumentParser:
    """The arguments that every contender takes."""
    parser = argparse.ArgumentParser(description=description)
    parser.add_argument("--data", required=True, type=Path, help="Folder that holds FashionMNIST/raw, unpacked.")
    parser.add_argument("--batch-size", type=int, default=64)
    parser.add_argument("--steps", type=int, default=100, help="Training steps in a round.")
    parser.add_argument("--device", default="cpu", choices=["cpu", "cuda"])
    return parser


class Contender:
    """The benchmark's end: starts a process and runs rounds in it.

    Args:
        name: What the tables call it.
        module: Run with ``python -m``.
        arguments: Its arguments.
        threads: Threads of its numerical libraries.
        python: The interpreter.
        folder: Its working directory.
        gpu: Whether it sees the GPU.
    """

    def __init__(
        self, name: str, module: str, arguments: list[str], threads: int, python: str, folder: Path, gpu: bool
    ) -> None:
        self.name, self.last = name, dict[str, Any]()
        to_child, from_child = os.pipe(), os.pipe()
        names = ("OMP_NUM_THREADS", "MKL_NUM_THREADS", "TF_NUM_INTRAOP_THREADS", "TF_NUM_INTEROP_THREADS")
        self.log = folder / f"{name.replace(' ', '_').replace('/', '_')}.log"
        with self.log.open("w") as log:
            self._process = subprocess.Popen(
                [python, "-m", module, *arguments],
                env={
                    **os.environ,
                    **dict.fromkeys(names, str(threads)),
                    "PYTHONPATH": str(ROOT),
                    "CUDA_VISIBLE_DEVICES": os.environ.get("CUDA_VISIBLE_DEVICES", "0") if gpu else "",
                    _VARIABLE: f"{to_child[0]},{from_child[1]}",
                },
                pass_fds=(to_child[0], from_child[1]),
                cwd=folder,
                stdout=log,
                stderr=subprocess.STDOUT,
            )
        os.close(to_child[0])
        os.close(from_child[1])
        self._to, self._from = os.fdopen(to_child[1], "w"), os.fdopen(from_child[0])

    def __call__(self) -> float:
        """Run one round and return its seconds per unit of work.

        Raises:
            RuntimeError: If the contender died; with the end of what it printed.
        """
        try:
            print("go", file=self._to, flush=True)
            line = self._from.readline()
        except BrokenPipeError:
            line = ""
        if not line:
            raise RuntimeError(f"{self.name} ended:\n{self.log.read_text()[-3000:]}")
        self.last = json.loads(line)
        return float(self.last["seconds"])

    def close(self) -> None:
        """End the process."""
        with contextlib.suppress(BrokenPipeError):
            self._to.close()
        try:
            self._process.wait(timeout=20)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait()
        self._from.close()
