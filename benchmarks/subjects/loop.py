"""Training steps in a bare loop, without Lightning, metrics or logging; or the machine's matrix-product rate."""

import argparse
import statistics
import timeit
from collections.abc import Callable, Iterator
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional as F

from benchmarks.channel import Channel, contender_parser
from benchmarks.subjects import stock
from fmnist_pl.classifier import FashionClassifier
from fmnist_pl.dataset.files import load_split
from fmnist_pl.loader import BatchLoader, device_tensors
from fmnist_pl.process import keep_freed_memory

OURS: dict[str, dict[str, Any]] = {"ours": {}, "linear": {"conv_channels": (), "hidden_units": ()}}
SGEMM_SIZE, SGEMM_TIMES = 1024, 20


def main() -> None:
    """Rounds of ``--steps`` steps, or of `SGEMM_TIMES` products of which the median counts."""
    parser = contender_parser(__doc__)
    parser.add_argument(
        "--what",
        choices=[*OURS, "stock", "compiled", "sgemm"],
        default="ours",
        help="Our loader, network and optimiser; ours with a network of one linear layer; tensors in memory, stock "
        "modules and fused Adam; these under torch.compile; products of 1024 x 1024 float32 matrices.",
    )
    parser.add_argument("--bf16", action="store_true", help="Under bfloat16 autocast.")
    arguments = parser.parse_args()
    work = matrix_products() if arguments.what == "sgemm" else training(arguments)
    units = 2 * SGEMM_SIZE**3 if arguments.what == "sgemm" else arguments.steps
    channel = Channel()
    while True:
        channel.begin()
        channel.end(units, work())


def training(arguments: argparse.Namespace) -> Callable[[], None]:
    """The function that trains for a round."""
    device, count = torch.device(arguments.device), arguments.steps * arguments.batch_size
    pixels, classes = load_split(arguments.data, "train")
    images, labels = device_tensors(pixels[5000:], classes[5000:], device)
    if arguments.what in OURS:
        keep_freed_memory()
        classifier = FashionClassifier(**OURS[arguments.what])
        network, optimizer = classifier.net.to(device).train(), classifier.configure_optimizers()
        loader = BatchLoader(images[:count], labels[:count], arguments.batch_size, shuffle=True)
    else:
        network = stock.network().to(device).train()
        optimizer, floats = stock.optimizer(network.parameters()), images.unsqueeze(1).float().div_(255)
        if arguments.what == "compiled":
            network.compile()

    def shuffled() -> Iterator[tuple[Tensor, Tensor]]:
        for chosen in torch.randperm(len(labels), device=device)[:count].split(arguments.batch_size):
            yield floats[chosen], labels[chosen]

    def steps() -> None:
        for batch, targets, *_ in loader if arguments.what in OURS else shuffled():
            optimizer.zero_grad(set_to_none=True)
            with torch.autocast(device.type, torch.bfloat16, enabled=arguments.bf16):
                loss = F.cross_entropy(network(batch), targets)
            loss.backward()
            optimizer.step()
        if device.type == "cuda":
            torch.cuda.synchronize()

    return steps


def matrix_products() -> Callable[[], float]:
    """The function that multiplies large matrices for a round and returns the median seconds of a product."""
    a, b, out = (torch.rand(SGEMM_SIZE, SGEMM_SIZE) for _ in range(3))
    return lambda: statistics.median(timeit.repeat(lambda: torch.mm(a, b, out=out), number=1, repeat=SGEMM_TIMES))


if __name__ == "__main__":
    main()
