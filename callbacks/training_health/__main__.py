"""``python -m training_health report --logdir DIR --output FILE``: the Training Health page as one HTML file."""

import argparse
import sys
from pathlib import Path

from training_health.errors import UserError


def main(arguments: list[str] | None = None) -> int:
    """Run a command and return the process's exit status."""
    parser = argparse.ArgumentParser(prog="python -m training_health")
    commands = parser.add_subparsers(required=True, metavar="COMMAND")
    report = commands.add_parser("report", help="write the Training Health page as one HTML file that needs no server")
    report.add_argument("--logdir", type=Path, required=True, help="folder with event files at any depth")
    report.add_argument("--output", type=Path, required=True, help="the HTML file to write")
    options = parser.parse_args(arguments)
    try:
        try:
            from training_health.tab.report import write_report
        except ModuleNotFoundError as error:
            raise UserError(
                f"The report needs {error.name}: pip install 'training-health[tab]', then repeat."
            ) from error

        write_report(options.logdir, options.output)
    except UserError as error:
        print(f"error: {error}", file=sys.stderr)
        return error.exit_code
    print(options.output)
    return 0


if __name__ == "__main__":
    sys.exit(main())
