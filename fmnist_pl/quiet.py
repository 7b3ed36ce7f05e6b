"""Keep what the libraries say of themselves out of a run's output, so that what matters is read."""

import logging
import warnings


def quiet_libraries() -> None:
    """Hide Lightning's notices (devices found, tips, the seed) and warnings that a user cannot act on.

    Warnings and errors of Lightning's loggers stay.
    """
    for name in ("pytorch_lightning", "lightning_fabric", "lightning.pytorch", "lightning.fabric"):
        logging.getLogger(name).setLevel(logging.WARNING)
    warnings.filterwarnings("ignore", message=".*LeafSpec.* is deprecated", category=FutureWarning)  # Lightning's own
    # Said of curves drawn step by step; here everything is logged once per epoch.
    warnings.filterwarnings("ignore", message="The number of training batches .* is smaller than the logging interval")
    # Said when a checkpoint is evaluated: the evaluation has a folder of its own and chooses no best checkpoint.
    warnings.filterwarnings("ignore", message="The dirpath has changed from")
