"""The contender's end of its line to the benchmark: "go" comes in, measured seconds go out. Standard library only.

Each contender lives in a process of its own, because allocator settings, thread pools and peak memory belong to a
process, and because Keras lives in another virtual environment. While one runs the others are stopped.
"""

import argparse
import json
import os
import sys
import time
from pathlib import Path

METHODS = ("revive_redo", "revive_snr", "revive_grama", "revive_random")  # ``--monitors`` that are `ReviveUnits`
VARIABLE = "BENCHMARK_CHANNEL"  # "<descriptor to read>,<descriptor to write>"


class Channel:
    """Runs rounds when the benchmark says so."""

    def __init__(self) -> None:
        reading, writing = (int(number) for number in os.environ[VARIABLE].split(","))
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


def contender_parser(description: str | None) -> argparse.ArgumentParser:
    """The arguments that every contender takes."""
    parser = argparse.ArgumentParser(description=description)
    parser.add_argument("--data", required=True, type=Path, help="Folder that holds FashionMNIST/raw, unpacked.")
    parser.add_argument("--batch-size", type=int, default=64)
    parser.add_argument("--steps", type=int, default=100, help="Training steps in a round.")
    parser.add_argument("--device", default="cpu", choices=["cpu", "cuda"])
    return parser
