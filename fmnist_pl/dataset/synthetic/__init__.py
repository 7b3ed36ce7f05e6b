"""Synthetic images: ten classes of clothes, rendered from a seed, that need no files and no network."""

from fmnist_pl.dataset.synthetic.images import SYNTHETIC_IMAGES, generate, load_synthetic

__all__ = ["SYNTHETIC_IMAGES", "generate", "load_synthetic"]
