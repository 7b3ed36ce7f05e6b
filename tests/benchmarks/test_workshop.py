"""A contender's process: stopped while others run, gone with the benchmark."""

import os
import subprocess
import sys
import time
from pathlib import Path

import pytest

REPOSITORY = Path(__file__).parents[2]
SCRIPT = """
import os, sys, time
from pathlib import Path
from types import SimpleNamespace
from benchmarks.workshop import Contender

workshop = SimpleNamespace(
    folder=Path(sys.argv[1]), data="data", device="cpu", environment=dict(os.environ), peers_python=Path(sys.executable)
)
contender = Contender(workshop, "sgemm", "loop", "--what=sgemm")
seconds = contender()
pid = int(Path("/proc/self/task").joinpath(str(os.getpid()), "children").read_text())
limit = time.monotonic() + 20
while (state := Path(f"/proc/{pid}/stat").read_text().split()[2]) != "T" and time.monotonic() < limit:
    time.sleep(0.1)
print(pid, seconds > 0, state, contender() > 0, flush=True)
"""


@pytest.mark.slow
@pytest.mark.skipif(sys.platform != "linux", reason="reads /proc")
@pytest.mark.parametrize("end", ["contender.close()", "os._exit(1)"])
def test_a_contender_is_stopped_between_rounds_and_ends_with_the_benchmark(tmp_path, end):
    path = os.pathsep.join([str(REPOSITORY), str(REPOSITORY / "callbacks")])

    done = subprocess.run(
        [sys.executable, "-c", SCRIPT + end, tmp_path],
        env={**os.environ, "PYTHONPATH": path},
        capture_output=True,
        text=True,
        timeout=300,
    )

    pid, *rest = done.stdout.split()
    assert rest == ["True", "T", "True"], done.stderr
    limit = time.monotonic() + 20
    while Path(f"/proc/{pid}").exists() and time.monotonic() < limit:
        time.sleep(0.1)
    assert not Path(f"/proc/{pid}").exists()
