"""Arguments that the contenders share."""

import argparse


def parser(description: str | None) -> argparse.ArgumentParser:
    """With --data, --batch-size, --steps and --device."""
    result = argparse.ArgumentParser(description=description)
    result.add_argument("--data", required=True, help="Folder that holds FashionMNIST/raw.")
    result.add_argument("--batch-size", type=int, default=64)
    result.add_argument("--steps", type=int, default=100, help="Training steps in a round.")
    result.add_argument("--device", default="cpu", choices=["cpu", "cuda"])
    return result
