"""The command ``fmnist compare``."""

import argparse
import shlex
import signal
import sys
from pathlib import Path
from types import FrameType

from fmnist_pl.configuration import overlay_path, refuse_taken

# What the comparison decides for each run, by the option that says it.
_TAKEN = {
    "--variants": ("variant",),
    "--seeds": ("seed_everything",),
    "--logdir": ("trainer.logger.init_args.save_dir",),
    "`fmnist fit` alone for that": ("resume",),
}


def main(args: list[str]) -> int:
    """Run ``fmnist compare``: progress goes to standard error, the comparison to standard output and files.

    Returns:
        The exit status: 0; 1 if a run failed; 130 after Ctrl-C, 143 after SIGTERM, having said how to resume.
    """
    parsed, fit_options = _parser().parse_known_args(args)
    refuse_taken(fit_options, _TAKEN, "comparison")
    options = vars(parsed)  # named as the parameters of train_and_compare
    for variant in options["variants"]:
        overlay_path(variant)  # a mistyped one is reported before the seconds that importing torch takes
    options["reference"] = options["reference"] or options["variants"][0]
    given = {"trainer.max_epochs": options.pop("epochs"), "data.dataset": options.pop("dataset")}
    fit_options = [f"--{name}={value}" for name, value in given.items() if value is not None] + fit_options
    for number in (signal.SIGTERM, getattr(signal, "SIGHUP", signal.SIGTERM)):  # Windows has no SIGHUP
        if signal.getsignal(number) is signal.SIG_DFL:  # nohup ignores SIGHUP
            signal.signal(number, _interrupt)
    try:
        from fmnist_pl.compare.comparison import train_and_compare

        comparison = train_and_compare(**options, options=fit_options)
    except KeyboardInterrupt as interrupt:
        print(f"\nStopped. Finished runs are kept. Resume with: fmnist compare {shlex.join(args)}", file=sys.stderr)
        return 128 + (interrupt.args[0] if interrupt.args else signal.SIGINT)
    return 1 if any(run.failure is not None for run in comparison.runs) else 0


def _interrupt(number: int, frame: FrameType | None) -> None:
    raise KeyboardInterrupt(number)


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        "fmnist compare",
        description="Train every variant with every seed, skip what is finished already, and compare. Options that "
        "are not listed here are passed on to `fmnist fit`, for instance --data.batch_size=128.",
        epilog="Stopped or killed, the same command resumes. Status 1: a run failed; the table shows the others.",
        allow_abbrev=False,
    )
    add = parser.add_argument
    add("--variants", nargs="+", default=["baseline", "no_dropout", "sgd"], help="Packaged names or YAML overlays.")
    add("--seeds", nargs="+", type=int, default=[0, 1, 2, 3, 4])
    add("--epochs", type=int, help="Of every run. Default: each variant's own.")
    add("--dataset", choices=["fashion_mnist", "synthetic"], help="Default: the variants' own.")
    add("--reference", help="Variant that the others are compared to. Default: the first.")
    add("--jobs", type=int, default=1, help="Runs at a time; threads and GPUs are divided among them.")
    add("--logdir", type=Path, default=Path("lightning_logs"), help="Where runs leave and find their folders.")
    add("--output", type=Path, help="Folder of the results. Default: LOGDIR/compare.")
    add("--markdown", action="store_true", help="Print Markdown to a terminal too, as to a file or a pipe.")
    text = "Accept finished runs of other versions of the code and its libraries; the table says so."
    add("--any_code", action="store_true", help=text)
    return parser
