"""The contenders that run against each other, and the ratios taken among them."""

import os
import sys
import tempfile
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path

from benchmarks.channel import Contender
from benchmarks.data_files import unpacked
from benchmarks.interleave import best_of, interleaved, ratio, summary
from benchmarks.report import Report
from benchmarks.step_cost import training_flops

FULL_EPOCH = 859  # steps of 64 images in 55,000; the last, shorter batch is left out
BATCH = 64


class Workshop:
    """A temporary folder with the data, where contenders are started; all end with it.

    Args:
        threads: Of every contender.
        device: "cpu" or "cuda".
        data: Folder that holds FashionMNIST/raw. Default: DATA_DIR, else ``data``.
    """

    def __init__(self, threads: int, device: str = "cpu", data: Path | None = None) -> None:
        self.threads, self.device = threads, device
        self._stack = ExitStack()
        self.folder = Path(self._stack.enter_context(tempfile.TemporaryDirectory()))
        (self.folder / "data").mkdir()
        self.data = unpacked(self.folder / "data", data)

    def __enter__(self) -> "Workshop":
        return self

    def __exit__(self, *_error: object) -> None:
        self._stack.close()

    @contextmanager
    def contenders(self, wanted: dict[str, list[str]], python: dict[str, str] | None = None) -> Iterator[dict]:
        """Start the contenders: name -> [file in ``subjects``, arguments ...]."""
        started: dict[str, Contender] = {}
        try:
            for name, (subject, *arguments) in wanted.items():
                common = [] if subject == "sgemm" else [f"--data={self.data}", f"--device={self.device}"]
                started[name] = Contender(
                    name,
                    f"benchmarks.subjects.{subject}",
                    common + arguments,
                    self.threads,
                    python=(python or {}).get(name, sys.executable),
                    folder=self.folder,
                    environment={} if self.device == "cpu" else {"CUDA_VISIBLE_DEVICES": _visible_gpus()},
                )
            yield started
        finally:
            for contender in started.values():
                contender.close()


def run_group(
    workshop: Workshop,
    report: Report,
    title: str,
    wanted: dict[str, list[str]],
    rounds: int,
    python: dict[str, str] | None = None,
) -> list[dict[str, float]]:
    """Run a group of contenders interleaved and keep times and peaks in the report."""
    tell(f"{title}: {', '.join(wanted)}")
    with workshop.contenders(wanted, python) as contenders:
        result = interleaved(contenders, rounds, tell=tell)
        for name, contender in contenders.items():
            report.peaks[name] = contender.last["peak_mib"]
    report.add_rounds(title, result)
    if "sgemm" in wanted:
        report.facts["SGEMM rate, GFLOP/s"] = round(1e-9 / report.times["sgemm"], 1)
    return result


def against_plain_pipelines(workshop: Workshop, report: Report, rounds: int, steps: int = 100) -> None:
    """Ours, a plain in-memory loop and naive Lightning; and the share of the machine's SGEMM rate that we reach."""
    size = f"--steps={steps}"
    wanted = {
        "sgemm": ["sgemm"],
        "ours": ["our_loop", size],
        "ours again": ["our_loop", size],
        "ours in bfloat16": ["our_loop", "--steps=10", "--bf16"],  # where it is slow a step takes a fifth of a second
        "plain loop": ["plain_loop", size],
        "naive Lightning, 0 workers": ["naive_lightning", size, "--workers=0"],
        "naive Lightning, 2 workers": ["naive_lightning", size, "--workers=2"],
    }
    result = run_group(workshop, report, "plain pipelines", wanted, rounds)
    naive = best_of(result, [name for name in wanted if name.startswith("naive")])
    flops = training_flops(BATCH)
    report.ratios += [
        (ratio("A/A null: ours again / ours", result, "ours again", "ours"), "1"),
        (ratio(f"{naive} / ours", result, naive, "ours"), "at least 2.2, aim 2.8"),
        (ratio("plain in-memory loop / ours", result, "plain loop", "ours"), "at least 1.9, aim 2.6"),
        (ratio("ours in bfloat16 / ours", result, "ours in bfloat16", "ours"), "none"),
        (
            summary("training FLOP/s / SGEMM FLOP/s", [flops * times["sgemm"] / times["ours"] for times in result]),
            "at least 0.35, aim 0.5",
        ),
    ]
    report.facts["operations per training step, MFLOP"] = round(flops / 1e6, 1)


def sgemm_alone(workshop: Workshop, report: Report, rounds: int = 9) -> None:
    """The machine's own rate of matrix multiplication, as a fact of the report."""
    run_group(workshop, report, "sgemm", {"sgemm": ["sgemm"]}, rounds)


def through_lightning(workshop: Workshop, report: Report, rounds: int, steps: int) -> None:
    """Epochs without validation: ``fmnist fit``, with its logging, against the same step in a bare loop."""
    size = f"--steps={steps}"
    wanted = {"bare loop": ["our_loop", size], "Lightning": ["our_lightning", size]}
    result = run_group(workshop, report, "epochs", wanted, rounds)
    report.ratios.append(
        (ratio("ours through Lightning / bare loop", result, "Lightning", "bare loop"), "at most 1.03, aim 1.015")
    )


def lightning_alone(workshop: Workshop, report: Report, rounds: int = 9, steps: int = 800) -> None:
    """Milliseconds of Lightning's own work per step, from a network of one linear layer, with and without it."""
    size = f"--steps={steps}"
    layers = ["--model=--model.conv_channels=[]", "--model=--model.hidden_units=[]"]
    wanted = {
        "linear layer, bare loop": ["our_loop", size, "--linear"],
        "linear layer, Lightning": ["our_lightning", size, *layers],
    }
    result = run_group(workshop, report, "Lightning alone", wanted, rounds)
    bare, lightning = wanted
    added = summary("Lightning alone", [1e3 * (times[lightning] - times[bare]) for times in result])
    report.facts["Lightning's own work, ms per step"] = str(added)


def what_monitors_add(workshop: Workshop, report: Report, rounds: int, steps: int = 10) -> None:
    """What monitors add to an epoch with validation, images and checkpoint, over the time of a whole one without them.

    They work once per epoch, so epochs of a few steps do, and the steps' own noise stays small; the images of a hundred
    are there for the gap's sample. On and off alternate within one process: processes differ from each other by more
    than the monitors cost, through where their memory happens to lie. A whole epoch is a short one without monitors
    plus the steps that it lacks, at the pace that a hundred steps take in the same round.
    """
    common = ["our_lightning", "--steps=100", f"--only={steps}", "--validation", "--alternate"]
    wanted = {
        "no monitors": [*common, "--monitors=off"],
        "dead and histogram monitors": [*common, "--monitors=dead+hist"],
        "all monitors": [*common, "--monitors=all"],
    }
    pace = "a hundred steps"
    tell(f"seconds added: {', '.join(wanted)}")
    with workshop.contenders({pace: ["our_lightning", "--steps=100"], **wanted}) as contenders:
        phases = {f"{name}, {phase}": contenders[name] for name in wanted for phase in ("off", "on")}
        result = interleaved({pace: contenders[pace], **phases}, rounds, tell=tell)
        for name in wanted:
            report.peaks[f"{name}, on"] = contenders[name].last["peak_mib"]
    report.add_rounds("seconds added", result)

    def whole(times: dict[str, float], name: str) -> float:
        return (FULL_EPOCH - steps) * times[pace] + steps * times[f"{name}, off"]

    epoch = summary("whole epoch", [whole(times, "no monitors") for times in result])
    report.facts["whole epoch without monitors, s"] = str(epoch)
    for title, name, target in (
        ("A/A null: nothing on / off", "no monitors", "1"),
        ("dead and histogram monitors on / off", "dead and histogram monitors", "at most 1.01, aim 1.005"),
        ("all monitors on / off", "all monitors", "at most 1.05, aim 1.03"),
    ):
        added = [steps * (times[f"{name}, on"] - times[f"{name}, off"]) for times in result]
        report.facts[f"{title}, seconds added"] = str(summary(title, added))
        shares = [1 + seconds / whole(times, name) for seconds, times in zip(added, result, strict=True)]
        report.ratios.append((summary(title, shares), target))


def tell(line: str) -> None:
    """Print progress where it does not mix with the table."""
    print(line, file=sys.stderr, flush=True)


def _visible_gpus() -> str:
    return os.environ.get("CUDA_VISIBLE_DEVICES", "0")
