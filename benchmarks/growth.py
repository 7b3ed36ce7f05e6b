"""How costs grow: with the training set, the width, the number of ReLU sites, and the number of epochs logged."""

from benchmarks.groups import FULL_EPOCH, Workshop, run_group, tell
from benchmarks.interleave import ratio
from benchmarks.logged_epochs import logged_epochs
from benchmarks.report import Report

SIZES: dict[str, tuple[int, list[str]]] = {  # name -> steps of a round, options of the network
    "baseline": (FULL_EPOCH, []),
    "width x4": (100, ["--model.conv_channels=[256,128]", "--model.hidden_units=[1024]"]),
    "sites x10": (100, [f"--model.hidden_units={[256] * 28}".replace(" ", "")]),
}


def grow(workshop: Workshop, report: Report, rounds: int) -> None:
    """Epochs with monitors off and on at each size; ratios within the rounds of a size.

    A round of a size with fewer steps than an epoch still has the whole validation pass and sample, so the monitors'
    share is taken of a full epoch's time: 859 times the step without validation plus the difference.
    """
    for name, (steps, options) in SIZES.items():
        _one_size(workshop, report, name, steps, options, rounds)
    _training_set(workshop, report, rounds)
    report.facts["logged epochs"] = logged_epochs(workshop)


def _one_size(
    workshop: Workshop, report: Report, name: str, steps: int, options: list[str], rounds: int, repeat: int = 1
) -> None:
    common = [f"--steps={steps}", f"--repeat={repeat}", *(f"--model={option}" for option in options)]
    off, monitored, alone = (f"{name}, {what}" for what in ("off", "all monitors", "steps alone"))
    wanted = {
        off: ["our_lightning", *common, "--validation"],
        monitored: ["our_lightning", *common, "--validation", "--monitors=all"],
    }
    rest = FULL_EPOCH * repeat - steps  # steps of a full epoch that the round left out
    if rest:
        wanted[alone] = ["our_lightning", *common]
    # Minutes of training need no warm-up.
    result = run_group(workshop, report, name, wanted, rounds, warm_up=0 if repeat > 1 else 1)
    full = [{what: times[what] * steps + rest * times.get(alone, 0.0) for what in (off, monitored)} for times in result]
    report.ratios.append((ratio(f"{name}: all monitors / off, per full epoch", full, monitored, off), "at most 1.05"))
    report.facts[f"{name}: seconds per full epoch, monitors off"] = round(
        sorted(times[off] for times in full)[len(full) // 2], 2
    )
    tell(f"{name}: {report.ratios[-1][0]}")


def _training_set(workshop: Workshop, report: Report, rounds: int) -> None:
    _one_size(workshop, report, "training set x10", FULL_EPOCH * 10, [], max(1, rounds // 3), repeat=10)
