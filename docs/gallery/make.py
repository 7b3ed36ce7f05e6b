"""Makes the reports of this folder: ``make gallery``, or ``python docs/gallery/make.py``.

It trains what is not trained yet in ``--logdir`` and then writes one HTML file for each page. It ends with status 1 if
a file is larger than 3 MB, so that a reader can open each from a mail or over a slow line.
"""

import argparse
import shutil
import subprocess
import sys
from pathlib import Path

HERE = Path(__file__).resolve().parent
EXAMPLE = HERE.parents[1] / "callbacks" / "examples" / "any_lightning_project.py"
LARGEST = 3_000_000  # bytes
PAGES = ("notebooks", "dying", "foreign", "search")


def main(arguments: list[str] | None = None) -> int:
    """Makes the pages and returns the process's exit status."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0], allow_abbrev=False)
    parser.add_argument("pages", nargs="*", metavar="PAGE", help=f"Default: {' '.join(PAGES)}.")
    parser.add_argument("--epochs", type=int, default=10, help="Of each run of notebooks and dying.")
    parser.add_argument("--trials", type=int, default=40, help="Of the search.")
    parser.add_argument(
        "--images",
        type=int,
        default=5_000,
        help="That each trial of the search trains on; the dying run on twice as many.",
    )
    parser.add_argument("--dataset", choices=["fashion_mnist", "synthetic"], default="fashion_mnist")
    parser.add_argument("--logdir", type=Path, default=Path("lightning_logs/gallery"), help="Where the runs are kept.")
    parser.add_argument("--output", type=Path, default=HERE, help="Folder of the pages.")
    options = parser.parse_args(arguments)
    if unknown := set(options.pages) - set(PAGES):
        parser.error(f"there is no page {unknown.pop()}; pages: {', '.join(PAGES)}")
    options.output.mkdir(parents=True, exist_ok=True)
    too_large = []
    for name in options.pages or PAGES:
        page = options.output / f"{name}.html"
        make(name, options, options.logdir / name, page)
        size = page.stat().st_size
        print(f"{page}: {size / 1e6:.2f} MB")
        too_large += [name] if size > LARGEST else []
    if too_large:
        print(f"error: larger than {LARGEST / 1e6:.0f} MB: {', '.join(too_large)}", file=sys.stderr)
    return int(bool(too_large))


def make(name: str, options: argparse.Namespace, logdir: Path, page: Path) -> None:
    """Trains what the page shows, unless it is there already, and writes it."""
    data = f"--dataset={options.dataset}"
    if name == "search":
        results = logdir / "results"
        counts = [f"--trials={options.trials}", "--epochs=3", f"--images={options.images}", "--confirm_seeds"]
        fmnist("search", *counts, data, f"--logdir={logdir}", f"--output={results}")
        shutil.copyfile(results / "report.html", page)
        return
    if name == "foreign":
        if not logdir.exists():
            subprocess.run([sys.executable, EXAMPLE, logdir], check=True)
    else:
        which = ["baseline", "no_dropout", "sgd"]
        if name == "dying":  # dies as well on fewer images
            which = ["adam_high_lr", f"--data.training_images={2 * options.images}"]
        seed_and_epochs = ["--seeds", "0", f"--epochs={options.epochs}"]
        folders = [f"--logdir={logdir}", f"--output={logdir.parent / 'compare' / name}"]  # a report has runs alone
        fmnist("compare", *seed_and_epochs, data, *folders, "--variants", *which)
    fmnist("report", f"--logdir={logdir}", f"--output={page}")


def fmnist(*arguments: str) -> None:
    """Runs a command of ``fmnist`` in a process of its own."""
    subprocess.run([sys.executable, "-m", "fmnist_pl", *arguments], check=True)


if __name__ == "__main__":
    sys.exit(main())
