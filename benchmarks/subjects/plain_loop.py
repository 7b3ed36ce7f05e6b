"""A plain PyTorch loop over tensors in memory: stock modules, fused Adam, no framework."""

import time
from pathlib import Path

import torch
from torch.nn import functional as F

from benchmarks.channel import Channel
from benchmarks.subjects import options, stock
from fmnist_pl.dataset.files import load_split


def main() -> None:
    """Rounds of ``--steps`` steps."""
    arguments = options.parser(__doc__).parse_args()
    device = torch.device(arguments.device)
    pixels, classes = load_split(Path(arguments.data), "train")
    images = torch.as_tensor(pixels).unsqueeze(1).float().div_(255).to(device)
    labels = torch.as_tensor(classes).long().to(device)
    model = stock.network().to(device).train()
    optimizer = stock.optimizer(model.parameters())
    channel = Channel()
    for start in channel.rounds():
        order = torch.randperm(len(images), device=device)
        for step in range(arguments.steps):
            chosen = order[step * arguments.batch_size : (step + 1) * arguments.batch_size]
            optimizer.zero_grad(set_to_none=True)
            F.cross_entropy(model(images[chosen]), labels[chosen]).backward()
            optimizer.step()
        if device.type == "cuda":
            torch.cuda.synchronize()
        channel.report((time.perf_counter() - start) / arguments.steps)


if __name__ == "__main__":
    main()
