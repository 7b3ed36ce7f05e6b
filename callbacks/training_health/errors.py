"""Mistakes that a user can correct: shown as one message, without a traceback."""


class UserError(Exception):
    """What was wrong, what was expected and what to do next, in the words the user will read.

    Args:
        message: The whole message. The command line prints it to stderr as ``error: <message>``.
        exit_code: The process's exit status. 2 is for a wrong call, 1 for everything else.
    """

    def __init__(self, message: str, exit_code: int = 1) -> None:
        super().__init__(message)
        self.exit_code = exit_code
