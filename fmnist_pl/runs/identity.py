"""What makes two runs the same run: configuration, data, source code and library versions, by content."""

import hashlib
import json
from collections.abc import Iterator, Mapping
from typing import Any

from fmnist_pl.runs.source_hash import source_hash

FILE_NAME = "identity.json"  # written into the run's folder at the start

# The parts of the configuration that bear on a run's figures, and what of them does not: where files lie, what is
# shown. The variant's name is left out too: what counts is what is in its overlay.
RELEVANT = ("seed_everything", "model", "data", "trainer", "monitors", "test_checkpoint")
IRRELEVANT = {
    "data": {"root", "seed"},  # the seed is linked to the run's
    "trainer": {
        "logger",
        "default_root_dir",
        "enable_progress_bar",
        "enable_model_summary",
        "log_every_n_steps",
        "profiler",
    },
}

_CODE: dict[frozenset[str], str] = {}  # hash of each set of modules that was asked for


def identity(config: Any, versions: Mapping[str, str]) -> dict[str, Any]:  # noqa: ANN401
    """The identity of the run that ``config`` describes.

    Args:
        config: The parsed configuration of ``fit``, before anything in it is instantiated.
        versions: Of Python (which is left out) and the libraries.

    Returns:
        ``config``, ``code`` (hashes), ``data`` (see `data_identity`), ``versions``, and ``digest``: a hash of all.
    """
    relevant = relevant_config(config)
    parts = {
        "config": content_hash(relevant),
        "data": data_identity(relevant["data"]),
        "code": _code(frozenset(["fmnist_pl.classifier", "fmnist_pl.data", *_class_paths(relevant)])),
        "versions": {name: version for name, version in versions.items() if name != "python"},
    }
    return {**parts, "digest": content_hash(parts)}


def relevant_config(config: Any) -> dict[str, Any]:  # noqa: ANN401
    """The part of a parsed configuration that bears on a run's figures, as plain values."""
    values = _plain(config)
    return {
        name: {key: value for key, value in values[name].items() if key not in IRRELEVANT[name]}
        if name in IRRELEVANT
        else values[name]
        for name in RELEVANT
        if name in values
    }


def data_identity(data: Mapping[str, Any]) -> dict[str, Any]:
    """Which images a run was trained and tested on, and how they were split.

    The four files are known by their hashes, which every read verifies; the drawn garments by the source code.

    Args:
        data: Plain values of the data module's arguments.
    """
    from fmnist_pl.data import SYNTHETIC_IMAGES, VALIDATION_IMAGES
    from fmnist_pl.dataset.files import FASHION_MNIST

    if data["dataset"] == "synthetic":
        files = content_hash(SYNTHETIC_IMAGES)
    else:
        files = content_hash([file.sha256 for file in FASHION_MNIST.all])
    return {
        "dataset": data["dataset"],
        "files": files,
        "validation_images": VALIDATION_IMAGES,
        "training_images": data["training_images"],
    }


def content_hash(value: Any) -> str:  # noqa: ANN401
    """SHA-256 of a plain value: the same for equal content, whatever the order of its keys."""
    return hashlib.sha256(json.dumps(value, sort_keys=True).encode()).hexdigest()


def code_is_unchanged() -> bool:
    """Whether the source files are still those that this process took its identities from."""
    return all(source_hash(modules) == before for modules, before in _CODE.items())


def _code(modules: frozenset[str]) -> str:
    """Hashed once: this process goes on with the code that it has loaded, whatever becomes of the files."""
    if modules not in _CODE:
        _CODE[modules] = source_hash(modules)
    return _CODE[modules]


def _plain(value: Any) -> Any:  # noqa: ANN401
    """Namespaces as dicts, sequences as lists, anything that JSON lacks as its text."""
    if hasattr(value, "as_dict"):
        value = value.as_dict()
    if isinstance(value, Mapping):
        return {str(key): _plain(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [_plain(item) for item in value]
    return value if value is None or isinstance(value, bool | int | float | str) else str(value)


def _class_paths(value: Any) -> Iterator[str]:  # noqa: ANN401
    if isinstance(value, dict):
        if isinstance(value.get("class_path"), str):
            yield value["class_path"]
        value = list(value.values())
    if isinstance(value, list):
        for item in value:
            yield from _class_paths(item)
