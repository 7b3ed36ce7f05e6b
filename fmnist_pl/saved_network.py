"""A trained network, from a run's folder or a checkpoint, with the data that it was trained on."""

from pathlib import Path
from textwrap import shorten
from typing import Any, NamedTuple

from fmnist_pl.checkpoints.checkpoint_file import evaluated_file, load_checked
from fmnist_pl.classifier import FashionClassifier
from fmnist_pl.data import FashionMNISTDataModule
from fmnist_pl.runs.record import RUN
from training_health.errors import UserError


class SavedNetwork(NamedTuple):
    """What a checkpoint holds, ready to be evaluated."""

    file: Path
    checkpoint: dict[str, Any]
    model: FashionClassifier
    data: FashionMNISTDataModule  # before `setup`


def load_network(run: Path, root: str | None) -> SavedNetwork:
    """Load a run's best checkpoint, or any checkpoint.

    Args:
        run: A run's folder, or a checkpoint.
        root: Folder of the data; None: DATA_DIR, else ``data``.

    Raises:
        UserError: It is not there, damaged, or of another network.
    """
    file = evaluated_file(run)
    checkpoint = load_checked(file)
    try:
        model = FashionClassifier(**checkpoint.get("hyper_parameters", {}))
        model.load_state_dict(checkpoint["state_dict"])
    except (TypeError, ValueError, RuntimeError) as error:
        reason = " ".join(str(error).split())  # torch's lines name the weights, each in one of its own
        raise UserError(f"{file} does not hold a network of this package: {shorten(reason, 300)}") from error
    data = FashionMNISTDataModule(root=root, dataset=checkpoint.get(RUN, {}).get("dataset", "fashion_mnist"))
    data.prepare_data()
    return SavedNetwork(file, checkpoint, model, data)
