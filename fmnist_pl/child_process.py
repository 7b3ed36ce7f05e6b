"""Processes that this one started."""

import signal
import subprocess


def end(process: subprocess.Popen[bytes], seconds: float) -> None:
    """Ask a process to end; kill it if it still runs after ``seconds``."""
    if process.poll() is None:
        process.terminate()
        try:
            process.wait(seconds)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()


def ended_by(status: int | None) -> str | None:
    """Which signal a status below 0 stands for, in words; None for others."""
    if status is None or status >= 0:
        return None
    name = signal.Signals(-status).name
    return f"ended by {name}" + (" (out of memory?)" if name == "SIGKILL" else "")
