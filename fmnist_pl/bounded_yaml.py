"""Reads YAML that a stranger may have written: bounded in size, depth and expansion.

A few hundred bytes of YAML can stand for terabytes, by aliases of aliases, or for an endless structure, by an alias of
itself. Neither is any use in a configuration, and both would keep the program busy for ever. What a configuration
*says* is another matter: it names classes to import and call, so **a configuration file is code**. Run only those that
you trust.
"""

import stat
from pathlib import Path
from typing import Any

import yaml

from training_health.errors import UserError

LARGEST_FILE = 1 << 20  # bytes; the configuration of a run has about 4,000
MOST_NODES = 50_000  # after expansion of all aliases
DEEPEST = 50  # levels


def load_yaml(path: Path) -> Any:  # noqa: ANN401
    """Read a YAML file as plain values.

    Raises:
        UserError: It cannot be read, is not YAML, or is beyond the bounds.
    """
    text = _text(path)
    check_bounds(text, str(path))
    try:
        return yaml.load(text, Loader=_loader())
    except yaml.YAMLError as error:
        raise UserError(f"{path} is not valid YAML: {error}", exit_code=2) from None


def check_bounds(text: str, name: str) -> None:
    """Refuse YAML that is beyond the bounds, before anything is built from it.

    Args:
        text: The YAML.
        name: What the message calls it.

    Raises:
        UserError: It is too large, too deep, or contains itself. Text that is not YAML passes.
    """
    if len(text) > LARGEST_FILE:
        raise _beyond(name, f"it has more than {LARGEST_FILE:,} characters")
    try:
        _check_events(text, name)
        root = yaml.compose(text, Loader=_loader())
    except yaml.YAMLError as error:
        if "nesting depth" in str(error):  # newer versions of libyaml have a limit of their own, of 1,000 levels
            raise _too_deep(name) from None
        return  # the parser that reads it next says so, with the place
    if root is not None:
        _expanded(root, name, {}, set())


def _check_events(text: str, name: str) -> None:
    """Refuse depth and size event by event: libyaml's composer calls itself, and overruns the stack at some depth."""
    depth = 0
    for number, event in enumerate(yaml.parse(text, Loader=_loader())):
        if number > 2 * MOST_NODES:
            raise _beyond(name, f"it has more than {MOST_NODES:,} values")
        depth += isinstance(event, yaml.CollectionStartEvent) - isinstance(event, yaml.CollectionEndEvent)
        if depth > DEEPEST:
            raise _too_deep(name)


def _expanded(node: yaml.Node, name: str, known: dict[int, tuple[int, int]], above: set[int]) -> tuple[int, int]:
    """How many nodes and levels there are from this node down, every alias counted as often as it is used."""
    if id(node) in above:
        raise _beyond(name, "it contains itself, by an alias")
    if id(node) in known:
        return known[id(node)]
    size, height = 1, 1
    if isinstance(node, yaml.CollectionNode):
        above.add(id(node))
        for entry in node.value:
            for part in entry if isinstance(entry, tuple) else (entry,):
                more, levels = _expanded(part, name, known, above)
                size, height = size + more, max(height, levels + 1)
        above.remove(id(node))
    if size > MOST_NODES:
        raise _beyond(name, f"it stands for more than {MOST_NODES:,} values")
    if height > DEEPEST:
        raise _too_deep(name)
    known[id(node)] = size, height
    return size, height


def _text(path: Path) -> str:
    try:
        status = path.stat()
        if not stat.S_ISREG(status.st_mode):
            raise UserError(f"The configuration {path} is not a file.", exit_code=2)
        if status.st_size > LARGEST_FILE:
            raise _beyond(str(path), f"it has {status.st_size:,} bytes, and {LARGEST_FILE:,} are allowed")
        return path.read_text(encoding="utf-8")
    except FileNotFoundError:
        raise UserError(f"There is no configuration {path}. Give the path of a YAML file.", exit_code=2) from None
    except OSError as error:
        raise UserError(f"The configuration {path} cannot be read: {error.strerror}.", exit_code=2) from error
    except UnicodeDecodeError:
        raise UserError(f"The configuration {path} is not text in UTF-8.", exit_code=2) from None


def _beyond(name: str, why: str) -> UserError:
    return UserError(f"The configuration {name} was refused: {why}.", exit_code=2)


def _too_deep(name: str) -> UserError:
    return _beyond(name, f"it is nested more than {DEEPEST} levels deep")


def _loader() -> type:
    return getattr(yaml, "CSafeLoader", yaml.SafeLoader)


def guard_configurations(args: list[str]) -> None:
    """Check every YAML file that a command line names, and have jsonargparse check what those name in turn.

    Args:
        args: The command line.

    Raises:
        UserError: A file is beyond the bounds.
    """
    from jsonargparse import set_loader  # here: reading a variant needs no command line
    from jsonargparse._loaders_dumpers import yaml_load

    for argument in args:
        path = Path(argument.split("=", 1)[1] if argument.startswith("-") and "=" in argument else argument)
        if path.suffix in {".yaml", ".yml", ".json"} and path.exists():
            check_bounds(_text(path), str(path))

    def load_within_bounds(text: str) -> Any:  # noqa: ANN401
        check_bounds(text, "or option")
        return yaml_load(text)

    set_loader("yaml", load_within_bounds, (yaml.YAMLError,))
