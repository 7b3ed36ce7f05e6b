"""Entry of ``fmnist`` and ``python -m fmnist_pl``: a user's mistake ends in one message."""

import sys

from fmnist_pl.process import end_with_parent, keep_writing
from training_health.errors import UserError


def run() -> None:
    """Run the command line of this process and exit with its status."""
    end_with_parent()  # before the seconds that imports take
    keep_writing()
    try:
        from fmnist_pl.commands import main  # here, so that Ctrl-C during an import shows no traceback

        main()
    except UserError as error:
        print(f"error: {error}", file=sys.stderr)
        sys.exit(error.exit_code)
    except OSError as error:  # a name that is too long, a folder that may not be read
        file = f"{error.filename}: " if error.filename else ""
        print(f"error: {file}{error.strerror or error}. Make room, or correct path and permissions.", file=sys.stderr)
        sys.exit(1)
    except KeyboardInterrupt:  # later Ctrl-C and SIGTERM have a handler of their own
        print("Stopped before training began.", file=sys.stderr)
        sys.exit(130)


if __name__ == "__main__":
    run()
