"""A network whose dead units are known by construction, in two forms with the same weights; and its examples.

Dead are units with a bias that no input can lift, units whose weights are negative behind inputs that never are
(born dead), and channels whose BatchNorm has weight 0 and bias -1: in training and in eval mode, for any input in
[0, 1]. Alive but easily taken for dead are two units of each site: one fires for example `ONE` alone, in the first site
at three of its 784 positions; one for `ONE` and the `FEW` alone.
"""

import torch
from torch import Tensor, nn
from torch.nn import functional as F

EXAMPLES, BATCH, ONE, FEW = 1024, 64, 700, slice(5, None, 128)
SITES = {"conv1": 16, "conv2": 16, "fc1": 32, "fc2": 32}  # and their units
DEAD = {"conv1": [0, 1, 2], "conv2": [3, 4], "fc1": [5, 6, 7, 8, 9], "fc2": [10, 11, 12, 13]}
FIRES_FOR_ONE, FIRES_FOR_FEW = 14, 15  # units of each site


class Easy(nn.Module):
    """Every ReLU is a module of its own."""

    def __init__(self, seed: int = 0) -> None:
        super().__init__()
        self.conv1, self.relu1 = nn.Conv2d(1, 16, 3, padding=1), nn.ReLU()
        self.conv2, self.bn, self.relu2 = nn.Conv2d(16, 16, 3, padding=1), nn.BatchNorm2d(16), nn.ReLU()
        self.fc1, self.relu3 = nn.Linear(784, 32), nn.ReLU()
        self.fc2, self.relu4 = nn.Linear(32, 32), nn.ReLU()
        self.pool, self.dropout, self.out = nn.MaxPool2d(2), nn.Dropout(0.2), nn.Linear(32, 10)
        self._plant(torch.Generator().manual_seed(seed))

    def forward(self, x: Tensor) -> Tensor:
        """Logits (N, 10) of images (N, 1, 28, 28)."""
        x = self.pool(self.relu1(self.conv1(x)))
        x = self.pool(self.relu2(self.bn(self.conv2(x))))
        x = self.relu4(self.fc2(self.relu3(self.fc1(x.flatten(1)))))
        return self.out(self.dropout(x))

    @torch.no_grad()
    def _plant(self, generator: torch.Generator) -> None:
        layers = [self.conv1, self.conv2, self.fc1, self.fc2]
        for layer, dead in zip(layers, DEAD.values(), strict=True):
            weight, bias = layer.weight, layer.bias
            assert bias is not None
            fan_in = weight[0].numel()
            spread = fan_in**-0.5 if weight.dim() == 4 else 1 / fan_in  # so that the live ones fire often
            weight.copy_(torch.randn(weight.shape, generator=generator) * spread + 1 / fan_in)
            bias.zero_()
            weight[[FIRES_FOR_ONE, FIRES_FOR_FEW]] = 0
            if layer is self.conv2:
                self.bn.weight[dead], self.bn.bias[dead] = 0.0, -1.0
            else:
                born_dead = {self.conv1: 3, self.fc1: 3, self.fc2: 0}[layer]  # the first of them are dead by bias
                bias[dead[:born_dead]] = -1e4
                weight[dead[born_dead:]] = -weight[dead[born_dead:]].abs()
        for unit, bias in ((FIRES_FOR_ONE, -0.985), (FIRES_FOR_FEW, -0.92)):  # see `examples`
            self.conv1.weight[unit, 0, 1, 1], self.conv1.bias[unit] = 1.0, bias
            self.conv2.weight[unit, unit, 1, 1] = 1.0
            self.fc1.weight[unit, 49 * unit : 49 * (unit + 1)] = 1.0
            self.fc2.weight[unit, unit] = 1.0
        self.out.weight.copy_(torch.randn(self.out.weight.shape, generator=generator) / 32**0.5)
        self.out.bias.zero_()


class Hard(Easy):
    """The same weights and numbers with ``F.relu``, an in-place module that is called twice, and ``torch.relu``."""

    def __init__(self, seed: int = 0) -> None:
        super().__init__(seed)
        del self.relu1, self.relu2, self.relu3, self.relu4
        self.act = nn.ReLU(inplace=True)

    def forward(self, x: Tensor) -> Tensor:
        """Logits (N, 10) of images (N, 1, 28, 28)."""
        x = self.pool(F.relu(self.conv1(x)))
        x = self.pool(self.act(self.bn(self.conv2(x))))
        x = torch.relu(self.fc2(self.act(self.fc1(x.flatten(1)))))
        return self.out(self.dropout(x))


FORMS = {"easy": Easy, "hard": Hard}


def examples(seed: int = 0) -> tuple[Tensor, Tensor]:
    """Noise below 0.9, with three pixels of 1 in `ONE` and one of 0.97 in each of the `FEW`; and classes to learn."""
    generator = torch.Generator().manual_seed(seed + 1000)
    images = torch.rand(EXAMPLES, 1, 28, 28, generator=generator) * 0.9
    images[FEW, 0, 14, 14] = 0.97
    for row, column in ((6, 6), (6, 20), (20, 6)):
        images[ONE, 0, row, column] = 1.0
    return images, torch.randint(10, (EXAMPLES,), generator=generator)


@torch.no_grad()
def count(network: Easy, batches: list[Tensor]) -> dict[str, list[int]]:
    """For how many examples each unit fires, per site: layer by layer, in the network's mode, without hooks."""
    fired: dict[str, list[Tensor]] = {site: [] for site in SITES}
    for batch in batches:
        x = batch
        for site in SITES:
            if site == "fc1":
                x = x.flatten(1)
            x = network.get_submodule(site)(x)
            if site == "conv2":
                n = network.bn
                x = F.batch_norm(x, n.running_mean, n.running_var, n.weight, n.bias, n.training, momentum=0.0)
            fired[site].append((x > 0).flatten(2).any(2) if x.dim() == 4 else x > 0)
            x = x.clamp(min=0)
            x = F.max_pool2d(x, 2) if x.dim() == 4 else x
    return {site: torch.cat(found).sum(0).tolist() for site, found in fired.items()}
