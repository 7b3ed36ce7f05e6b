"""What configures a run: options on the command line, YAML files, and the variants among them.

A variant is an overlay beside base.yaml, or a user's own file. A configuration names classes to import and call, so it
is code: run only those that you trust.
"""

import argparse
import difflib
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import yaml

from training_health.errors import UserError

CONFIGS = Path(__file__).parent / "configs"
BASE = CONFIGS / "base.yaml"
MONITORS = (
    "training_health.DeadReLUMonitor",
    "training_health.WeightHistogramMonitor",
    "training_health.TrainValGapMonitor",
)
_MOST_CHARACTERS = 1_000_000


def values_of(args: list[str], name: str) -> list[str]:
    """All values that ``args`` give to ``--name``, as ``--name value`` or ``--name=value``, in their order."""
    parser = argparse.ArgumentParser(add_help=False, allow_abbrev=False)
    short = ["-c"] if name == "config" else []  # LightningCLI's
    parser.add_argument(*short, f"--{name}", dest="values", action="append", nargs="?", default=[])
    return [value for value in parser.parse_known_args(args)[0].values if value is not None]


def value_of(args: list[str], name: str) -> str | None:
    """The last value that ``args`` give to ``--name``; None without one."""
    return next(reversed(values_of(args, name)), None)


def refuse_taken(options: list[str], taken: Mapping[str, Sequence[str]], command: str) -> None:
    """Refuse options of ``fmnist fit`` that ``command`` sets for each run itself; ``taken``: by what to use instead."""
    for argument in (option for option in options if option.startswith("-")):
        name = "config" if argument == "-c" else argument.removeprefix("--").split("=")[0].rstrip("+")
        for instead, names in taken.items():
            for option in names:  # given itself, a part of it, or the group that it is in
                if f"{name}.".startswith(f"{option}.") or option.startswith(f"{name}."):
                    raise UserError(f"The {command} sets --{option} for every run itself. Use {instead}.", exit_code=2)


def load_yaml(path: Path) -> Any:  # noqa: ANN401
    """Read a YAML file as plain values; a UserError names the file that is not there, or not YAML."""
    try:
        with path.open(encoding="utf-8") as file:
            text = file.read(_MOST_CHARACTERS + 1)
        if len(text) > _MOST_CHARACTERS:
            raise ValueError(f"it is longer than {_MOST_CHARACTERS:,} characters")
        return yaml.safe_load(text)
    except FileNotFoundError:
        raise UserError(f"There is no configuration {path}. Give the path of a YAML file.", exit_code=2) from None
    except OSError as error:
        raise UserError(f"The configuration {path} cannot be read: {error.strerror}.", exit_code=2) from error
    # ValueError: text that is not UTF-8, and values such as 2024-13-45; RecursionError: nested without end.
    except (yaml.YAMLError, ValueError, RecursionError) as error:
        raise UserError(f"{path} is not valid YAML: {error}", exit_code=2) from None


def load_options(path: Path) -> dict[str, Any]:
    """Read a YAML file of options, which a UserError says if it is none."""
    content = load_yaml(path)
    if not isinstance(content, dict) or not content:
        raise UserError(f"{path} holds no options. Write some, such as `model: {{learning_rate: 0.01}}`.", exit_code=2)
    return content


def packaged_variants() -> list[str]:
    """The names of the packaged variants, sorted."""
    return sorted(path.stem for path in CONFIGS.glob("*.yaml") if path != BASE)


def overlay_path(variant: str) -> Path:
    """The overlay of a packaged variant, or the path of a user's own YAML file; UserError if there is none."""
    if variant in packaged_variants():
        return CONFIGS / f"{variant}.yaml"
    path = Path(variant).expanduser()
    if path.suffix in {".yaml", ".yml"}:
        if path.is_file():
            return path
        raise UserError(f"There is no variant file {path}. Give the path of an existing YAML file.", exit_code=2)
    names = packaged_variants()
    nearest = difflib.get_close_matches(variant, names, n=1, cutoff=0.5)
    hint = f" Did you mean {nearest[0]}?" if nearest else ""
    raise UserError(
        f"There is no variant named {variant!r}.{hint} Packaged variants: {', '.join(names)}. "
        "Or give the path of your own YAML file.",
        exit_code=2,
    )


def variant_name(variant: str) -> str:
    """What runs of a variant, and their folder, are called: the packaged name, or the stem of the user's file."""
    name = Path(variant).stem if variant.endswith((".yaml", ".yml")) else variant
    return "".join(character if character.isprintable() else "_" for character in name)
