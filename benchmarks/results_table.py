"""Results, and the machine they were measured on, as a Markdown table and as JSON."""

import datetime
import json
import os
import platform
import statistics
from collections.abc import Sequence
from dataclasses import dataclass, field
from importlib.metadata import version
from pathlib import Path
from typing import Any

import torch

from benchmarks.interleave import Ratio, Round


def machine(threads: int) -> dict[str, Any]:
    """Processor and its vector instructions, cores, threads used, load at the start, memory, versions, time."""
    cpuinfo = Path("/proc/cpuinfo")
    lines = (line.partition(":") for line in cpuinfo.read_text().splitlines()) if cpuinfo.exists() else ()
    cpu = {name.strip(): value.strip() for name, _, value in lines}
    known = f"{cpu.get('model name')} (family {cpu.get('cpu family')}, model {cpu.get('model')})"
    return {
        "processor": known if cpu else platform.processor() or platform.machine(),
        "vector_instructions": torch.backends.cpu.get_cpu_capability(),
        "cores": os.cpu_count(),
        "threads": threads,
        "load": [round(value, 2) for value in os.getloadavg()],
        "memory_gib": round(os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") / 2**30, 1),
        "system": platform.platform(),
        "python": platform.python_version(),
        **{name: version(name) for name in ("torch", "torchvision", "pytorch_lightning", "numpy", "numba")},
        "measured": datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds"),
    }


@dataclass
class Curve:
    """What grows along an axis: a name, and the value at each size."""

    name: str
    points: list[tuple[float, Ratio]]


@dataclass
class Report:
    """What a benchmark found, on which `machine`."""

    machine: dict[str, Any]
    ratios: list[tuple[Ratio, str]] = field(default_factory=list)  # with the target in words
    times: dict[str, float] = field(default_factory=dict)  # contender -> median seconds per step
    best: dict[str, float] = field(default_factory=dict)  # contender -> least seconds per step
    peaks: dict[str, float] = field(default_factory=dict)  # contender -> peak MiB
    facts: dict[str, Any] = field(default_factory=dict)
    tables: dict[str, list[list[str]]] = field(default_factory=dict)  # title -> rows, the first of them the head
    rounds: dict[str, list[Round]] = field(default_factory=dict)
    curves: dict[str, list[Curve]] = field(default_factory=dict)  # axis -> its lines

    def add_rounds(self, name: str, rounds: Sequence[Round]) -> None:
        """Keep a group's rounds, and the medians and best rounds of its contenders."""
        self.rounds[name] = list(rounds)
        for contender in rounds[0]:
            self.times[contender] = statistics.median(times[contender] for times in rounds)
            self.best[contender] = min(times[contender] for times in rounds)

    def markdown(self) -> str:
        """The machine, the ratios and the contenders."""
        from fmnist_pl.compare.output import table  # late: children inherit the memory that scipy takes here

        where, ratios = self.machine, [["ratio", "median", "95 % interval", "best", "n", "target"]]
        for found, target in self.ratios:
            interval = f"{found.low:.3f} to {found.high:.3f}"
            best = "" if found.best is None else f"{found.best:.3f}"
            ratios.append([found.name, f"{found.median:.3f}", interval, best, str(found.rounds), target])
        contenders = [["contender", "ms per step, median", "best", "peak MiB"]]
        for name, seconds in self.times.items():
            if name != "sgemm":
                peak = f"{self.peaks[name]:.0f}" if name in self.peaks else ""
                contenders.append([name, f"{seconds * 1e3:.2f}", f"{self.best[name] * 1e3:.2f}", peak])
        head = (
            f"{where['processor']}, {where['vector_instructions']}, {where['threads']} of {where['cores']} cores, "
            f"load {where['load'][0]} at start, torch {where['torch']}, {where['measured']}"
        )
        tables = [f"{title}:\n\n{table(rows)}" for title, rows in self.tables.items()]
        facts = "\n".join(f"- {name}: {value}" for name, value in self.facts.items())
        tables += [table(rows) for rows in (ratios, contenders) if rows[1:]]
        return "\n\n".join([head, *tables, facts])

    def write(self, path: Path) -> None:
        """Write everything, each round included, as JSON."""
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(json.dumps(vars(self), indent=1, default=vars) + "\n", encoding="utf-8")
