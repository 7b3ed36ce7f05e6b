"""Checkpoint files: the zip archives of ``torch.save``, whose CRC-32 sums are checked before anything is loaded."""

import io
import os
import pickle
import zipfile
import zlib
from pathlib import Path
from typing import Any

import torch

from training_health.durable_file import replace_durably
from training_health.errors import UserError


def checkpoint_bytes(checkpoint: dict[str, Any]) -> bytes:
    """Content of a checkpoint's file; UserError if it could not be loaded safely."""
    buffer = io.BytesIO()
    torch.save(checkpoint, buffer)
    try:
        torch.load(io.BytesIO(buffer.getbuffer()), map_location="cpu", weights_only=True)
    except pickle.UnpicklingError as error:
        raise UserError(
            "No run could resume from this checkpoint. Callbacks and hyper-parameters must hold tensors and plain "
            f"values (numbers, strings, lists, dicts). torch says: {_first_line(error)}"
        ) from None
    return buffer.getvalue()


def write_checkpoint(path: Path, content: bytes, keep_as: str | None = None) -> None:
    """Write a checkpoint whole or not at all; ``keep_as``: name in the folder for the file before, if it is whole."""
    try:
        if keep_as and path.exists() and damage(path.read_bytes()) is None:
            os.replace(path, path.with_name(keep_as))
        replace_durably(path, content)
    except OSError as error:
        raise UserError(
            f"The checkpoint {path} cannot be written: {error.strerror}. The run ends here, since it could not be "
            f"resumed later. Make room or correct the permissions, then resume: fmnist fit --resume {path.parents[1]}"
        ) from error


def load_checked(path: str | Path, map_location: Any = "cpu") -> dict[str, Any]:  # noqa: ANN401
    """Read a checkpoint; UserError if it is not there, damaged, or holds more than tensors and plain values."""
    path = Path(path)
    try:
        content = path.read_bytes()
    except FileNotFoundError:
        raise UserError(f"There is no checkpoint {path}. Give the path of a file.", exit_code=2) from None
    except OSError as error:
        raise UserError(f"The checkpoint {path} cannot be read: {error.strerror}.") from error
    why = damage(content)
    if why is not None:
        raise _damaged(path, why)
    try:
        checkpoint = torch.load(io.BytesIO(content), map_location=map_location, weights_only=True)
    except pickle.UnpicklingError as error:
        raise UserError(
            f"{path} holds something other than tensors and plain values, as a file with planted code does. "
            f"Nothing in it was run. Use a checkpoint that you trust. ({_first_line(error)})"
        ) from None
    except Exception as error:  # whatever torch makes of a file that is no checkpoint
        raise _damaged(path, _first_line(error)) from None
    if not isinstance(checkpoint, dict) or not isinstance(checkpoint.get("state_dict"), dict):
        raise UserError(f"{path} is not a checkpoint of a training run: it has no state_dict.")
    return checkpoint


def damage(content: bytes) -> str | None:
    """What is wrong with the bytes of an archive; None if its CRC-32 sums fit."""
    try:
        with zipfile.ZipFile(io.BytesIO(content)) as archive:
            bad = archive.testzip()
    except (zipfile.BadZipFile, ValueError, EOFError, NotImplementedError, RuntimeError, OSError, zlib.error) as error:
        return _first_line(error)
    return None if bad is None else f"the CRC of {bad} does not fit"


def _damaged(path: Path, why: str) -> UserError:
    return UserError(
        f"The checkpoint {path} is damaged: {why}. Use another one; --resume with a run's folder takes the newest that "
        "is whole."
    )


def _first_line(error: BaseException) -> str:
    return (str(error).strip().splitlines() or [type(error).__name__])[0].rstrip(".")
