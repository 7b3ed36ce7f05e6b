"""The contenders that run against each other, and the ratios taken among them."""

import gzip
import os
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path

import torch
from torch.utils.flop_counter import FlopCounterMode

from benchmarks.channel import ROOT, Contender
from benchmarks.interleave import best_of, interleaved, ratio, summary
from benchmarks.report import Report
from benchmarks.subjects import stock
from fmnist_pl.dataset.files import FASHION_MNIST, raw_folder

FULL_EPOCH = 859  # steps of 64 images in 55,000; the last, shorter batch is left out
BATCH = 64
SGEMM = ["loop", "--what=sgemm"]
VARIANTS = ("deeper", "wider_kernels", "modern")  # whose steps are compared with the baseline's


class Workshop:
    """A temporary folder with the data, where contenders are started; all end with it.

    Args:
        threads: Of every contender.
        device: "cpu" or "cuda".
        root: Folder that holds FashionMNIST/raw. Default: DATA_DIR, else ``data``.
        peers_python: The interpreter that has Keras.
    """

    def __init__(self, threads: int, device: str, root: Path | None, peers_python: Path) -> None:
        self.threads, self.device, self.peers_python = threads, device, peers_python
        self._stack = ExitStack()
        self.folder = Path(self._stack.enter_context(tempfile.TemporaryDirectory()))
        self.data = self.folder / "data"
        raw_folder(self.data).mkdir(parents=True)
        for file in FASHION_MNIST.all:  # torchvision and Keras want them unpacked
            source = raw_folder(root or Path(os.environ.get("DATA_DIR") or "data")) / file.name
            packed = source.with_name(f"{file.name}.gz")
            if not source.exists() and not packed.exists():
                raise SystemExit(f"{packed} is missing. Fetch it with `fmnist fit`, or name its folder in DATA_DIR.")
            content = source.read_bytes() if source.exists() else gzip.decompress(packed.read_bytes())
            (raw_folder(self.data) / file.name).write_bytes(content)

    def __enter__(self) -> "Workshop":
        return self

    def __exit__(self, *_error: object) -> None:
        self._stack.close()

    @contextmanager
    def contenders(self, wanted: dict[str, list[str]]) -> Iterator[dict[str, Contender]]:
        """Start the contenders: name -> [file in ``subjects``, arguments ...]."""
        started: dict[str, Contender] = {}
        try:
            for name, (subject, *arguments) in wanted.items():
                python = str(self.peers_python.absolute()) if subject == "keras_fit" else sys.executable
                started[name] = Contender(
                    name,
                    f"benchmarks.subjects.{subject}",
                    [f"--data={self.data}", f"--device={self.device}", *arguments],
                    self.threads,
                    python,
                    self.folder,
                    gpu=self.device == "cuda",
                )
            yield started
        finally:
            for contender in started.values():
                contender.close()

    def fit(self, *options: str) -> "subprocess.CompletedProcess[str]":
        """Run ``fmnist fit`` in the folder, with the threads and the data of the contenders."""
        command = [sys.executable, "-m", "fmnist_pl", "fit", f"--data.root={self.data}"]
        environment = {**os.environ, "PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": str(self.threads)}
        logs = f"--trainer.logger.init_args.save_dir={self.folder}/logs"
        return subprocess.run(
            [*command, logs, *options], cwd=self.folder, env=environment, capture_output=True, text=True
        )


def run_group(
    workshop: Workshop, report: Report, title: str, wanted: dict[str, list[str]], rounds: int
) -> list[dict[str, float]]:
    """Run a group of contenders interleaved and keep times and peaks in the report."""
    tell(f"{title}: {', '.join(wanted)}")
    with workshop.contenders(wanted) as contenders:
        result = interleaved(contenders, rounds, tell=tell)
        for name, contender in contenders.items():
            report.peaks[name] = contender.last["peak_mib"]
    report.add_rounds(title, result)
    if "sgemm" in wanted:
        report.facts["SGEMM rate, GFLOP/s"] = round(1e-9 / report.times["sgemm"], 1)
    return result


def quick(workshop: Workshop, report: Report, rounds: int) -> None:
    """Ours only, in under five minutes: start-up, against plain pipelines, through Lightning."""
    starts = [seconds_to_first_step(workshop) for _ in range(3)]
    report.facts["start of `fmnist fit` to the first step, s"] = f"{statistics.median(starts):.1f} (median of 3)"
    against_plain_pipelines(workshop, report, rounds, steps=50)
    through_lightning(workshop, report, rounds, steps=300)


def against_plain_pipelines(workshop: Workshop, report: Report, rounds: int, steps: int) -> None:
    """Ours, a plain in-memory loop and naive Lightning; and the fraction of the machine's SGEMM rate that we reach."""
    size = f"--steps={steps}"
    wanted = {
        "sgemm": SGEMM,
        "ours": ["loop", size],
        "ours again": ["loop", size],
        "ours in bfloat16": ["loop", "--steps=10", "--bf16"],  # where it is slow a step takes a fifth of a second
        "plain loop": ["loop", size, "--what=stock"],
        "naive Lightning, 0 workers": ["naive_lightning", size, "--workers=0"],
        "naive Lightning, 2 workers": ["naive_lightning", size, "--workers=2"],
    }
    result = run_group(workshop, report, "plain pipelines", wanted, rounds)
    naive = best_of(result, [name for name in wanted if name.startswith("naive")])
    flops = training_flops()
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


def training_flops() -> int:
    """Floating-point operations of a training step: its convolutions and dense layers, forward and backward."""
    network = stock.network()
    with FlopCounterMode(display=False) as counter:
        network(torch.zeros(BATCH, 1, 28, 28)).sum().backward()
    return counter.get_total_flops()


def sgemm_alone(workshop: Workshop, report: Report, rounds: int = 9) -> None:
    """The machine's own rate of matrix multiplication, as a fact of the report."""
    run_group(workshop, report, "sgemm", {"sgemm": SGEMM}, rounds)


def seconds_to_first_step(workshop: Workshop) -> float:
    """Wall time of ``fmnist fit`` from its start to its first training step, monitors on, data present."""
    start = time.perf_counter()
    done = workshop.fit("--trainer.callbacks+=benchmarks.subjects.callbacks.FirstStep")
    seconds = time.perf_counter() - start
    if "first step" not in done.stdout:
        raise RuntimeError(f"fmnist fit did not reach a step:\n{done.stdout[-2000:]}{done.stderr[-2000:]}")
    return seconds


def through_lightning(workshop: Workshop, report: Report, rounds: int, steps: int) -> None:
    """Epochs without validation: ``fmnist fit``, with its logging, against the same step in a bare loop."""
    size = f"--steps={steps}"
    wanted = {"bare loop": ["loop", size], "Lightning": ["our_lightning", size]}
    result = run_group(workshop, report, "epochs", wanted, rounds)
    report.ratios.append(
        (ratio("ours through Lightning / bare loop", result, "Lightning", "bare loop"), "at most 1.03, aim 1.015")
    )


def lightning_alone(workshop: Workshop, report: Report, rounds: int = 9, steps: int = 800) -> None:
    """Milliseconds of Lightning's own work per step, from a network of one linear layer, with and without it."""
    size = f"--steps={steps}"
    layers = ["--model=--model.conv_channels=[]", "--model=--model.hidden_units=[]"]
    wanted = {
        "linear layer, bare loop": ["loop", size, "--what=linear"],
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
        ratios = [1 + seconds / whole(times, name) for seconds, times in zip(added, result, strict=True)]
        report.ratios.append((summary(title, ratios), target))


def steps_of_variants(workshop: Workshop, report: Report, rounds: int, steps: int = 50) -> None:
    """Steps of `fmnist fit` with each variant, without validation and monitors, beside the baseline's."""
    variants = {"baseline": "baseline", "baseline again": "baseline", **{name: name for name in VARIANTS}}
    common = ["our_lightning", f"--steps={FULL_EPOCH}", f"--only={steps}"]
    wanted = {name: [*common, f"--model=--variant={variant}"] for name, variant in variants.items()}
    result = run_group(workshop, report, "steps of variants", wanted, rounds)
    for name in (*VARIANTS, "baseline again"):
        report.ratios.append((ratio(f"{name} / baseline, per step", result, name, "baseline"), "none"))


def against_keras(workshop: Workshop, report: Report, rounds: int, steps: int = 200) -> None:
    """Every Keras setting and ours, interleaved; the ratio is that of the setting with the lowest median."""
    size = f"--steps={steps}"
    settings = {
        "Keras, default": [size],
        "Keras, 50 steps per execution": [size, "--steps-per-execution=50"],
        "Keras, tf.data": [size, "--dataset"],
        "Keras, tf.data, 50 steps per execution": [size, "--dataset", "--steps-per-execution=50"],
        "Keras, XLA": ["--steps=5", "--jit"],  # a step takes seconds
    }
    ours, again = "ours, fmnist fit", "ours again, fmnist fit"
    wanted = {name: ["our_lightning", size] for name in (ours, again)}
    wanted |= {name: ["keras_fit", *arguments] for name, arguments in settings.items()}
    result = run_group(workshop, report, "peers", wanted, rounds)
    best = best_of(result, list(settings))
    targets = {again: "1", best: "at least 1.10, aim 1.25"}
    for name in (again, best, *(other for other in settings if other != best)):
        title = "A/A null: ours again / ours" if name == again else f"{name} / ours"
        report.ratios.append((ratio(title, result, name, ours), targets.get(name, "none")))


def tell(line: str) -> None:
    """Print progress where it does not mix with the table."""
    print(line, file=sys.stderr, flush=True)
