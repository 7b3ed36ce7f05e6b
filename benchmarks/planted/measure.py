"""Ours and each peer on the planted network: what they find, what they change, what they cost."""

import json
import os
import re
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

from benchmarks.interleave import ratio
from benchmarks.planted.network import BATCH, DEAD, FORMS, examples
from benchmarks.planted.network import count as independent_count
from benchmarks.results_table import Report
from benchmarks.workshop import Workshop, run_group, tell

VENVS = Path(".venv-monitors")
SEEDS = (0, 1)  # of the weights, the examples and the training: the second run checks the first
STATES = {  # whether the tool says what its numbers were measured on, where it says so
    "ours": "yes: n examples",
    "traintools": "n rows",
    "ormas-monitor": "checks",
    "torchlens": "no: it warns that one trace says little",
}
ROWS = {  # peer -> what it is asked for
    "ours": "`DeadReLUMonitor`",
    "ours, all three": "with histograms and gap",
    "ormas-monitor": "Lightning callback, defaults: 4 checks of 1 batch",
    "ormas-monitor, widest": "`check_every=1, patience=16`: every batch",
    "traintools": "`PlasticityProbe`, defaults: 1,024 rows",
    "traintools, widest": "`max_samples` without bound",
    "torchdiag": "`check_dead_neurons`, all examples as one batch",
    "torchlens": "`debug.dead_neurons`, all examples as one batch, `eval()` by the user",
    "dead-relu-viz": "`visualization(with_activation=True)`: Conv2d and Linear outputs, per position",
    "torchmortem": "`Autopsy`: outputs near 0, per element",
    "torch-audit": "`autopatch`, once per epoch: outputs of 0, per element",
    "neuraldbg": "`NeuralDbg`: 0 for all of the last batch, per position",
    "fastai": "`ActivationStats`: outputs below 0.05, per element",
    "wandb": "`watch(log='all')` once per epoch, offline: no dead units",
}


def planted(workshop: Workshop, report: Report, rounds: int) -> None:
    """Count in both forms with each of `SEEDS`, then time epochs of the easy form."""
    for seed in SEEDS:
        check_truth(seed)
    crashed = counts(workshop, report, list(ROWS))
    costs(workshop, report, rounds, [peer for peer in ROWS if peer not in crashed])


def counts(workshop: Workshop, report: Report, peers: list[str]) -> set[str]:
    """Add what each finds; return those that cannot run the easy form."""
    truth = ", ".join(str(len(units)) for units in DEAD.values())
    head = ["tool", "asked for", f"easy: {truth}", "hard: the same"]
    report.tables["dead units found"] = [[*head, "units named", "window stated", "weights same", "buffers same"]]
    crashed = set()
    with ThreadPoolExecutor(os.cpu_count()) as pool:  # nothing is timed
        runs = {(p, f, s): pool.submit(_count, workshop, p, f, s) for p in peers for f in FORMS for s in SEEDS}
        for peer in peers:
            found = {form: [runs[peer, form, seed].result() for seed in SEEDS] for form in FORMS}
            report.facts[f"{peer}, found"] = found
            crashed |= {peer} if "error" in found["easy"][0] else set()
            report.tables["dead units found"].append([_title(peer), ROWS[peer], *cells(peer, found)])
            tell(" | ".join(report.tables["dead units found"][-1]))
    return crashed


def costs(workshop: Workshop, report: Report, rounds: int, peers: list[str]) -> None:
    """Add what each makes of an epoch's time: fastai's beside its own loop, the others beside Lightning's."""
    names = ["off", "off, again", *peers, *["fastai, off"] * ("fastai" in peers)]
    wanted = {name: [f"{_python(name)}:planted", f"--peer={name}"] for name in names}
    result = run_group(workshop, report, "epochs of the easy form", wanted, rounds)
    for name in ["off, again", *peers]:
        base = "fastai, off" if name == "fastai" else "off"
        report.ratios.append((ratio(f"{name} / {base}, per epoch", result, name, base), "none"))


def check_truth(seed: int) -> None:
    """Fail if the network's dead units are not those that it was built with, in either mode and form."""
    batches = list(examples(seed)[0].split(BATCH))
    for form, network in FORMS.items():
        for training in (True, False):
            counts = independent_count(network(seed).train(training), batches)
            dead = {site: [unit for unit, n in enumerate(fired) if n == 0] for site, fired in counts.items()}
            if dead != DEAD:
                raise RuntimeError(f"planted {DEAD}, but {form} with seed {seed} has {dead}")


def _python(peer: str) -> str:
    python = VENVS.absolute() / peer.partition(",")[0] / "bin/python"
    return str(python) if python.exists() else sys.executable


def _title(peer: str) -> str:
    package, comma, variant = peer.partition(",")
    requirements = Path(__file__).with_name("requirements.txt").read_text()
    pinned = re.search(rf"^{package}(?:\[.*\])?==(\S+)", requirements, re.MULTILINE)
    return package + (f" {pinned[1]}" if pinned else "") + comma + variant


def _count(workshop: Workshop, peer: str, form: str, seed: int) -> dict[str, Any]:
    """The subject's answer, or the last line of what it said as it failed."""
    command = [_python(peer), "-W", "ignore", "-m", "benchmarks.subjects.planted", f"--data={workshop.data}"]
    command += [f"--peer={peer}", f"--form={form}", f"--seed={seed}"]
    done = subprocess.run(command, cwd=workshop.folder, env=workshop.environment, capture_output=True, text=True)
    if done.returncode != 0:
        log = VENVS / peer.partition(",")[0] / "pip.log"
        missing = "ModuleNotFoundError" in done.stderr and log.exists() and "ERROR" in log.read_text()
        return {"error": (log.read_text() if missing else done.stderr).strip().splitlines()[-1]}
    return dict(json.loads(done.stdout.splitlines()[-1]))


def cells(peer: str, found: dict[str, list[dict[str, Any]]]) -> list[str]:
    """Found per form; units named; window stated; weights and buffers identical."""
    cells = [" / ".join(dict.fromkeys(_numbers(answer) for answer in answers)) for answers in found.values()]
    answers = [answer for form in found.values() for answer in form if "error" not in answer]
    if not answers:
        return [*cells, "", "", "", ""]
    whole = [answer["found"].values() for answer in answers if len(answer["found"]) == len(DEAD)]
    lists = [pair for found in whole for pair in zip(found, DEAD.values(), strict=True) if isinstance(pair[0], list)]
    wrong = any(found != true for found, true in lists if len(found) == len(true))
    named = ("**wrong ones**" if wrong else "yes") if lists else "no"
    same = ["yes" if all(answer[kind] for answer in answers) else "**no**" for kind in ("parameters", "buffers")]
    return [*cells, named, STATES.get(peer.partition(",")[0], "no"), *same]


def _numbers(answer: dict[str, Any]) -> str:
    if "error" in answer:
        return f"crash: {answer['error'][:80]}"
    found = {
        name: str(len(units)) if isinstance(units, list) else str(units) for name, units in answer["found"].items()
    }
    if len(found) == len(DEAD):
        return ", ".join(found.values())
    return ", ".join(f"{name}: {value}" for name, value in found.items()) or "none"
