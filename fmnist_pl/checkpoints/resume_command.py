"""What ``--resume`` on a command line means, before the command line is parsed."""

import os
from pathlib import Path
from typing import Any

from fmnist_pl.arguments import option
from fmnist_pl.checkpoints.resume import ResumePoint, find
from fmnist_pl.runs.folder import runs_folder
from fmnist_pl.variants import BASE, overlay_path
from fmnist_pl.yaml_file import load_yaml
from training_health.errors import UserError

_FOUND = "FMNIST_RESUME_FROM"


def resume_point(args: list[str]) -> ResumePoint | None:
    """Find and check what the options of ``fit`` ask to resume; None if they do not.

    Raises:
        UserError: As `fmnist_pl.checkpoints.resume.find`.
    """
    asked = option(args, "resume")
    if asked is None:
        return None
    # The ranks that Lightning launches take what the first process found.
    launched = os.environ.get("LOCAL_RANK", "0") != "0"
    value = os.environ.get(_FOUND, asked) if launched else asked
    variant = option(args, "variant")
    layers = [load_yaml(path) for path in (BASE, *_files(args, variant))]
    dataset = option(args, "data.dataset") or _last(layers, "data", "dataset") or "fashion_mnist"
    logs = option(args, "trainer.logger.init_args.save_dir") or _last(
        layers, "trainer", "logger", "init_args", "save_dir"
    )
    name = variant or _last(layers, "variant") or "baseline"
    point = find(value, runs_folder(Path(str(logs)), name, dataset), _whole_number(args), variant)
    os.environ[_FOUND] = str(point.file)
    return point


def _files(args: list[str], variant: str | None) -> list[Path]:
    config = option(args, "config")
    return ([overlay_path(variant)] if variant else []) + ([Path(config)] if config else [])


def _last(layers: list[Any], *keys: str) -> Any:  # noqa: ANN401
    """The value that the last of several nested dicts gives to a key; None if none does."""
    found = None
    for layer in layers:
        for key in keys:
            layer = layer.get(key) if isinstance(layer, dict) else None
        found = layer if layer is not None else found
    return found


def _whole_number(args: list[str]) -> int | None:
    text = option(args, "trainer.max_epochs")
    try:
        return None if text is None else int(text)
    except ValueError:
        raise UserError(f"--trainer.max_epochs must be a whole number, got {text!r}.", exit_code=2) from None
