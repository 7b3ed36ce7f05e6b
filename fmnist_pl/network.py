"""The notebooks' convolutional network, with an argument for each thing that they asked about."""

from collections.abc import Iterable, Sequence
from typing import Literal

import torch
from torch import Tensor, nn

from fmnist_pl.fast.layers import FastDropout, conv_block
from training_health import lsuv, median_bias

Activation = Literal["relu", "leaky_relu", "gelu", "silu"]
Initialization = Literal["glorot", "he", "pytorch", "median_bias", "lsuv"]
Normalization = Literal["none", "batch"]

LOOKS_AT_DATA = ("median_bias", "lsuv")
_ACTIVATIONS = {"relu": nn.ReLU, "leaky_relu": nn.LeakyReLU, "gelu": nn.GELU, "silu": nn.SiLU}


class FashionCNN(nn.Module):
    """Convolution blocks, then fully connected blocks, then ten logits.

    The defaults are the notebooks' 412,778-parameter network with Keras's initialisation. The blocks are the children
    ``conv1``, ``conv2``, ..., ``fc1``, ..., ``output``; each activation is a module of its own, ``conv1.activation``.

    Args:
        conv_channels: Filters of each convolution, so also how many convolutions there are.
        kernel_size: Side of every filter; padding keeps the size ("same", odd pixel at the bottom and right).
        stride: Stride of every convolution.
        convs_per_pool: A 2x2 max-pool follows every this many convolutions. 0: none.
        activation: After every convolution and hidden layer.
        normalization: "batch" puts a batch normalisation between each convolution and its activation.
        conv_dropout: Fraction of activations dropped after each pool (elementwise, as in Keras).
        hidden_units: Width of each fully connected layer.
        hidden_dropout: Fraction of activations dropped after each fully connected layer.
        initialization: "glorot" (uniform, zero bias: Keras's default), "he" (normal, zero bias) or "pytorch". Two more
            look at training images, in `start`: "median_bias" (Glorot's weights, and each unit fires on half of its
            inputs) and "lsuv" (orthonormal weights, scaled so that each layer's output has variance 1).
        standardize: Subtract the mean of the training images' pixels and divide by their standard deviation, which
            `start` sets; images stay in [0, 1] outside of the network. Padding is then with the mean.
        image_size: Side of the square input images in pixels.
        classes: Number of logits.

    Raises:
        ValueError: An argument is out of range, or the image shrinks to nothing.

    Example:
        >>> network = FashionCNN(conv_channels=(16, 32), hidden_units=(64,))
        >>> network(torch.rand(5, 1, 28, 28)).shape
        torch.Size([5, 10])
        >>> [name for name, _ in network.named_children()]
        ['conv1', 'conv2', 'fc1', 'output']
    """

    pixel_mean: Tensor
    pixel_std: Tensor
    started: Tensor

    def __init__(
        self,
        conv_channels: Sequence[int] = (64, 32),
        kernel_size: int = 2,
        stride: int = 1,
        convs_per_pool: int = 1,
        activation: Activation = "relu",
        normalization: Normalization = "none",
        conv_dropout: float = 0.3,
        hidden_units: Sequence[int] = (256,),
        hidden_dropout: float = 0.5,
        initialization: Initialization = "glorot",
        standardize: bool = False,
        image_size: int = 28,
        classes: int = 10,
    ) -> None:
        super().__init__()
        self.initialization, self.standardize = initialization, standardize
        if standardize:
            self.register_buffer("pixel_mean", torch.tensor(0.0))
            self.register_buffer("pixel_std", torch.tensor(1.0))
        if standardize or initialization in LOOKS_AT_DATA:
            self.register_buffer("started", torch.tensor(False))  # in the checkpoints: what is trained starts once
        _check_arguments(conv_channels, kernel_size, stride, convs_per_pool, hidden_units)
        for name, rate in {"conv_dropout": conv_dropout, "hidden_dropout": hidden_dropout}.items():
            if not 0 <= rate <= 1:  # nor NaN
                raise ValueError(f"{name} must be a fraction from 0 to 1, got {rate}.")
        size, channels = image_size, 1
        for number, filters in enumerate(conv_channels, start=1):
            pooled = convs_per_pool > 0 and number % convs_per_pool == 0
            block = ConvBlock(channels, filters, kernel_size, stride, activation, normalization, pooled, conv_dropout)
            self.add_module(f"conv{number}", block)
            size, channels = -(-size // stride) // (2 if pooled else 1), filters
            if size < 1:
                raise ValueError(
                    f"conv{number} would leave an image of {size} pixels: {image_size}x{image_size} images are too "
                    f"small for {len(conv_channels)} convolutions with stride {stride} and a pool after every "
                    f"{convs_per_pool}. Use fewer convolutions, stride 1, or a larger convs_per_pool."
                )
        features = channels * size * size
        for number, units in enumerate(hidden_units, start=1):
            self.add_module(f"fc{number}", HiddenBlock(features, units, activation, hidden_dropout))
            features = units
        self.output = nn.Linear(features, classes)
        initialize(self, initialization)

    def forward(self, images: Tensor) -> Tensor:
        """Map images (N, 1, H, W) in [0, 1] to logits (N, classes)."""
        x, spatial = images, True
        if self.standardize:
            x = (x - self.pixel_mean) / self.pixel_std
        for block in self.children():
            if spatial and not isinstance(block, ConvBlock):
                x, spatial = x.flatten(1), False  # (N, C * H * W) in C, H, W order whatever the memory layout
            x = block(x)
        return x

    @property
    def awaits_start(self) -> bool:
        """Whether `start` has still to be called before the first training step."""
        return (self.standardize or self.initialization in LOOKS_AT_DATA) and not self.started

    def start(self, mean: float, std: float, batches: Iterable[Tensor], seed: int = 0) -> None:
        """Set what depends on the training images: the standardisation, and then weights or biases.

        Args:
            mean: Of the training images' pixels.
            std: Their standard deviation.
            batches: Training images (N, 1, H, W) in [0, 1], some hundred of them.
            seed: Of the weights that "lsuv" draws.
        """
        if self.standardize:
            self.pixel_mean.fill_(mean)
            self.pixel_std.fill_(std or 1.0)
        if self.initialization == "median_bias":
            median_bias(self, batches)
        elif self.initialization == "lsuv":
            lsuv(self, batches, seed=seed)
        self.started.fill_(True)


class ConvBlock(nn.Module):
    """Convolution, normalisation, activation, and where asked for a 2x2 max-pool and dropout.

    The convolution pads as Keras's "same": of an odd number of pixels the larger part goes below and to the right.
    """

    def __init__(
        self,
        channels: int,
        filters: int,
        kernel_size: int,
        stride: int,
        activation: Activation,
        normalization: Normalization,
        pooled: bool,
        dropout: float,
    ) -> None:
        super().__init__()
        self.pad: nn.Module = nn.Identity() if kernel_size % 2 else nn.ZeroPad2d((0, 1, 0, 1))
        if kernel_size == 1 < stride:
            self.pad, stride = EveryNth(stride), 1
        self.conv = nn.Conv2d(channels, filters, kernel_size, stride, padding=(kernel_size - 1) // 2)
        self.norm = nn.BatchNorm2d(filters) if normalization == "batch" else nn.Identity()
        self.activation = _ACTIVATIONS[activation]()
        self.pool = nn.MaxPool2d(2) if pooled else nn.Identity()
        self.dropout = FastDropout(dropout) if pooled else nn.Identity()

    def forward(self, x: Tensor) -> Tensor:
        """Map (N, C, H, W) to (N, filters, H', W')."""
        return conv_block(x, self.pad, self.conv, self.norm, self.activation, self.pool, self.dropout)


class EveryNth(nn.Module):
    """Every n-th row and column, all that a 1x1 convolution with a stride of n reads.

    Without a stride the convolution is the same function. With one, torch 2.14's backward pass may write outside of its
    memory on a CPU with AVX2: seen on one thread, with one or three channels, innermost.
    """

    def __init__(self, n: int) -> None:
        super().__init__()
        self.n = n

    def forward(self, x: Tensor) -> Tensor:
        """Map (N, C, H, W) to (N, C, H / n, W / n), rounded up."""
        return x[:, :, :: self.n, :: self.n]


class HiddenBlock(nn.Module):
    """Fully connected layer, activation, dropout."""

    def __init__(self, features: int, units: int, activation: Activation, dropout: float) -> None:
        super().__init__()
        self.linear = nn.Linear(features, units)
        self.activation = _ACTIVATIONS[activation]()
        self.dropout = FastDropout(dropout)

    def forward(self, x: Tensor) -> Tensor:
        """Map (N, features) to (N, units)."""
        return self.dropout(self.activation(self.linear(x)))


def initialize(network: nn.Module, scheme: Initialization) -> None:
    """Initialise the weights of every convolution and linear layer.

    "glorot" is U(-a, a) with a = sqrt(6 / (fan_in + fan_out)) (Glorot and Bengio 2010), what Keras does by default;
    "he" is N(0, 2 / fan_in) (He et al. 2015), made for ReLU. Both set biases to zero. "pytorch" leaves PyTorch's own:
    U(-1/sqrt(fan_in), 1/sqrt(fan_in)) for weights and biases. Of the two that look at data, `FashionCNN.start` does the
    rest.
    """
    if scheme == "pytorch":
        return
    for module in network.modules():
        if isinstance(module, nn.Conv2d | nn.Linear):
            if scheme != "he":
                nn.init.xavier_uniform_(module.weight)
            else:
                nn.init.kaiming_normal_(module.weight, nonlinearity="relu")
            assert module.bias is not None
            nn.init.zeros_(module.bias)


def parameter_count(network: nn.Module) -> int:
    """Number of trainable parameters.

    Example:
        >>> parameter_count(nn.Linear(3, 2))  # 2 x 3 weights, 2 biases
        8
    """
    return sum(parameter.numel() for parameter in network.parameters() if parameter.requires_grad)


def _check_arguments(
    conv_channels: Sequence[int], kernel_size: int, stride: int, convs_per_pool: int, hidden_units: Sequence[int]
) -> None:
    at_least_one = {"kernel_size": [kernel_size], "stride": [stride]}
    for name, values in {**at_least_one, "conv_channels": conv_channels, "hidden_units": hidden_units}.items():
        if any(value < 1 for value in values):
            raise ValueError(f"{name} must be at least 1, got {values}.")
    if convs_per_pool < 0:
        raise ValueError(f"convs_per_pool must be 0 (no pooling) or more, got {convs_per_pool}.")
