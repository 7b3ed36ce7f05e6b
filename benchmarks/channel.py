"""The line between the benchmark and a contender's process: "go" one way, measured seconds the other.

Each contender lives in a process of its own, because allocator settings, thread pools and peak memory belong to a
process, and because Keras lives in another virtual environment. While one runs the others block on their pipe.
Standard library only.
"""

import contextlib
import json
import os
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

_VARIABLE = "BENCHMARK_CHANNEL"  # "<descriptor to read>,<descriptor to write>"
ROOT = Path(__file__).resolve().parent.parent


class Channel:
    """The contender's end."""

    def __init__(self) -> None:
        reading, writing = (int(number) for number in os.environ[_VARIABLE].split(","))
        self._in, self._out = os.fdopen(reading), os.fdopen(writing, "w")

    def wait(self) -> None:
        """Block until the next round begins; ends the process when there is none."""
        if not self._in.readline():
            sys.stdout.flush()
            os._exit(0)  # from within a trainer's loop: there is nothing to tidy up

    def report(self, seconds: float, **more: Any) -> None:  # noqa: ANN401
        """Hand back a round's seconds per unit of work."""
        print(json.dumps({"seconds": seconds, **more, "peak_mib": _peak_mib()}), file=self._out, flush=True)

    def rounds(self) -> Iterator[float]:
        """Yields a start time for every round."""
        while True:
            self.wait()
            yield time.perf_counter()


class Contender:
    """The benchmark's end: starts a process and runs rounds in it.

    Args:
        name: What the tables call it.
        module: Run with ``python -m``.
        arguments: Its arguments.
        threads: Threads of its numerical libraries.
        python: The interpreter. Default: this one.
        folder: Its working directory.
        environment: More environment variables.
    """

    def __init__(
        self,
        name: str,
        module: str,
        arguments: list[str],
        threads: int,
        python: str = sys.executable,
        folder: Path = ROOT,
        environment: dict[str, str] | None = None,
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
                    "CUDA_VISIBLE_DEVICES": os.environ.get("CUDA_VISIBLE_DEVICES", ""),
                    _VARIABLE: f"{to_child[0]},{from_child[1]}",
                    **(environment or {}),
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


def _peak_mib() -> float:
    import resource  # not on Windows

    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
