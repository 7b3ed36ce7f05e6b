"""Random changes of a training batch, decided for each image and computed for all at once.

torchvision's own transforms decide once per call: given a batch they flip all its images or none. Each module here maps
images (N, C, H, W) to the same shape and takes its random numbers from torch's global generator of the images' device.
"""

import torch
from torch import Tensor, nn
from torch.nn import functional as F


class RandomFlip(nn.Module):
    """Mirror left and right.

    Args:
        probability: Of each image.

    Example:
        >>> RandomFlip(probability=1.0)(torch.tensor([[[[1.0, 2.0]]]]))
        tensor([[[[2., 1.]]]])
    """

    def __init__(self, probability: float = 0.5) -> None:
        super().__init__()
        self.probability = probability

    def forward(self, images: Tensor) -> Tensor:
        """Flip a random choice of the images (N, C, H, W)."""
        flipped = torch.rand(len(images), 1, 1, 1, device=images.device) < self.probability
        return torch.where(flipped, images.flip(-1), images)


class RandomShift(nn.Module):
    """Move by whole pixels in both directions and fill with zeros: a crop of the padded image.

    Args:
        pixels: Largest distance.

    Example:
        >>> RandomShift(pixels=2)(torch.zeros(8, 1, 28, 28)).shape
        torch.Size([8, 1, 28, 28])
    """

    def __init__(self, pixels: int = 2) -> None:
        super().__init__()
        self.pixels = pixels

    def forward(self, images: Tensor) -> Tensor:
        """Shift each of the images (N, C, H, W) by its own distance."""
        (count, _, height, width), device = images.shape, images.device
        padded = F.pad(images, [self.pixels] * 4)
        top, left = torch.randint(2 * self.pixels + 1, (2, count, 1), device=device)  # each (N, 1)
        rows = top + torch.arange(height, device=device)  # (N, H)
        columns = left + torch.arange(width, device=device)  # (N, W)
        image = torch.arange(count, device=device)
        # Indexing around the channel dimension puts it last: (N, H, W, C).
        return padded[image[:, None, None], :, rows[:, :, None], columns[:, None, :]].permute(0, 3, 1, 2)


class RandomErase(nn.Module):
    """Set a random rectangle to zero (Zhong et al. 2020, with a constant fill).

    Args:
        probability: Of each image.
        smallest: Shortest side of the rectangle in pixels.
        largest: Longest side in pixels.

    Example:
        >>> RandomErase(probability=1.0, smallest=9, largest=9)(torch.ones(1, 1, 3, 3)).sum()
        tensor(0.)
    """

    def __init__(self, probability: float = 0.5, smallest: int = 4, largest: int = 10) -> None:
        super().__init__()
        self.probability, self.smallest, self.largest = probability, smallest, largest

    def forward(self, images: Tensor) -> Tensor:
        """Erase a rectangle from a random choice of the images (N, C, H, W)."""
        (count, _, height, width), device = images.shape, images.device
        sides = torch.randint(self.smallest, self.largest + 1, (2, count, 1), device=device)
        centre = torch.rand(2, count, 1, device=device)
        rows = _inside(centre[0] * height, sides[0], height)  # (N, H)
        columns = _inside(centre[1] * width, sides[1], width)  # (N, W)
        chosen = torch.rand(count, 1, 1, device=device) < self.probability
        erased = rows[:, :, None] & columns[:, None, :] & chosen  # (N, H, W)
        return images.masked_fill(erased[:, None], 0.0)


def _inside(centre: Tensor, side: Tensor, length: int) -> Tensor:
    """Which of ``length`` pixels lie within ``side`` / 2 of ``centre``; both (N, 1), result (N, length)."""
    position = torch.arange(length, device=centre.device) + 0.5
    return (position - centre).abs() <= side / 2
