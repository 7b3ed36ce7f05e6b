"""What makes two runs the same run: configuration, data, library versions and source code."""

import functools
import hashlib
import json
import platform
import subprocess
from collections.abc import Mapping
from importlib import metadata
from pathlib import Path
from typing import Any

import pytorch_lightning as pl
import torch
import torchvision

from fmnist_pl.configuration import MONITORS
from fmnist_pl.data import VALIDATION_IMAGES
from fmnist_pl.dataset.files import FASHION_MNIST
from fmnist_pl.dataset.synthetic import SYNTHETIC_IMAGES, VERSION

IDENTITY_FILE = "identity.json"  # written into the run's folder at the start

# The parts of the configuration that bear on a run's metrics, and what of them does not: where files lie, what is
# shown. The variant's name is left out too: what counts is what is in its overlay.
RELEVANT = ("seed_everything", "model", "data", "trainer", "monitors", "test_checkpoint")
_SHOWN = {"enable_progress_bar", "enable_model_summary", "log_every_n_steps", "profiler"}
IRRELEVANT = {
    "data": {"root", "seed"},  # the seed is linked to the run's
    "trainer": {"logger", "default_root_dir", *_SHOWN},
}
PACKAGE = Path(__file__).parents[1]
SOURCES = (".", "../callbacks/training_health")  # from the package's folder


def identity(config: Any) -> dict[str, Any]:  # noqa: ANN401
    """The identity of the run that ``fit`` would do with a parsed ``config``, before anything in it is instantiated.

    Returns:
        ``config`` (a hash), ``data`` (which images, and how they are split), ``versions`` (but Python's), ``code`` (see
        `code_version`), ``digest``: a hash of all; and ``options``: a hash of the configuration without the seed.
    """
    relevant = relevant_config(config)
    data = relevant["data"]
    files = (
        [VERSION, SYNTHETIC_IMAGES] if data["dataset"] == "synthetic" else [file.sha256 for file in FASHION_MNIST.all]
    )
    parts = {
        "config": content_hash(relevant),
        "data": {
            "dataset": data["dataset"],
            "files": content_hash(files),
            "validation_images": VALIDATION_IMAGES[data["dataset"]],
            "training_images": data["training_images"],
        },
        "versions": {name: version for name, version in versions().items() if name != "python"},
        "code": code_version(),
    }
    options = {name: value for name, value in relevant.items() if name != "seed_everything"}
    return {**parts, "digest": content_hash(parts), "options": content_hash(options)}


def relevant_config(config: Any) -> dict[str, Any]:  # noqa: ANN401
    """The part of a configuration that bears on a run's metrics, as plain values."""
    values = _plain(config)
    if values.get("monitors") == "off":  # a run takes them out
        callbacks = values["trainer"]["callbacks"] or []
        values["trainer"]["callbacks"] = [each for each in callbacks if each["class_path"] not in MONITORS]
    return {
        name: {key: value for key, value in values[name].items() if key not in IRRELEVANT[name]}
        if name in IRRELEVANT
        else values[name]
        for name in RELEVANT
        if name in values
    }


def content_hash(value: Any) -> str:  # noqa: ANN401
    """SHA-256 of a plain value: the same for equal content, whatever the order of its keys."""
    return hashlib.sha256(json.dumps(value, sort_keys=True, default=str).encode()).hexdigest()


def versions() -> dict[str, str]:
    """The versions of everything that the metrics depend on; without Numba the stock layers run."""
    return {
        "python": platform.python_version(),
        "torch": str(torch.__version__),
        "torchvision": str(torchvision.__version__),
        "pytorch_lightning": pl.__version__,
        "numba": _installed("numba"),
    }


@functools.cache  # this process keeps the code that it has loaded, whatever becomes of the files
def code_version(package: Path = PACKAGE) -> str:
    """Version of the source code: ``COMMIT``, ``COMMIT-dirty-HASH`` with changes, outside git the package's version."""
    try:
        _git(package, "ls-files", "--error-unmatch", "__init__.py")  # not just a folder in somebody's repository
        commit = _git(package, "rev-parse", "HEAD").decode().strip()
        changes = [_git(package, "diff", "HEAD", "--", *SOURCES)]
        untracked = _git(package, "ls-files", "--others", "--exclude-standard", "-z", "--", *SOURCES)
        changes += [name + (package / name.decode()).read_bytes() for name in untracked.split(b"\0")[:-1]]
    except (OSError, subprocess.CalledProcessError):
        return f"fmnist_pl {_installed('fmnist_pl')}"
    digest = hashlib.sha256(b"\0".join(changes)).hexdigest()
    return f"{commit}-dirty-{digest[:12]}" if any(changes) else commit


def _installed(distribution: str) -> str:
    try:
        return metadata.version(distribution)
    except metadata.PackageNotFoundError:
        return "none"


def _git(folder: Path, *command: str) -> bytes:
    return subprocess.run(["git", "-C", str(folder), *command], capture_output=True, check=True).stdout


def _plain(value: Any) -> Any:  # noqa: ANN401
    """Namespaces as dicts, sequences as lists, anything that JSON lacks as its text."""
    if hasattr(value, "as_dict"):
        value = value.as_dict()
    if isinstance(value, Mapping):
        return {str(key): _plain(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [_plain(item) for item in value]
    return value if value is None or isinstance(value, bool | int | float | str) else str(value)
