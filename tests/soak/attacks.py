"""Checkpoints with planted code: each would leave a file behind if any of it ran."""

import io
import pickle
import tempfile
import warnings
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytorch_lightning as pl
import torch

from fmnist_pl.checkpoints.checkpoint_file import load_checked, sealed_bytes
from fmnist_pl.checkpoints.durable_io import DurableCheckpointIO
from fmnist_pl.classifier import FashionClassifier
from training_health.errors import UserError

_HONEST = {"state_dict": {}, "hyper_parameters": {}, "callbacks": {}, "loops": {}}


class Planted:
    """Creates a file when it is unpickled."""

    def __init__(self, call: Callable[..., Any], *arguments: Any) -> None:
        self.call, self.arguments = call, arguments

    def __reduce__(self) -> tuple[Callable[..., Any], tuple[Any, ...]]:
        return self.call, self.arguments


def planted_files(folder: Path, mark: Path) -> dict[str, Path]:
    """Write one checkpoint for each way to plant code; what runs creates ``mark``."""
    touch = Planted(Path.touch, mark)
    shell = Planted(__import__("os").system, f"touch {mark}")
    source = Planted(exec, f"open({str(mark)!r}, 'w').close()")
    contents: dict[str, bytes] = {
        f"{what} in {place}": _torch_save({**_HONEST, place: {"x": code}})
        for what, code in {"a call": touch, "a shell command": shell, "source code": source}.items()
        for place in ("state_dict", "hyper_parameters", "callbacks", "loops", "optimizer_states")
    }
    contents["a bare pickle"] = pickle.dumps({**_HONEST, "x": shell})
    contents["torch's old format"] = _torch_save({**_HONEST, "x": shell}, _use_new_zipfile_serialization=False)
    contents["a sealed call"] = _sealed(_torch_save({**_HONEST, "x": touch}))
    contents["a compressed archive"] = _compressed(_torch_save({**_HONEST, "x": shell}))
    imported = {"_instantiator": "os.system", "_class_path": f"touch {mark}"}
    for key, value in {**imported, "_target_": "os.system"}.items():
        contents[f"hyper-parameter {key}"] = _torch_save({**_HONEST, "hyper_parameters": {key: value}})
        contents[f"sealed hyper-parameter {key}"] = sealed_bytes({**_HONEST, "hyper_parameters": {key: value}})
        contents[f"data hyper-parameter {key}"] = _torch_save({**_HONEST, "datamodule_hyper_parameters": {key: value}})
    files = {}
    for number, (name, content) in enumerate(contents.items()):
        files[name] = folder / f"http{number}.ckpt"  # Lightning takes a name like this for an address, and trusts it
        files[name].write_bytes(content)
    return files


def ways_to_load(file: Path) -> dict[str, Callable[[], Any]]:
    """Every way by which this package comes to load a checkpoint."""
    trainer = pl.Trainer(
        plugins=[DurableCheckpointIO()],
        accelerator="cpu",
        logger=False,
        enable_progress_bar=False,
        enable_model_summary=False,
        enable_checkpointing=False,
    )
    images = torch.utils.data.DataLoader([(torch.zeros(1, 6, 6), 0)])
    model = FashionClassifier(conv_channels=(2,), hidden_units=(2,), image_size=6)
    return {
        "checked": lambda: load_checked(file),
        "trusting": lambda: DurableCheckpointIO().load_checkpoint(file, weights_only=False),
        "fit": lambda: trainer.fit(model, images, ckpt_path=file, weights_only=False),
        "test": lambda: trainer.test(model, images, ckpt_path=file, weights_only=False, verbose=False),
    }


def check() -> tuple[int, list[str]]:
    """Load every planted checkpoint in every way; return how many times, and what ran or was not refused in words."""
    found, attempts = [], 0
    with tempfile.TemporaryDirectory() as name, warnings.catch_warnings():
        warnings.simplefilter("ignore")
        folder = Path(name)
        mark = folder / "it-ran"
        for attack, file in planted_files(folder, mark).items():
            for way, load in ways_to_load(file).items():
                attempts += 1
                try:
                    load()
                    found.append(f"{attack}, {way}: loaded")
                except UserError as error:
                    if str(file) not in str(error):
                        found.append(f"{attack}, {way}: the message does not name the file")
                if mark.exists():
                    mark.unlink()
                    found.append(f"{attack}, {way}: it ran")
    return attempts, found


def soak() -> str:
    attempts, found = check()
    assert not found, "\n".join(found)
    return f"{attempts} loads of checkpoints with planted code: 0 executions"


def _torch_save(value: Any, **options: Any) -> bytes:
    buffer = io.BytesIO()
    torch.save(value, buffer, **options)
    return buffer.getvalue()


def _sealed(archive: bytes) -> bytes:
    """The archive with a seal that fits: a seal shows damage, not where a file comes from."""
    import hashlib

    body = archive[:-2] + (81).to_bytes(2, "little")
    return body + b"fmnist_pl sha256 " + hashlib.sha256(body).hexdigest().encode()


def _compressed(archive: bytes) -> bytes:
    buffer = io.BytesIO()
    with zipfile.ZipFile(io.BytesIO(archive)) as old, zipfile.ZipFile(buffer, "w", zipfile.ZIP_DEFLATED) as new:
        for entry in old.infolist():
            new.writestr(entry.filename, old.read(entry))
    return buffer.getvalue()
