"""Cut the power at random moments, resume, and compare what the run ends with.

What outlasts a cut is modelled at its worst: of a file what it held when it was last synced, of a folder the names that
it had then.
"""

import os
import random
import shutil
import signal
import tempfile
from collections.abc import Callable
from pathlib import Path

from tests.soak.command import differences, ending
from tests.soak.sigkill import RUN, attempt, in_a_process


def cut_after(syncs: int, logs: Path, image: Path) -> Callable[[], None]:
    """Train in ``logs`` until the power is cut at a sync; ``image`` is what a disk would hold then."""

    def run() -> None:
        real, left = os.fsync, syncs
        content: dict[int, bytes] = {}  # by inode
        names: dict[Path, dict[str, int]] = {}  # of each folder

        def write_image() -> None:
            shutil.rmtree(image, ignore_errors=True)
            image.mkdir()
            for folder, entries in sorted(names.items()):
                above = names.get(folder.parent, {})
                known = folder == logs or (folder.exists() and above.get(folder.name) == folder.stat().st_ino)
                target = image / folder.relative_to(logs)
                if known and target.parent.is_dir():
                    target.mkdir(exist_ok=True)
                    for name, inode in entries.items():
                        if inode in content or not (folder / name).is_dir():
                            (target / name).write_bytes(content.get(inode, b""))

        def fsync(descriptor: int) -> None:
            nonlocal left
            path = Path(os.readlink(f"/proc/self/fd/{descriptor}"))
            if path.is_relative_to(logs):
                if path.is_dir():
                    names[path] = {entry.name: entry.stat().st_ino for entry in path.iterdir()}
                else:
                    content[path.stat().st_ino] = path.read_bytes()
                left -= 1
                if left < 0:
                    write_image()
                    os.kill(os.getpid(), signal.SIGKILL)
            real(descriptor)

        os.fsync = fsync
        attempt(logs)

    return run


def check(cuts: int, seed: int) -> list[str]:
    """Cut the power ``cuts`` times, each time in a run of its own; every difference from a run that was left alone."""
    chance, found = random.Random(seed), list[str]()
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        assert in_a_process(lambda: attempt(folder / "straight")) == 0
        expected = ending(folder / "straight" / RUN)
        for cut in range(cuts):
            logs = folder / str(cut)
            logs.mkdir()
            if in_a_process(cut_after(chance.randrange(80), logs, folder / "image")) == -signal.SIGKILL:
                shutil.rmtree(logs)
                (folder / "image").rename(logs)
            if in_a_process(lambda logs=logs: attempt(logs)):  # type: ignore[misc]
                found.append(f"cut {cut}: it did not resume")
            else:
                found += [f"cut {cut}: {where}" for where in differences(expected, ending(logs / RUN))]
    return found


def soak() -> str:
    """Twenty."""
    found = check(20, 0)
    assert not found, "\n".join(found)
    return "20 power cuts: 0 differences in weights, summary or curves"
