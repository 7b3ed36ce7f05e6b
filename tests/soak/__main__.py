"""Run all checks at full counts, or those named, and print a line for each: ``python -m tests.soak [NAME ...]``."""

import importlib
import logging
import sys
import time

import pytorch_lightning as pl
import torch

CHECKS = (
    *("every_epoch", "two_ranks", "sigkill", "torn_saves", "bit_flips"),
    *("hostile_checkpoints", "power_cuts", "command_lines"),
)


def main(names: list[str]) -> int:
    """Run the checks; return how many failed."""
    torch.set_num_threads(1)
    for logger in (pl.__name__, "lightning_fabric", "tensorboard"):  # after their import, which sets the level
        logging.getLogger(logger).setLevel(logging.ERROR)
    failed = 0
    for name in names or CHECKS:
        began = time.monotonic()
        try:
            said = importlib.import_module(f"tests.soak.{name}").soak()
        except AssertionError as error:
            failed += 1
            said = f"FAILED\n{error}"
        print(f"{name} ({time.monotonic() - began:.0f} s): {said}", flush=True)
    return failed


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
