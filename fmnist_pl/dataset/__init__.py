"""The data: the real files (found, verified, downloaded) and synthetic images that stand in for them."""
