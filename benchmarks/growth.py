"""How costs grow: with the training set, the width, the number of ReLU sites, and the number of epochs logged."""

from benchmarks.groups import FULL_EPOCH, Workshop, run_group, tell
from benchmarks.interleave import ratio
from benchmarks.logged_epochs import logged_epochs
from benchmarks.report import Report

STEPS = 100  # of a round, whatever the size: the monitors work once per epoch
SIZES: dict[str, tuple[int, list[str]]] = {  # name -> copies of the training set, options of the network
    "baseline": (1, []),
    "width x4": (1, ["--model.conv_channels=[256,128]", "--model.hidden_units=[1024]"]),
    "sites x10": (1, [f"--model.hidden_units={[256] * 28}".replace(" ", "")]),
    "training set x10": (10, []),
}


def grow(workshop: Workshop, report: Report, rounds: int) -> None:
    """Epochs with monitors off and on at each size; ratios within the rounds of a size.

    A round trains `STEPS` steps, with the whole training set at hand and the whole validation pass and sample, so the
    monitors' part is taken of a full epoch's time: the step without validation for the steps left out, plus the round.
    """
    for name, (copies, options) in SIZES.items():
        _one_size(workshop, report, name, copies, options, rounds)
    report.facts["logged epochs"] = logged_epochs(workshop)


def _one_size(workshop: Workshop, report: Report, name: str, copies: int, options: list[str], rounds: int) -> None:
    epoch = FULL_EPOCH * copies
    common = [f"--steps={epoch}", f"--only={STEPS}", f"--repeat={copies}", *(f"--model={option}" for option in options)]
    off, monitored, alone = (f"{name}, {what}" for what in ("off", "all monitors", "steps alone"))
    wanted = {
        off: ["our_lightning", *common, "--validation"],
        monitored: ["our_lightning", *common, "--validation", "--monitors=all"],
        alone: ["our_lightning", *common],
    }
    result = run_group(workshop, report, name, wanted, rounds)
    rest = epoch - STEPS
    full = [{what: times[what] * STEPS + rest * times[alone] for what in (off, monitored)} for times in result]
    report.ratios.append((ratio(f"{name}: all monitors / off, per full epoch", full, monitored, off), "at most 1.05"))
    report.facts[f"{name}: seconds per full epoch, monitors off"] = round(
        sorted(times[off] for times in full)[len(full) // 2], 2
    )
    added = sorted(STEPS * (times[monitored] - times[off]) for times in result)[len(result) // 2]
    report.facts[f"{name}: seconds that monitors add to an epoch"] = round(added, 2)
    tell(f"{name}: {report.ratios[-1][0]}")
