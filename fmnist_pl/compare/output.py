"""Prints and writes a comparison."""

import os
from pathlib import Path

from fmnist_pl.compare.comparison import Comparison
from fmnist_pl.compare.machine_readable import csv_text, json_text
from fmnist_pl.compare.markdown import markdown
from fmnist_pl.compare.tensorboard import write_tensorboard
from training_health.errors import UserError


def write_all(comparison: Comparison, folder: Path) -> None:
    """Print the Markdown, then write it with CSV, JSON and TensorBoard records into ``folder``.

    Raises:
        UserError: If the folder cannot be written; what was printed stands.
    """
    text = markdown(comparison)
    print(text)
    try:
        folder.mkdir(parents=True, exist_ok=True)
        for name, content in (
            ("compare.md", text),
            ("compare.csv", csv_text(comparison)),
            ("compare.json", json_text(comparison)),
        ):
            _replace(folder / name, content)
        write_tensorboard(comparison, text, folder)
    except OSError as error:
        raise UserError(
            f"The results cannot be written into {folder}: {error.strerror or error}. They are printed above; make "
            "room or choose another folder with --output, and repeat the command: finished runs are not repeated."
        ) from error
    print(f"Written: {folder / 'compare.md'}, .csv, .json, and TensorBoard records beside them")


def _replace(path: Path, content: str) -> None:
    """A reader sees the old file or the new one."""
    temporary = path.with_name(f".{path.name}.{os.getpid()}.tmp")
    try:
        temporary.write_text(content, encoding="utf-8")
        temporary.replace(path)
    finally:
        temporary.unlink(missing_ok=True)
