"""The machine's matrix-product rate: 1024 x 1024 float32, seconds per floating-point operation."""

import time

import torch

from benchmarks.channel import Channel

SIZE, TIMES = 1024, 20


def main() -> None:
    """Rounds of `TIMES` products; their median counts."""
    a, b = torch.rand(SIZE, SIZE), torch.rand(SIZE, SIZE)
    out = torch.empty(SIZE, SIZE)
    channel = Channel()
    for _ in channel.rounds():
        seconds = []
        for _ in range(TIMES):
            start = time.perf_counter()
            torch.mm(a, b, out=out)
            seconds.append(time.perf_counter() - start)
        seconds.sort()
        channel.report(seconds[TIMES // 2] / (2 * SIZE**3))


if __name__ == "__main__":
    main()
