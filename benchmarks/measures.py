"""What is measured: which contenders run against each other, and the ratios taken among them."""

import os
import shutil
import statistics
import time
from collections.abc import Mapping
from pathlib import Path

import torch
from torch.utils.flop_counter import FlopCounterMode

from benchmarks.channel import METHODS
from benchmarks.interleave import Ratio, best_of, interleaved, ratio, summary
from benchmarks.results_table import Report
from benchmarks.subjects import stock
from benchmarks.workshop import Workshop, run_group, tell

FULL_EPOCH = 859  # steps of 64 images in 55,000; the last, shorter batch is left out
BATCH = 64
SGEMM = ["loop", "--what=sgemm"]
VARIANTS = ("deeper", "wider_kernels", "modern")  # whose steps are compared with the baseline's
CURES = ("standardized", "median_bias", "lsuv", "no_dropout_leaky")  # the same for `no_dropout`
CURES_PARTS = {"epochs": METHODS, "steps": CURES}
OURS, AGAIN = "ours, fmnist fit", "ours again, fmnist fit"
NULL = "A/A null: ours again / ours"
NOTHING, WHOLE = "A/A null: nothing", "whole epoch without monitors"
Watchers = dict[str, tuple[str, str, str]]  # name -> the contender's ``--monitors``, targets of ratio and seconds
HISTOGRAMS = "histograms of "  # measured over epochs of one step, beside which they can be seen
FOREIGN: dict[str, Watchers] = {  # by network
    "ResNet-18": {"all monitors": ("all", "at most 1.05", "none")},
    f"{HISTOGRAMS}ResNet-18": {
        "100 tensors, 10 million elements": ("hist-10", "none", "at most 0.1 s"),
        "100 tensors, 22 million elements": ("hist-22", "none", "none"),
    },
    "500 ReLU sites": {"dead monitor": ("dead", "none", "at most 1 s")},
}
EACH: Watchers = {
    "dead monitor": ("dead", "none", "none"),
    "histograms": ("hist", "none", "none"),
    "gap": ("gap", "none", "none"),
    "all monitors": ("all", "at most 1.05", "none"),
    "wandb.watch, once per epoch": ("wandb", "none", "none"),
    "torchmortem, every step": ("torchmortem", "none", "none"),
}
MODELS: dict[str, Watchers] = {  # torchmortem ends at the in-place ReLUs of torchvision's ResNet
    "ResNet-18": {name: what for name, what in EACH.items() if what[0] != "torchmortem"},
    "transformer": EACH,
    "U-Net": EACH,
}
PEERS = ("wandb", "torchmortem")
VENVS = Path(".venv-monitors").absolute()  # of the peers


def training_flops() -> int:
    """Floating-point operations of a training step: its convolutions and dense layers, forward and backward."""
    network = stock.network()
    with FlopCounterMode(display=False) as counter:
        network(torch.zeros(BATCH, 1, 28, 28)).sum().backward()
    return counter.get_total_flops()


def quick(workshop: Workshop, report: Report, rounds: int) -> None:
    """Without peers: start-up, against plain pipelines, through Lightning; the monitors in other people's models."""
    starts = []
    for _ in range(rounds):
        start = time.perf_counter()
        done = workshop.fit("--trainer.callbacks+=benchmarks.subjects.callbacks.FirstStep")
        starts.append(time.perf_counter() - start)
        if "first step" not in done.stdout:
            raise RuntimeError(f"fmnist fit did not reach a step:\n{done.stdout[-2000:]}{done.stderr[-2000:]}")
    started = summary("start", starts)
    report.facts["start of `fmnist fit` to the first step, s (at most 5, aim 4)"] = str(started)
    done = workshop.fit("--trainer.max_epochs=1", "--trainer.callbacks+=benchmarks.subjects.callbacks.PeakMemory")
    if done.returncode != 0:
        raise RuntimeError(done.stderr[-3000:])
    peak = done.stdout.partition("peak memory: ")[2].partition("\n")[0]
    report.facts["peak memory of `fmnist fit`, one epoch and the test (at most 1,100, aim 900)"] = peak
    _against_plain_pipelines(workshop, report, rounds, "--steps=50")
    # Epochs without validation: `fmnist fit`, with its logging, against the same step in a bare loop.
    wanted = {name: [subject, "--steps=300"] for name, subject in (("bare", "loop"), ("Lightning", "our_lightning"))}
    result = run_group(workshop, report, "epochs", wanted, rounds)
    through = ratio("ours through Lightning / bare loop", result, "Lightning", "bare")
    report.ratios.append((through, "at most 1.03, aim 1.015"))
    monitors_in_foreign_models(workshop, report, rounds)


def _against_plain_pipelines(workshop: Workshop, report: Report, rounds: int, size: str) -> None:
    """Ours, a plain in-memory loop and naive Lightning; and the fraction of the machine's SGEMM rate that we reach."""
    wanted = {
        "sgemm": SGEMM,
        "ours": ["loop", size],
        "ours again": ["loop", size],
        "ours in bfloat16": ["loop", "--steps=10", "--bf16"],  # where it is slow a step takes a fifth of a second
        "plain loop": ["loop", size, "--what=stock"],
        "plain loop, torch.compile": ["loop", size, "--what=compiled"],
        "naive Lightning, 0 workers": ["naive_lightning", size, "--workers=0"],
        "naive Lightning, 2 workers": ["naive_lightning", size, "--workers=2"],
    }
    if shutil.which(os.environ.get("CXX", "g++")) is None:
        report.facts["plain loop, torch.compile"] = "not measured: it needs a C++ compiler"
        del wanted["plain loop, torch.compile"]
    result = run_group(workshop, report, "plain pipelines", wanted, rounds)
    naive = best_of(result, [name for name in wanted if name.startswith("naive")])
    flops = training_flops()
    rates = [flops * times["sgemm"] / times["ours"] for times in result]
    report.ratios += [
        (ratio(NULL, result, "ours again", "ours"), "1"),
        (ratio(f"{naive} / ours", result, naive, "ours"), "at least 2.2, aim 2.8"),
        (ratio("plain in-memory loop / ours", result, "plain loop", "ours"), "at least 3.5, aim 4"),
        (ratio("ours in bfloat16 / ours", result, "ours in bfloat16", "ours"), "none"),
        (summary("training FLOP/s / SGEMM FLOP/s", rates), "at least 0.45, aim 0.55"),
    ]
    if (compiled := "plain loop, torch.compile") in wanted:
        report.ratios.append((ratio(f"{compiled} / ours", result, compiled, "ours"), "none"))
    report.facts["operations per training step, MFLOP"] = round(flops / 1e6, 1)


def what_monitors_add(workshop: Workshop, report: Report, rounds: int, steps: int = 10) -> None:
    """What monitors add to an epoch of the baseline; the images of a hundred steps are there for the gap's sample."""
    wanted = {
        "dead and histogram monitors": ("dead+hist", "at most 1.01, aim 1.005", "none"),
        "all monitors": ("all", "at most 1.05, aim 1.04", "none"),
    }
    alone = ["our_lightning", "--steps=100"]
    add_monitors(workshop, report, rounds, "baseline", alone, [*alone, f"--only={steps}"], wanted, FULL_EPOCH, steps)


def monitors_in_foreign_models(
    workshop: Workshop,
    report: Report,
    rounds: int,
    networks: Mapping[str, Watchers] = FOREIGN,
    steps: int = 10,
) -> None:
    """What monitors add to an epoch of 6,400 examples and a tenth as many for validation, in models not ours."""
    for title, watchers in workshop.parts(networks).items():
        wanted = {name: w for name, w in watchers.items() if w[0] not in PEERS or (VENVS / w[0]).exists()}
        for name in watchers.keys() - wanted.keys():
            report.facts[f"{title}: {name}"] = "not measured: `make bench-monitors` installs it"
        network = title.removeprefix(HISTOGRAMS)
        each = steps if network == title else 1
        short = ["foreign_lightning", f"--network={network}", f"--steps={each}"]
        add_monitors(workshop, report, rounds, title, short, short, wanted, 100, each)


def add_monitors(
    workshop: Workshop,
    report: Report,
    rounds: int,
    title: str,
    alone: list[str],
    short: list[str],
    wanted: Watchers,
    epoch: int,
    steps: int,
) -> dict[str, Ratio]:
    """Add to the report what monitors add to an epoch with validation: its time over one without them, and seconds.

    They work once per epoch, so epochs of a few steps do, and the steps' own noise stays small. On and off alternate
    within one process: processes differ from each other by more than the monitors cost, through where their memory
    happens to lie. A whole epoch is a short one without monitors plus the steps that it lacks, at the pace of steps
    without validation in the same round. With nothing switched, the same gives the null.

    ``alone`` sets the pace, ``short`` has epochs of ``steps`` rather than ``epoch`` steps. What a peer that works in
    every step adds counts for each of ``epoch``. Returns seconds: of a whole epoch without monitors, and added.
    """
    wanted = {NOTHING: ("off", "1", "0 s"), **wanted}
    pace, names = f"{title}: steps alone", [f"{title}: {name}" for name in wanted]
    commands = [
        [*_with_python_of(monitors, short), "--validation", "--alternate", f"--monitors={monitors}"]
        for monitors, *_ in wanted.values()
    ]
    tell(f"seconds added: {', '.join(names)}")
    with workshop.contenders({pace: alone, **dict(zip(names, commands, strict=True))}) as contenders:
        phases = {f"{name}, {phase}": contenders[name] for name in names for phase in ("off", "on")}
        result = interleaved({pace: contenders[pace], **phases}, rounds, tell=tell)
        report.peaks |= {f"{name}, on": contenders[name].last["peak_mib"] for name in names}
    report.add_rounds(title, result)
    seconds = dict[str, Ratio]()
    for (what, (monitors, target, limit)), name in zip(wanted.items(), names, strict=True):
        watched = epoch if monitors == "torchmortem" else steps
        added = [watched * (times[f"{name}, on"] - times[f"{name}, off"]) for times in result]
        whole = [(epoch - steps) * times[pace] + steps * times[f"{name}, off"] for times in result]
        ratios = [1 + more / full for more, full in zip(added, whole, strict=True)]
        seconds[what] = summary(f"{name}, seconds added to an epoch", added)
        report.ratios += [(summary(f"{name} on / off", ratios), target), (seconds[what], limit)]
    seconds[WHOLE] = summary(f"{title}: {WHOLE}", whole)
    report.facts[f"{title}: {WHOLE}, s"] = str(seconds[WHOLE])
    return seconds


def _with_python_of(monitors: str, command: list[str]) -> list[str]:
    python = f"{VENVS / monitors}/bin/python:" if monitors in PEERS else ""
    return [python + command[0], *command[1:]]


def monitors_and_peers(workshop: Workshop, report: Report, rounds: int) -> None:
    """Each monitor alone and all of them, beside peers, in a ResNet, a transformer and a U-Net."""
    monitors_in_foreign_models(workshop, report, rounds, MODELS)


def steps_of_variants(workshop: Workshop, report: Report, rounds: int, steps: int = 50) -> None:
    """Steps of `fmnist fit` with each variant, without validation and monitors, beside the baseline's."""
    variants = {"baseline": "baseline", "baseline again": "baseline", **{name: name for name in VARIANTS}}
    common = ["our_lightning", f"--steps={FULL_EPOCH}", f"--only={steps}"]
    wanted = {name: [*common, f"--model=--variant={variant}"] for name, variant in variants.items()}
    stock = {name: f"{name}, stock layers" for name in ("baseline", *VARIANTS)}
    wanted |= {stock[name]: [*wanted[name], "--stock"] for name in stock}
    result = run_group(workshop, report, "steps of variants", wanted, rounds)
    for name in (*VARIANTS, "baseline again"):
        report.ratios.append((ratio(f"{name} / baseline, per step", result, name, "baseline"), "none"))
    for name in stock:
        report.ratios.append((ratio(f"{stock[name]} / with kernels", result, stock[name], name), "none"))


def what_cures_add(workshop: Workshop, report: Report, rounds: int, steps: int = 10) -> None:
    """What `ReviveUnits` adds to an epoch of `no_dropout`, and what a step takes with each of the other cures."""
    if "epochs" in workshop.parts(CURES_PARTS):
        wanted = {method: (method, "at most 1.02", "none") for method in METHODS}
        alone = ["our_lightning", "--steps=100", "--model=--variant=no_dropout"]
        add_monitors(
            workshop, report, rounds, "no_dropout", alone, [*alone, f"--only={steps}"], wanted, FULL_EPOCH, steps
        )
    if "steps" in workshop.parts(CURES_PARTS):
        _steps_of_cures(workshop, report, rounds)


def _steps_of_cures(workshop: Workshop, report: Report, rounds: int, turns: int = 3) -> None:
    """Steps with cures; new processes in each round, since two of the same differ by more than the cures cost.

    The one that is started first is the fastest, by some per cent, so each is the first in turn.
    """
    variants = {"no_dropout": "no_dropout", "no_dropout again": "no_dropout", **{name: name for name in CURES}}
    common = ["our_lightning", f"--steps={FULL_EPOCH}", "--only=50"]
    commands = {name: [*common, f"--model=--variant={variant}"] for name, variant in variants.items()}
    result, names = [], list(variants)
    for number in range(rounds):
        first = number % len(names)
        order = {name: commands[name] for name in (*names[first:], *names[:first])}
        found = run_group(workshop, report, "steps of cures", order, turns)
        result.append({name: statistics.median(times[name] for times in found) for name in variants})
    report.add_rounds("steps of cures", result)
    for name in (*CURES, "no_dropout again"):
        report.ratios.append((ratio(f"{name} / no_dropout, per step", result, name, "no_dropout"), "at most 1.02"))


def against_keras(workshop: Workshop, report: Report, rounds: int) -> None:
    """Every Keras setting and ours, interleaved; the ratio is that of the setting with the lowest median."""
    size = "--steps=200"
    settings = {
        "Keras, default": [size],
        "Keras, 50 steps per execution": [size, "--steps-per-execution=50"],
        "Keras, tf.data": [size, "--dataset"],
        "Keras, tf.data, 50 steps per execution": [size, "--dataset", "--steps-per-execution=50"],
        "Keras, XLA": ["--steps=5", "--jit"],  # a step takes seconds
    }
    wanted = {name: ["our_lightning", size] for name in (OURS, AGAIN)}
    wanted |= {
        name: [f"{workshop.peers_python.absolute()}:keras_fit", *arguments] for name, arguments in settings.items()
    }
    result = run_group(workshop, report, "peers", wanted, rounds)
    best = best_of(result, list(settings))
    report.ratios.append((ratio(NULL, result, AGAIN, OURS), "1"))
    for name in sorted(settings, key=lambda name: name != best):
        target = "at least 1.25, aim 1.4" if name == best else "none"
        report.ratios.append((ratio(f"{name} / ours", result, name, OURS), target))


def profile(workshop: Workshop, report: Report, rounds: int) -> None:
    """Lightning's own work per step, with a network of one linear layer; then the operations of ours."""
    size, bare, lightning = "--steps=800", "linear layer, bare loop", "linear layer, Lightning"
    layers = ["--model=--model.conv_channels=[]", "--model=--model.hidden_units=[]"]
    wanted = {bare: ["loop", size, "--what=linear"], lightning: ["our_lightning", size, *layers]}
    result = run_group(workshop, report, "Lightning alone", wanted, rounds)
    added = summary("Lightning alone", [1e3 * (times[lightning] - times[bare]) for times in result])
    report.facts["Lightning's own work, ms per step (at most 0.5, aim 0.4)"] = str(added)
    from benchmarks.step_profile import profile_step  # late: children inherit this process's peak memory

    profile_step(workshop, report, BATCH, training_flops())


def on_gpu(workshop: Workshop, report: Report, rounds: int) -> None:
    """Ratios of whole epochs on a CUDA device, host synchronisations inside an epoch, and the time of ten epochs."""
    report.facts["device"] = torch.cuda.get_device_name()
    size, eager = f"--steps={FULL_EPOCH}", "resident eager loop"
    naive = {
        f"naive Lightning, {workers} workers": ["naive_lightning", size, f"--workers={workers}"]
        for workers in sorted({0, 4, min(16, os.cpu_count() or 1)})
    }
    wanted = {OURS: ["our_lightning", size], AGAIN: ["our_lightning", size], eager: ["loop", size, "--what=stock"]}
    result = run_group(workshop, report, "gpu", {**wanted, **naive}, rounds)
    best = best_of(result, list(naive))
    report.ratios += [
        (ratio(NULL, result, AGAIN, OURS), "1"),
        (ratio(f"{best} / ours", result, best, OURS), "at least 8, aim 20"),
        (ratio(f"{eager} / ours", result, eager, OURS), "at least 1.0, aim 2.5"),
    ]
    on_device = "--trainer.accelerator=gpu"
    callback = "--trainer.callbacks+=benchmarks.subjects.callbacks.NoSynchronisation"
    done = workshop.fit(on_device, "--trainer.max_epochs=2", callback)
    found = "0" if done.returncode == 0 else "at least 1: " + done.stderr.strip().splitlines()[-1]
    report.facts["host synchronisations inside a training epoch"] = found
    start = time.perf_counter()
    done = workshop.fit(on_device, "--trainer.max_epochs=10")
    if done.returncode != 0:
        raise RuntimeError(done.stderr[-3000:])
    report.facts["10 epochs of the baseline, s (at most 15, aim 5)"] = round(time.perf_counter() - start, 1)
