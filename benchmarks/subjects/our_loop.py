"""Our step in a bare loop: our loader, network and optimiser, without Lightning, metrics or logging."""

import time
from pathlib import Path

import torch
from torch.nn import functional as F

from benchmarks.channel import Channel
from benchmarks.subjects import options
from fmnist_pl.classifier import FashionClassifier
from fmnist_pl.dataset.files import load_split
from fmnist_pl.loader import BatchLoader, device_tensors
from fmnist_pl.process import keep_freed_memory


def main() -> None:
    """Rounds of ``--steps`` steps."""
    parser = options.parser(__doc__)
    parser.add_argument("--bf16", action="store_true", help="Under bfloat16 autocast.")
    parser.add_argument("--linear", action="store_true", help="A network of one linear layer.")
    arguments = parser.parse_args()
    keep_freed_memory()
    device = torch.device(arguments.device)
    images, labels = device_tensors(*load_split(Path(arguments.data), "train"), device)
    images, labels = images[5000:], labels[5000:]
    count = arguments.steps * arguments.batch_size
    network = {"conv_channels": (), "hidden_units": ()} if arguments.linear else {}
    classifier = FashionClassifier(**network).to(device).train()
    optimizer = classifier._build_optimizer()
    channel = Channel()
    for start in channel.rounds():
        for batch in BatchLoader(images[:count], labels[:count], arguments.batch_size, shuffle=True):
            optimizer.zero_grad(set_to_none=True)
            with torch.autocast(device.type, torch.bfloat16, enabled=arguments.bf16):
                loss = F.cross_entropy(classifier.net(batch.images), batch.labels)
            loss.backward()
            optimizer.step()
        if device.type == "cuda":
            torch.cuda.synchronize()
        channel.report((time.perf_counter() - start) / arguments.steps)


if __name__ == "__main__":
    main()
