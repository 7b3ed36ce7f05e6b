"""Every test, and every module of tests, draws the same numbers in each run: none passes or fails by luck."""

import random

import numpy as np
import pytest
import torch


def seed() -> None:
    """Begin all global random generators."""
    random.seed(0)
    np.random.seed(0)
    torch.manual_seed(0)


def pytest_collectstart(collector: pytest.Collector) -> None:
    """Before a module is imported, which may draw too."""
    if isinstance(collector, pytest.Module):
        seed()


@pytest.fixture(autouse=True)
def _seeded() -> None:
    seed()
