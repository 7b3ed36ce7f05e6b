"""Entry of ``fmnist`` and ``python -m fmnist_pl``: errors of the user's making end in one message."""

import sys

from training_health.errors import UserError


def run() -> None:
    """Run the command line of this process and exit with its status."""
    try:
        from fmnist_pl.commands import main  # here, so that Ctrl-C during an import shows no traceback

        main()
    except UserError as error:
        print(f"error: {error}", file=sys.stderr)
        sys.exit(error.exit_code)
    except KeyboardInterrupt:  # while it trains, a stop is saved first
        print("Stopped before training; nothing was saved.", file=sys.stderr)
        sys.exit(130)


if __name__ == "__main__":
    run()
