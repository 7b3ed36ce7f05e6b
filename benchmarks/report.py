"""Results, and the machine they were measured on, as a Markdown table and as JSON."""

import datetime
import json
import os
import platform
import statistics
from collections.abc import Sequence
from dataclasses import asdict, dataclass, field
from importlib.metadata import version
from pathlib import Path
from typing import Any

from benchmarks.interleave import Ratio, Round


def machine(threads: int) -> dict[str, Any]:
    """Processor, cores, threads used, load at the start, memory, versions, time."""
    cpuinfo = Path("/proc/cpuinfo")
    lines = (line.partition(":") for line in cpuinfo.read_text().splitlines()) if cpuinfo.exists() else ()
    cpu = {name.strip(): value.strip() for name, _, value in lines}
    known = f"{cpu.get('model name')} (family {cpu.get('cpu family')}, model {cpu.get('model')})"
    return {
        "processor": known if cpu else platform.processor() or platform.machine(),
        "cores": os.cpu_count(),
        "threads": threads,
        "load": [round(value, 2) for value in os.getloadavg()],
        "memory_gib": round(os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") / 2**30, 1),
        "system": platform.platform(),
        "python": platform.python_version(),
        **{name: version(name) for name in ("torch", "torchvision", "pytorch_lightning", "numpy")},
        "measured": datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds"),
    }


@dataclass
class Report:
    """What a benchmark found.

    Args:
        machine: From `machine`.
    """

    machine: dict[str, Any]
    ratios: list[tuple[Ratio, str]] = field(default_factory=list)  # with the target in words
    times: dict[str, float] = field(default_factory=dict)  # contender -> median seconds per step
    peaks: dict[str, float] = field(default_factory=dict)  # contender -> peak MiB
    facts: dict[str, Any] = field(default_factory=dict)
    rounds: dict[str, list[Round]] = field(default_factory=dict)

    def add_rounds(self, name: str, rounds: Sequence[Round]) -> None:
        """Keep a group's rounds and the medians of its contenders."""
        self.rounds[name] = list(rounds)
        for contender in rounds[0]:
            self.times[contender] = statistics.median(times[contender] for times in rounds)

    def markdown(self) -> str:
        """The machine, the ratios and the contenders."""
        where = self.machine
        lines = [
            f"{where['processor']}, {where['threads']} of {where['cores']} cores, load {where['load'][0]} at start, "
            f"torch {where['torch']}, {where['measured']}",
            "",
            "| ratio | median | 95 % interval | n | target |",
            "| --- | ---: | --- | ---: | --- |",
        ]
        for value, target in self.ratios:
            interval = f"{value.low:.3f} to {value.high:.3f}"
            lines.append(f"| {value.name} | {value.median:.3f} | {interval} | {value.rounds} | {target} |")
        lines += ["", "| contender | ms per step | peak MiB |", "| --- | ---: | ---: |"]
        for name, seconds in self.times.items():
            if name != "sgemm":
                peak = f"{self.peaks[name]:.0f}" if name in self.peaks else ""
                lines.append(f"| {name} | {seconds * 1e3:.2f} | {peak} |")
        lines += ["", *(f"- {name}: {value}" for name, value in self.facts.items())]
        return "\n".join(lines)

    def write(self, path: Path) -> None:
        """Write everything, each round included, as JSON."""
        content = {
            "machine": self.machine,
            "ratios": [{**asdict(value), "target": target} for value, target in self.ratios],
            "seconds_per_step": self.times,
            "peak_mib": self.peaks,
            "facts": self.facts,
            "rounds": self.rounds,
        }
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(json.dumps(content, indent=1) + "\n", encoding="utf-8")
