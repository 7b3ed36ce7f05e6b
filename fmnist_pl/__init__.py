"""Fashion-MNIST CNN variants. Importing this package imports neither torch nor Lightning.

Public are the command ``fmnist``, the names below and the classes that a file in ``configs/`` names. Their docstrings
have an example that runs. All other names are internal and may change without notice.
"""

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from fmnist_pl.classifier import FashionClassifier
    from fmnist_pl.data import FashionMNISTDataModule
    from fmnist_pl.network import FashionCNN
    from fmnist_pl.predictions import PredictionImages

__all__ = ["FashionCNN", "FashionClassifier", "FashionMNISTDataModule", "PredictionImages"]

_MODULE_OF = {
    "FashionCNN": "network",
    "FashionClassifier": "classifier",
    "FashionMNISTDataModule": "data",
    "PredictionImages": "predictions",
}


def __getattr__(name: str) -> Any:  # noqa: ANN401 - PEP 562
    if name not in _MODULE_OF:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(import_module(f"{__name__}.{_MODULE_OF[name]}"), name)
