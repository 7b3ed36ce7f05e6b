"""Checkpoint files: the zip archives of ``torch.save``, whose CRC-32 sums are checked before anything is loaded."""

import errno
import io
import os
import pickle
import re
import shlex
import stat
import zipfile
import zlib
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from pytorch_lightning.plugins import CheckpointIO

from training_health.durable_file import replace_durably
from training_health.errors import UserError

BEST, LAST, PREVIOUS = "best.ckpt", "last.ckpt", "previous.ckpt"
RESUMABLE = (LAST, PREVIOUS)  # what a run resumes from, in this order
_MOST_BYTES = 4 << 30
HOLD = {"hold": True}  # storage options


def checkpoint_bytes(checkpoint: dict[str, Any]) -> bytes:
    """Content of a checkpoint's file; UserError, which names the part, if it could not be loaded safely."""
    content, error = _saved(checkpoint)
    if error is not None:
        parts = {**checkpoint.get("callbacks", {}), **checkpoint}
        name = next((name for name, value in parts.items() if _saved(value)[1] is not None), "something")
        raise UserError(
            f"No run could resume from a checkpoint with the state of {name.partition('{')[0]}. Callbacks and "
            "hyper-parameters must hold tensors and plain values (numbers, strings, lists, dicts). "
            f"torch says: {_first_line(error)}"
        )
    return content


def _saved(value: Any) -> tuple[bytes, Exception | None]:  # noqa: ANN401
    """A value as torch saves it, and what makes that impossible to load."""
    buffer = io.BytesIO()
    try:
        torch.save(value, buffer)
        torch.load(io.BytesIO(buffer.getbuffer()), map_location="cpu", weights_only=True)
    except (pickle.PickleError, AttributeError, TypeError) as error:
        return b"", error
    return buffer.getvalue(), None


def write_checkpoint(path: Path, content: bytes, keep_as: str | None = None) -> None:
    """Write a checkpoint whole or not at all; ``keep_as``: name in the folder for the file before, if it is whole."""
    try:
        if keep_as and path.exists() and damage(_read(path)) is None:
            os.replace(path, path.with_name(keep_as))
        replace_durably(path, content)
    except OSError as error:
        again = "start again"
        if any(os.path.exists(path.with_name(name)) for name in RESUMABLE):  # False also where it may not be asked
            again = f"resume: fmnist fit --resume {shlex.quote(str(path.parents[1]))}"
        raise UserError(
            f"The checkpoint {path} cannot be written: {error.strerror}. The run ends here, since it could not be "
            f"resumed later. Make room or correct the permissions, then {again}"
        ) from error


def evaluated_file(given: str | Path) -> Path:
    """The checkpoint that is meant where one is evaluated: a file, or the best one of a run's folder.

    Raises:
        UserError: It is a URL, or there is none; what else may be meant is named.
    """
    path = Path(given)
    if re.match(r"\w{2,}:/", str(given)):
        raise UserError(f"{given} is a URL: download the checkpoint, and give its file.", exit_code=2)
    file = path / "checkpoints" / BEST if path.is_dir() else path
    if file.exists():
        return file
    synthetic = path.parent.with_name(f"{path.parent.name}-synthetic") / path.name if path.parent.name else path
    if runs := sorted(folder.parent for folder in path.glob("version_*/checkpoints")):
        hint = f" It is in one of {path}'s runs: {', '.join(map(str, runs[-3:]))}."
    elif saved := sorted(path.glob("checkpoints/*.ckpt")):
        hint = f" There is {saved[0]}."
    else:
        hint = f" There is {synthetic}." if synthetic.is_dir() else ""
    raise UserError(
        f"There is no checkpoint {file}.{hint} Give the folder of a run, or the path of a checkpoint file.", exit_code=2
    )


def load_checked(path: str | Path, map_location: Any = "cpu") -> dict[str, Any]:  # noqa: ANN401
    """Read a checkpoint; UserError if it is not there, damaged, or holds more than tensors and plain values."""
    path = Path(path)
    try:
        content = _read(path)
    except FileNotFoundError:
        raise UserError(
            f"There is no checkpoint {path}. Give the folder of a run, or the path of a checkpoint file.", exit_code=2
        ) from None
    except OSError as error:
        raise UserError(f"The checkpoint {path} cannot be read: {error.strerror}.") from error
    why = damage(content)
    if why is not None:
        raise _damaged(path, why)
    try:
        checkpoint = torch.load(io.BytesIO(content), map_location=map_location, weights_only=True)
    except pickle.UnpicklingError:
        raise UserError(
            f"{path} holds something other than tensors and plain values, as a file with planted code does. "
            "Nothing in it was run. Use a checkpoint that you trust."
        ) from None
    except Exception as error:  # whatever torch makes of a file that is no checkpoint
        raise _damaged(path, _first_line(error)) from None
    if not isinstance(checkpoint, dict) or not isinstance(checkpoint.get("state_dict"), dict):
        raise UserError(f"{path} is not a checkpoint of a training run: it has no state_dict.")
    return checkpoint


def _read(path: Path) -> bytes:
    """The content of a regular file of a possible size; OSError for what would block, or fill the memory."""
    found = path.stat()
    if not stat.S_ISREG(found.st_mode) or found.st_size > _MOST_BYTES:
        raise OSError(errno.EINVAL, f"it is no regular file of up to {_MOST_BYTES >> 30} GiB")
    return path.read_bytes()


def damage(content: bytes) -> str | None:
    """What is wrong with the bytes of an archive; None if its CRC-32 sums fit."""
    try:
        with zipfile.ZipFile(io.BytesIO(content)) as archive:
            bad = archive.testzip()
    except (zipfile.BadZipFile, ValueError, EOFError, NotImplementedError, RuntimeError, OSError, zlib.error) as error:
        return _first_line(error)
    return None if bad is None else f"the CRC of {bad} does not fit"


class DurableCheckpointIO(CheckpointIO):
    """Plugin of the Trainer that writes checkpoints whole or not at all, and loads none that is damaged or holds code.

    Writing costs a copy of the checkpoint in memory and two fsyncs.

    >>> from pytorch_lightning import Trainer
    >>> trainer = Trainer(plugins=[DurableCheckpointIO()], logger=False, accelerator="cpu")
    """

    def __init__(self) -> None:
        self._held: tuple[Path, bytes] | None = None

    def save_checkpoint(
        self, checkpoint: dict[str, Any], path: str | Path, storage_options: dict[str, Any] | None = None
    ) -> None:
        """Write a checkpoint; the storage options `HOLD` keep it in memory until `write_held`.

        Raises:
            UserError: It cannot be written; what was there is still there.
        """
        content = checkpoint_bytes(checkpoint)
        if storage_options == HOLD:
            self._held = Path(path), content
        else:
            write_checkpoint(Path(path), content)

    def write_held(self) -> None:
        """Write the checkpoint that is held, if any; the one that it replaces becomes ``previous.ckpt``."""
        if self._held is not None:
            write_checkpoint(*self._held, keep_as=PREVIOUS)
            self._held = None

    def load_checkpoint(
        self, path: str | Path, map_location: Callable | None = None, weights_only: bool | None = None
    ) -> dict[str, Any]:
        """Load a checkpoint with `load_checked`, whatever ``weights_only`` asks for."""
        return load_checked(path, map_location or "cpu")

    def remove_checkpoint(self, path: str | Path) -> None:
        """Delete a checkpoint if it is there."""
        Path(path).unlink(missing_ok=True)


def _damaged(path: Path, why: str) -> UserError:
    if path.suffix not in {".ckpt", ".pt", ".pth"}:
        return UserError(f"{path} is no checkpoint: {why}. Give the folder of a run, or a .ckpt file.", exit_code=2)
    others = (path.with_name(name) for name in (BEST, *RESUMABLE) if name != path.name)
    whole = next((other for other in others if _is_whole(other)), None)
    return UserError(
        f"The checkpoint {path} is damaged: {why}. "
        + ("Use another one." if whole is None else f"{whole} beside it is whole.")
    )


def _is_whole(path: Path) -> bool:
    try:
        return damage(_read(path)) is None
    except OSError:  # it is not there, or cannot be read
        return False


def _first_line(error: BaseException) -> str:
    return (str(error).strip().splitlines() or [type(error).__name__])[0].rstrip(".")
