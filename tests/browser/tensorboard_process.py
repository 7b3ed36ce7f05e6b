"""TensorBoard in a process of its own."""

import re
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest


def serve(logdir: Path, load_fast: str) -> Iterator[str]:
    """TensorBoard on a free port; yields its address."""
    command = [sys.executable, "-m", "tensorboard.main", "--logdir", str(logdir), "--host", "127.0.0.1", "--port", "0"]
    command += ["--load_fast", load_fast, "--reload_interval", "1"]
    process = subprocess.Popen(command, stderr=subprocess.PIPE, text=True)
    try:
        printed = ""
        for line in process.stderr:
            printed += line
            if found := re.search(r"http://127\.0\.0\.1:\d+/", line):
                yield found.group(0)
                break
        else:
            pytest.fail(f"TensorBoard did not start:\n{printed}")
    finally:
        process.terminate()
        process.stderr.close()
        process.wait(timeout=20)
