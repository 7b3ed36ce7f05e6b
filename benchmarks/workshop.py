"""Where contenders are started and run against each other."""

import contextlib
import gzip
import json
import os
import signal
import subprocess
import sys
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, TypeVar

from benchmarks.channel import VARIABLE
from benchmarks.interleave import Round, interleaved
from benchmarks.results_table import Report
from fmnist_pl.dataset.files import FASHION_MNIST, raw_folder

_ROOT = Path(__file__).resolve().parent.parent
_THREADS = ("OMP_NUM_THREADS", "MKL_NUM_THREADS", "TF_NUM_INTRAOP_THREADS", "TF_NUM_INTEROP_THREADS")

Part = TypeVar("Part")


class Workshop:
    """A temporary folder, where contenders are started, each with its threads; with a copy of the data in ``root``."""

    def __init__(self, folder: Path, threads: int, device: str, root: Path | None, peers_python: Path) -> None:
        self.folder, self.threads, self.device, self.peers_python = folder, threads, device, peers_python
        self.only: list[str] = []  # of the measure's parts; empty: all
        self.data = self.folder / "data"
        raw_folder(self.data).mkdir(parents=True)
        for file in FASHION_MNIST.all if root is not None else ():  # torchvision and Keras want them unpacked
            source = raw_folder(root) / file.name
            packed = source.with_name(f"{file.name}.gz")
            if not source.exists() and not packed.exists():
                raise SystemExit(f"{packed} is missing. Fetch it with `make data`, or name its folder in DATA_DIR.")
            content = source.read_bytes() if source.exists() else gzip.decompress(packed.read_bytes())
            (raw_folder(self.data) / file.name).write_bytes(content)

    @property
    def environment(self) -> dict[str, str]:
        """Of every process that is started."""
        gpu = os.environ.get("CUDA_VISIBLE_DEVICES", "0") if self.device == "cuda" else ""
        threads = dict.fromkeys(_THREADS, str(self.threads))
        return {**os.environ, **threads, "PYTHONPATH": str(_ROOT), "CUDA_VISIBLE_DEVICES": gpu}

    def parts(self, parts: Mapping[str, Part]) -> dict[str, Part]:
        """Those that were asked for."""
        return {name: part for name, part in parts.items() if name in self.only or not self.only}

    @contextlib.contextmanager
    def contenders(self, wanted: dict[str, list[str]]) -> Iterator[dict[str, "Contender"]]:
        """Start the contenders: name -> [file in ``subjects``, arguments ...]; ``INTERPRETER:file`` for another's."""
        with contextlib.ExitStack() as stack:
            yield {
                name: stack.enter_context(contextlib.closing(Contender(self, name, *command)))
                for name, command in wanted.items()
            }

    def fit(self, *options: str) -> "subprocess.CompletedProcess[str]":
        """Run ``fmnist fit`` in the folder, with the threads and the data of the contenders."""
        command = [sys.executable, "-m", "fmnist_pl", "fit", f"--data.root={self.data}", *options]
        command.append(f"--trainer.logger.init_args.save_dir={self.folder}/logs")
        return subprocess.run(command, cwd=self.folder, env=self.environment, capture_output=True, text=True)


class Contender:
    """A process of a file in ``subjects``, which runs a round when called and is stopped between two rounds.

    It leads a process group, so that signals reach its workers too. Should the benchmark die, the system hangs up on
    the orphaned group and continues it, which ends all of it.
    """

    def __init__(self, workshop: Workshop, name: str, subject: str, *arguments: str) -> None:
        self.name, self.last = name, dict[str, Any]()
        python, _, subject = subject.rpartition(":")
        command = [python or sys.executable, "-m", f"benchmarks.subjects.{subject}"]
        command += [f"--data={workshop.data}", f"--device={workshop.device}", *arguments]
        to_child, from_child = os.pipe(), os.pipe()
        ends = to_child[0], from_child[1]
        self.log = workshop.folder / f"{name.replace(' ', '_').replace('/', '_')}.log"
        with self.log.open("w") as log:
            self._process = subprocess.Popen(
                command,
                env={**workshop.environment, VARIABLE: f"{ends[0]},{ends[1]}"},
                pass_fds=ends,
                cwd=workshop.folder,
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=subprocess.STDOUT,
                process_group=0,
            )
        for end in ends:
            os.close(end)
        self._to, self._from = os.fdopen(to_child[1], "w"), os.fdopen(from_child[0])

    def __call__(self) -> float:
        """Run one round and return its seconds per unit of work; the error if it died has the end of its output."""
        line = ""
        self._signal(signal.SIGCONT)
        with contextlib.suppress(BrokenPipeError):
            print("go", file=self._to, flush=True)
            line = self._from.readline()
        self._signal(signal.SIGSTOP)
        if not line:
            raise RuntimeError(f"{self.name} ended:\n{self.log.read_text()[-3000:]}")
        self.last = json.loads(line)
        return float(self.last["seconds"])

    def close(self) -> None:
        """End the process."""
        self._signal(signal.SIGCONT)
        with contextlib.suppress(BrokenPipeError):
            self._to.close()
        try:
            self._process.wait(timeout=20)
        except subprocess.TimeoutExpired:
            self._signal(signal.SIGKILL)
            self._process.wait()
        self._from.close()

    def _signal(self, number: int) -> None:
        with contextlib.suppress(ProcessLookupError):
            os.killpg(self._process.pid, number)


def run_group(workshop: Workshop, report: Report, title: str, wanted: dict[str, list[str]], rounds: int) -> list[Round]:
    """Run a group of contenders interleaved and keep times and peaks in the report."""
    tell(f"{title}: {', '.join(wanted)}")
    with workshop.contenders(wanted) as contenders:
        result = interleaved(contenders, rounds, tell=tell)
        report.peaks |= {name: contender.last["peak_mib"] for name, contender in contenders.items()}
    report.add_rounds(title, result)
    if "sgemm" in wanted:
        report.facts["SGEMM rate, GFLOP/s"] = round(1e-9 / report.times["sgemm"], 1)
    return result


def tell(line: str) -> None:
    """Print progress where it does not mix with the table."""
    print(line, file=sys.stderr, flush=True)
