"""What a configuration must keep to before anything is trained: a network that exists, and is small and fast enough."""

import inspect
from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor, nn

from fmnist_pl.network import FashionCNN, parameter_count

LARGEST = 500_000  # parameters
IMAGE_SIZE = 28


def parameters_of(overlay: Mapping[str, Any]) -> int:
    """Number of weights of the network that an overlay describes; nothing is allocated.

    Raises:
        ValueError: There is no such network, for instance because the image would shrink to nothing.
    """
    return parameter_count(_network(overlay))


def multiplications_of(overlay: Mapping[str, Any]) -> int:
    """Multiplications of weights with activations in one image's forward pass; nothing is computed.

    Every weight of a convolution is used once per position of its output, every weight of a linear layer once.

    Raises:
        ValueError: There is no such network.
    """
    total = 0

    def count(layer: nn.Module, _inputs: object, output: Tensor) -> None:
        nonlocal total
        assert isinstance(layer.weight, Tensor)
        total += layer.weight.numel() * output[0, 0].numel()

    network = _network(overlay).eval()
    for layer in network.modules():
        if isinstance(layer, (nn.Conv2d, nn.Linear)):
            layer.register_forward_hook(count)
    with torch.no_grad(), torch.device("meta"):
        network(torch.empty(1, 1, IMAGE_SIZE, IMAGE_SIZE))
    return total


def refusal(
    overlay: Mapping[str, Any], parameters_at_most: int = LARGEST, multiplications_at_most: int | None = None
) -> str | None:
    """Why a configuration must not be trained; None if it may."""
    try:
        parameters = parameters_of(overlay)
    except ValueError as error:
        return str(error)
    if parameters > parameters_at_most:
        return f"{parameters:,} parameters, and {parameters_at_most:,} are allowed"
    if multiplications_at_most is not None and (number := multiplications_of(overlay)) > multiplications_at_most:
        return f"{number:,} multiplications per image, and {multiplications_at_most:,} are allowed"
    return None


def _network(overlay: Mapping[str, Any]) -> FashionCNN:
    known = inspect.signature(FashionCNN).parameters
    with torch.device("meta"):
        return FashionCNN(**{key: value for key, value in overlay["model"].items() if key in known})
