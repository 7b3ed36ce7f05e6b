"""The monitors beside every packaged variant of fmnist_pl: training is the same to the last bit."""

import pytest
import torch
import yaml

from fmnist_pl.classifier import FashionClassifier
from fmnist_pl.configuration import overlay_path, packaged_variants
from fmnist_pl.loader import BatchLoader
from tests.training_health.toys import FEW_EXAMPLES, fingerprint, make_trainer, pl
from training_health import DeadReLUMonitor, TrainValGapMonitor, WeightHistogramMonitor


def images(count: int, seed: int, **options) -> BatchLoader:
    generator = torch.Generator().manual_seed(seed)
    pixels = torch.randint(0, 256, (count, 28, 28), generator=generator, dtype=torch.uint8)
    return BatchLoader(pixels, torch.arange(count) % 10, 8, **options)


def trained(variant: str, monitors: list, folder) -> tuple:
    pl.seed_everything(1, verbose=False)
    options = yaml.safe_load(overlay_path(variant).read_text()) or {}
    module, trainer = FashionClassifier(**(options.get("model") or {})), make_trainer(monitors, folder)
    trainer.fit(module, images(20, 0, shuffle=True), images(11, 1))
    own = {key: value.item() for key, value in trainer.callback_metrics.items() if key.startswith(("train/", "val/"))}
    return fingerprint(module), own, torch.get_rng_state().tolist()


@FEW_EXAMPLES
@pytest.mark.parametrize("variant", packaged_variants())
def test_training_is_the_same_with_all_monitors_as_without(variant, tmp_path):
    dead, gap = DeadReLUMonitor(), TrainValGapMonitor()

    assert trained(variant, [dead, WeightHistogramMonitor(), gap], tmp_path) == trained(variant, [], tmp_path)
    assert (gap.summary()["n_train"], gap.summary()["n_val"], dead.summary()["n"]) == (11, 11, 11)
    if variant == "baseline":
        sites = {name: site["units"] for name, site in dead.summary()["sites"].items()}
        assert sites == {"conv1": 64, "conv2": 32, "fc1": 256}
