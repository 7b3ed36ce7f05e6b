"""The subcommands of ``fmnist``; each is imported only when it is asked for, since torch takes seconds."""

import argparse
import contextlib
import difflib
import importlib
import io
import json
import os
import shutil
import sys
import textwrap
from pathlib import Path

from fmnist_pl.configuration import overlay_path, value_of
from fmnist_pl.process import import_lightning, printable, quick_imports
from training_health.errors import UserError

COMMANDS = {
    "fit": "train a variant, test its best checkpoint, print the summary",
    "validate": "evaluate a checkpoint on the validation images",
    "test": "evaluate a checkpoint on the test images",
    "predict": "write a checkpoint's predictions for the test images",
    "inspect": "count a checkpoint's dead units on the validation images",
    "check": "judge a checkpoint by the tab's rules; exit status 1 for a finding",
    "slim": "remove a checkpoint's dead units, prove that nothing changes, export",
    "compare": "train variants over seeds; tables with intervals",
    "search": "search for the best configuration with Optuna",
    "report": "write the Training Health page as one HTML file",
    "data": "find Fashion-MNIST's files, or fetch them",
}
EXAMPLES = {  # the end of each command's help
    "fit": """
fmnist fit --variant no_dropout
fmnist fit --variant sgd --seed_everything=1 --trainer.max_epochs=3
fmnist fit --variant mine.yaml --data.batch_size=128 --model.momentum=0.9
fmnist fit --data.dataset=synthetic --data.training_images=6000
fmnist fit --resume lightning_logs/sgd/version_0
fmnist fit --trainer.devices=4 --trainer.strategy=ddp
""",
    "validate": "fmnist validate --ckpt_path lightning_logs/baseline/version_0",
    "test": """
fmnist test --ckpt_path lightning_logs/baseline/version_0
fmnist test --ckpt_path lightning_logs/sgd/version_0/checkpoints/last.ckpt
""",
    "predict": "fmnist predict --ckpt_path lightning_logs/baseline/version_0",
    "inspect": """
fmnist inspect lightning_logs/baseline/version_0
fmnist inspect lightning_logs/baseline/version_0 --write counted
""",
    "check": """
fmnist check lightning_logs/baseline/version_0
fmnist check lightning_logs/sgd/version_0 --format sarif --output dead.sarif
""",
    "slim": """
fmnist slim lightning_logs/no_dropout/version_0
fmnist slim lightning_logs/no_dropout/version_0 --certified --output certified
""",
    "compare": """
fmnist compare --variants baseline no_dropout sgd --seeds 0 1 2 --jobs 2
fmnist compare --variants baseline mine.yaml --epochs 5 --data.batch_size=128
""",
    "search": """
fmnist search --trials 20 --epochs 3 --images 15000
fmnist search --space mine.yaml --jobs 4 --monitors=off
""",
    "report": "fmnist report --logdir lightning_logs --output report.html",
    "data": """
fmnist data
DATA_DIR=/scratch/data fmnist data
""",
}
OPTIONAL = ("compare", "search", "slim")  # each is also the name of the extra that installs what it needs
OPTIONAL_PACKAGES = {"jinja2", "markdown_it", "optuna", "plotly", "scipy", "sqlalchemy", "torch_pruning"}


def main(args: list[str] | None = None) -> None:
    """Run ``fmnist`` with ``args`` (default: the process's own); see `fmnist_pl.cli.main` for what it raises."""
    command, *rest = (sys.argv[1:] if args is None else args) or ["--help"]
    if command not in EXAMPLES or not {"-h", "--help"} & set(rest):
        _run(command, rest)
        return
    with contextlib.redirect_stdout(io.StringIO()) as shown, contextlib.suppress(SystemExit):
        _run(command, rest)
    width = shutil.get_terminal_size().columns
    for line in [*shown.getvalue().splitlines(), "", "examples:"]:  # headings of others are not broken into lines
        print(line if len(line) <= width else textwrap.fill(line, width))
    print(textwrap.indent(EXAMPLES[command].strip(), "  "))


def _run(command: str, rest: list[str]) -> None:
    if command in {"-h", "--help"}:
        print(usage())
    elif command in OPTIONAL:
        sys.exit(optional(command, rest))
    elif command == "report":
        report(rest)
    elif command == "inspect":
        inspect(rest)
    elif command == "data":
        data(rest)
    elif command == "check":
        sys.exit(check(rest))
    elif command in COMMANDS:
        if (variant := value_of(rest, "variant")) is not None:
            overlay_path(variant)  # a mistyped one is refused here, before seconds of imports
        with quick_imports():
            import_lightning()
            from fmnist_pl.cli import main as lightning

        lightning([command, *rest])
    else:
        nearest = difflib.get_close_matches(command, COMMANDS, n=1)
        hint = f" Did you mean {nearest[0]}?" if nearest else ""
        raise UserError(f"There is no command {command!r}.{hint} Commands: {', '.join(COMMANDS)}.", exit_code=2)


def usage() -> str:
    """What ``fmnist --help`` prints."""
    lines = [f"  {name:9} {meaning}" for name, meaning in COMMANDS.items()]
    return "\n".join(["usage: fmnist COMMAND [OPTIONS]", "", *lines, "", "fmnist COMMAND --help lists its options."])


def optional(command: str, args: list[str]) -> int:
    """Run a command that needs packages of an extra; UserError names the extra if one is missing."""
    try:
        with quick_imports():
            module = importlib.import_module(f"fmnist_pl.{command}.command")
        return module.main(args)
    except ModuleNotFoundError as error:
        package = str(error.name).split(".")[0]
        if package not in OPTIONAL_PACKAGES:
            raise
        install = f'pip install -e ".[{command}]" in the repository'
        raise UserError(f"fmnist {command} needs {package}, which is not installed: {install}") from None


def report(args: list[str]) -> None:
    """Write the Training Health page of a log folder as one HTML file."""
    from training_health.tab.one_file import write_report

    parser = argparse.ArgumentParser(prog="fmnist report", description=report.__doc__, allow_abbrev=False)
    parser.add_argument("--logdir", type=Path, default=Path("lightning_logs"), help="Default: %(default)s.")
    parser.add_argument("--output", type=Path, default=Path("report.html"), help="Default: %(default)s.")
    options = parser.parse_args(args)
    write_report(options.logdir, options.output)
    print(f"Written: {printable(options.output)}")


def data(args: list[str]) -> None:
    """Find Fashion-MNIST's four files, or fetch them, and verify every byte."""
    from fmnist_pl.dataset import files

    parser = argparse.ArgumentParser(prog="fmnist data", description=data.__doc__, allow_abbrev=False)
    parser.add_argument("--root", help="folder of the data; default: DATA_DIR, else data")
    root = Path(parser.parse_args(args).root or os.environ.get("DATA_DIR") or "data")
    folders = files.find_or_fetch(root, files.FASHION_MNIST)
    print(f"Fashion-MNIST, four files, verified: {printable(', '.join(map(str, folders)))}")


def inspect(args: list[str]) -> None:
    """Count the dead units of a run's best checkpoint, or of any checkpoint, on the validation images."""
    parser = argparse.ArgumentParser(prog="fmnist inspect", description=inspect.__doc__, allow_abbrev=False)
    parser.add_argument("run", type=Path, metavar="RUN|CHECKPOINT", help="a run's folder, or a checkpoint")
    parser.add_argument("--root", help="folder of the data; default: DATA_DIR, else data")
    parser.add_argument("--write", type=Path, metavar="FOLDER", help="also write the counts there, for the tab")
    options = parser.parse_args(args)

    with quick_imports():
        from fmnist_pl.saved_network import load_network
        from training_health import inspect as count

    saved = load_network(options.run, options.root)
    saved.data.setup("validate")
    found = count(saved.model, saved.data.val_dataloader())
    print(found)
    if options.write is not None:
        found.write(options.write)
        print(f"Written: {printable(options.write)}")


def check(args: list[str]) -> int:
    """Judge a run's best checkpoint, or any checkpoint, on the validation images by the rules of the tab.

    Exit status: 0, 1 if there is a finding of the severity --fail-on or worse, 2 if it could not be checked.
    """
    parser = argparse.ArgumentParser(prog="fmnist check", description=check.__doc__, allow_abbrev=False)
    parser.add_argument("run", type=Path, metavar="RUN|CHECKPOINT", help="a run's folder, or a checkpoint")
    severities = ("critical", "warning", "notice", "never")
    parser.add_argument("--fail-on", choices=severities, default="warning", help="Default: %(default)s.")
    parser.add_argument("--format", choices=("text", "json", "sarif"), default="text", help="Default: %(default)s.")
    parser.add_argument("--output", type=Path, metavar="FILE", help="write the findings there instead of printing them")
    parser.add_argument("--root", help="folder of the data; default: DATA_DIR, else data")
    options = parser.parse_args(args)

    with quick_imports():
        from fmnist_pl.saved_network import load_network
        from training_health import check as judge
        from training_health.durable_file import replace_durably

    try:
        saved = load_network(options.run, options.root)
        saved.data.setup("validate")
        found = judge(saved.model, saved.data.val_dataloader())
        values = {"json": found.to_dict, "sarif": lambda: found.to_sarif(saved.file.as_posix())}
        text = str(found) if options.format == "text" else json.dumps(values[options.format](), indent=2)
        if options.output is None:
            print(text)
        else:
            replace_durably(options.output, f"{text}\n".encode())
            print(f"Written: {printable(options.output)}", file=sys.stderr)
    except UserError as error:
        raise UserError(str(error), exit_code=2) from error
    except OSError as error:
        raise UserError(f"{options.output or error.filename}: {error.strerror}", exit_code=2) from error
    return 1 if found.at_least(options.fail_on) else 0
