"""Checkpoint files: sealed when written, checked before anything of them is used.

A checkpoint is the zip archive that ``torch.save`` writes. Its comment field, which readers of zip archives skip,
takes the SHA-256 of all bytes before it: one flipped bit anywhere is found. Files without a seal, by other programs,
are checked by the archive's own CRC-32 sums.
"""

import hashlib
import io
import pickle
import zipfile
from pathlib import Path
from typing import Any

import torch

from fmnist_pl.checkpoints.plain_values import not_plain
from training_health.errors import UserError

SEALED = "fmnist_pl_sealed"  # key in the checkpoint: it was written with a seal, so one must be there
_SEAL = b"fmnist_pl sha256 "
_SEAL_SIZE = len(_SEAL) + 64
_CODE_KEYS = ("_instantiator", "_class_path", "_target_")  # names of code to import and call; plain values need none


def sealed_bytes(checkpoint: dict[str, Any]) -> bytes:
    """The file's content for a checkpoint.

    Raises:
        UserError: Something in it is neither a tensor nor a plain value, so that it could not be loaded safely.
    """
    offence = not_plain(checkpoint)
    if offence:
        raise UserError(
            f"The checkpoint could not be resumed from: {offence}. Callbacks and hyper-parameters must hold tensors "
            "and plain values (numbers, strings, lists, dicts)."
        )
    buffer = io.BytesIO()
    torch.save({**checkpoint, SEALED: True}, buffer)
    archive = buffer.getvalue()
    # The archive ends in the length of its comment, two bytes that are zero so far.
    body = archive[:-2] + _SEAL_SIZE.to_bytes(2, "little")
    return body + _SEAL + hashlib.sha256(body).hexdigest().encode()


def load_checked(path: str | Path, map_location: Any = "cpu") -> dict[str, Any]:  # noqa: ANN401
    """Read a checkpoint after checking every byte of it; never runs anything that is in it.

    Raises:
        UserError: There is no such file, it is an address, it is damaged, or it holds code. The message names the
            file, and a whole checkpoint beside it if there is one.
    """
    if "://" in str(path):
        raise UserError(f"{path} is an address. Checkpoints are read from files only: download it first.", exit_code=2)
    path = Path(path)
    content = _read(path)
    sealed = _check_bytes(path, content)
    try:
        checkpoint = torch.load(io.BytesIO(content), map_location=map_location, weights_only=True)
    except pickle.UnpicklingError as error:
        raise UserError(
            f"{path} holds something other than tensors and plain values, as a file with planted code does. "
            f"It was refused, and nothing in it was run. ({_first_line(error)})"
        ) from None
    except Exception as error:
        raise _damaged(path, _first_line(error)) from None
    if not isinstance(checkpoint, dict) or not isinstance(checkpoint.get("state_dict"), dict):
        raise UserError(f"{path} is not a checkpoint of a training run: it has no state_dict.")
    if checkpoint.get(SEALED) and not sealed:
        raise _damaged(path, "its seal is missing")
    _refuse_code(path, checkpoint)
    return checkpoint


def _read(path: Path) -> bytes:
    try:
        return path.read_bytes()
    except FileNotFoundError:
        raise UserError(f"There is no checkpoint {path}.", exit_code=2) from None
    except OSError as error:
        raise UserError(f"The checkpoint {path} cannot be read: {error.strerror}.") from error


def _check_bytes(path: Path, content: bytes) -> bool:
    """Whether the content carries a seal. Raises UserError if seal or sums do not fit."""
    body, seal = content[:-_SEAL_SIZE], content[-_SEAL_SIZE:]
    if seal.startswith(_SEAL):
        if hashlib.sha256(body).hexdigest().encode() != seal[len(_SEAL) :]:
            raise _damaged(path, "its SHA-256 does not fit")
        return True
    try:
        with zipfile.ZipFile(io.BytesIO(content)) as archive:
            # torch never compresses; a small file that unpacks to terabytes would.
            if any(entry.compress_type != zipfile.ZIP_STORED for entry in archive.infolist()):
                raise UserError(f"{path} is a compressed archive, which torch.save does not write. It was refused.")
            bad = archive.testzip()
    except (zipfile.BadZipFile, ValueError, EOFError, NotImplementedError, RuntimeError, OSError) as error:
        raise _damaged(path, _first_line(error)) from None
    if bad is not None:
        raise _damaged(path, f"the CRC of {bad} does not fit")
    return False


def _refuse_code(path: Path, checkpoint: dict[str, Any]) -> None:
    for part in ("hyper_parameters", "datamodule_hyper_parameters"):
        found = [key for key in _CODE_KEYS if key in (checkpoint.get(part) or {})]
        if found:
            raise UserError(
                f"{path} asks for code to be imported and called ({part}: {found[0]}). It was refused, and nothing in "
                "it was run."
            )


def _damaged(path: Path, why: str) -> UserError:
    return UserError(f"The checkpoint {path} is damaged: {why}.{_offer(path)}")


def _offer(path: Path) -> str:
    """A whole checkpoint in the same folder to go on with, in a sentence; empty if there is none."""
    for name in ("last.ckpt", "previous.ckpt"):
        other = path.with_name(name)
        if other != path and other.is_file():
            try:
                if not _check_bytes(other, other.read_bytes()):
                    continue
            except (UserError, OSError):
                continue
            return f" {other} is whole: go on with --resume {other}"
    return " There is no whole checkpoint beside it."


def _first_line(error: BaseException) -> str:
    return (str(error).strip().splitlines() or [type(error).__name__])[0].rstrip(".")
