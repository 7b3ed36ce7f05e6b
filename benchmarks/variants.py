"""What a training step of another variant costs, beside the baseline's."""

from benchmarks.groups import FULL_EPOCH, Workshop, run_group, tell
from benchmarks.interleave import ratio
from benchmarks.report import Report

COMPARED = ("deeper", "wider_kernels", "modern")
STEPS = 50  # of a round


def steps_of_variants(workshop: Workshop, report: Report, rounds: int) -> None:
    """Time steps of `fmnist fit` with each variant, without validation and monitors; ratios within the rounds."""
    variants = {"baseline": "baseline", "baseline again": "baseline", **{name: name for name in COMPARED}}
    wanted = {
        name: ["our_lightning", f"--steps={FULL_EPOCH}", f"--only={STEPS}", f"--model=--variant={variant}"]
        for name, variant in variants.items()
    }
    times = run_group(workshop, report, "steps of variants", wanted, rounds)
    for name in (*COMPARED, "baseline again"):
        report.ratios.append((ratio(f"{name} / baseline, per step", times, name, "baseline"), "none"))
        tell(f"{name}: {report.ratios[-1][0]}")
