"""Networks that are not ours, for images of 3 x 32 x 32 and ten classes."""

import torch
from torch import Tensor, nn
from torchvision.models import resnet18


class Transformer(nn.Module):
    """PyTorch's own encoder layers with ReLU, on patches of 4 x 4: 64 tokens, two layers of 64."""

    def __init__(self) -> None:
        super().__init__()
        self.patches = nn.Conv2d(3, 64, 4, 4)
        layer = nn.TransformerEncoderLayer(64, 4, 256, activation="relu", batch_first=True)
        self.encoder, self.head = nn.TransformerEncoder(layer, 2), nn.Linear(64, 10)

    def forward(self, images: Tensor) -> Tensor:
        """Logits (N, 10)."""
        return self.head(self.encoder(self.patches(images).flatten(2).transpose(1, 2)).mean(1))


class UNet(nn.Module):
    """Three levels of 16, 32 and 64 channels with skip connections (Ronneberger 2015), and a mean over the image."""

    def __init__(self) -> None:
        super().__init__()

        def twice(inputs: int, outputs: int) -> nn.Sequential:
            layers = [nn.Sequential(nn.Conv2d(n, outputs, 3, padding=1), nn.ReLU()) for n in (inputs, outputs)]
            return nn.Sequential(*layers)

        self.down1, self.down2, self.bottom = twice(3, 16), twice(16, 32), twice(32, 64)
        self.up2, self.up1 = nn.ConvTranspose2d(64, 32, 2, 2), nn.ConvTranspose2d(32, 16, 2, 2)
        self.merge2, self.merge1, self.head = twice(64, 32), twice(32, 16), nn.Conv2d(16, 10, 1)
        self.pool = nn.MaxPool2d(2)

    def forward(self, images: Tensor) -> Tensor:
        """Logits (N, 10)."""
        fine = self.down1(images)
        middle = self.down2(self.pool(fine))
        middle = self.merge2(torch.cat([middle, self.up2(self.bottom(self.pool(middle)))], 1))
        return self.head(self.merge1(torch.cat([fine, self.up1(middle)], 1))).mean((2, 3))


def with_sites(sites: float) -> nn.Module:
    """That many ReLUs between dense layers of 16."""
    layers = [layer for _ in range(int(sites)) for layer in (nn.ReLU(), nn.Linear(16, 16))]
    return nn.Sequential(nn.Flatten(), nn.Linear(3072, 16), *layers)


def with_parameters(millions: float) -> nn.Module:
    """Two hidden dense layers of as many units as make so many parameters: 3072 n + n^2 + 10 n + n + n + 10."""
    units = round((1542**2 + 1e6 * millions - 10) ** 0.5 - 1542)
    layers = [nn.Linear(3072, units), nn.ReLU(), nn.Linear(units, units), nn.ReLU(), nn.Linear(units, 10)]
    return nn.Sequential(nn.Flatten(), *layers)


NETWORKS = {
    "ResNet-18": lambda: resnet18(num_classes=10),
    "transformer": Transformer,
    "U-Net": UNet,
}
FAMILIES = {"ReLU sites": with_sites, "million parameters": with_parameters}


def network(name: str) -> nn.Module:
    """One of `NETWORKS`, or a size of one of `FAMILIES`, as in ``500 ReLU sites``."""
    size, _, family = name.partition(" ")
    return FAMILIES[family](float(size)) if family in FAMILIES else NETWORKS[name]()
