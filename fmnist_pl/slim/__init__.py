"""A trained network without its dead units: the command ``fmnist slim``."""
