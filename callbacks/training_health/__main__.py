"""``python -m training_health report --logdir DIR --output FILE``: the Training Health page as one HTML file."""

import argparse
import sys
from pathlib import Path

from training_health.errors import UserError


def main(arguments: list[str] | None = None) -> int:
    """Run the command line and return the process's exit status."""
    parser = argparse.ArgumentParser(prog="python -m training_health")
    commands = parser.add_subparsers(required=True, metavar="COMMAND")
    report = commands.add_parser("report", help="write the Training Health page as one HTML file that needs no server")
    report.add_argument("--logdir", type=Path, required=True, help="folder with event files at any depth")
    report.add_argument("--output", type=Path, required=True, help="the HTML file to write")
    options = parser.parse_args(arguments)
    try:
        from training_health.tab.one_file import write_report  # needs TensorBoard, which an import of this must not

        write_report(options.logdir, options.output)
    except (UserError, ModuleNotFoundError) as error:
        hint = ". The report needs it: `pip install tensorboard`." if isinstance(error, ModuleNotFoundError) else ""
        print(f"error: {error}{hint}", file=sys.stderr)
        return getattr(error, "exit_code", 1)
    print(options.output)
    return 0


if __name__ == "__main__":
    sys.exit(main())
