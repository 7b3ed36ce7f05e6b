"""Floating-point operations of a training step: what the convolutions and dense layers of the network need."""

import torch

from fmnist_pl.network import FashionCNN


def training_flops(batch_size: int, **network: object) -> int:
    """Multiplications and additions of forward and backward pass; pools, activations and the optimiser not counted.

    The backward pass needs twice the forward pass, except for the first layer, which needs no input gradient.
    """
    model = FashionCNN(**network).eval()  # type: ignore[arg-type]
    forward: list[int] = []

    def count(module: torch.nn.Module, _inputs: object, output: torch.Tensor) -> None:
        weight = module.weight
        assert isinstance(weight, torch.Tensor)
        forward.append(2 * weight[0].numel() * output[0].numel())

    for module in model.modules():
        if isinstance(module, torch.nn.Conv2d | torch.nn.Linear):
            module.register_forward_hook(count)
    with torch.no_grad():
        model(torch.zeros(1, 1, 28, 28))
    return batch_size * (3 * sum(forward) - forward[0])
