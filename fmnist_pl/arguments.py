"""Looks into a command line before it is parsed."""


def options(args: list[str], name: str) -> list[str]:
    """All values that ``args`` give to ``--name``, as ``--name value`` or ``--name=value``, in their order."""
    values = []
    for position, argument in enumerate(args):
        if argument == f"--{name}":
            values += args[position + 1 : position + 2]
        elif argument.startswith(f"--{name}="):
            values.append(argument.split("=", 1)[1])
    return values


def option(args: list[str], name: str) -> str | None:
    """The last value that ``args`` give to ``--name``; None without one."""
    return next(reversed(options(args, name)), None)
