"""What a configuration must keep to before anything is trained: a network that can be built, and is small enough."""

import inspect
from collections.abc import Mapping
from typing import Any

import torch

from fmnist_pl.network import FashionCNN, parameter_count

LARGEST = 500_000  # parameters


def parameters_of(overlay: Mapping[str, Any]) -> int:
    """Number of weights of the network that an overlay describes; nothing is allocated.

    Raises:
        ValueError: There is no such network, for instance because the image would shrink to nothing.
    """
    known = inspect.signature(FashionCNN).parameters
    with torch.device("meta"):
        return parameter_count(FashionCNN(**{key: value for key, value in overlay["model"].items() if key in known}))


def refusal(overlay: Mapping[str, Any], parameters_at_most: int = LARGEST) -> str | None:
    """Why a configuration must not be trained; None if it may."""
    try:
        parameters = parameters_of(overlay)
    except ValueError as error:
        return str(error)
    if parameters > parameters_at_most:
        return f"{parameters:,} parameters, and {parameters_at_most:,} are allowed"
    return None
