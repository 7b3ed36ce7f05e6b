"""The TensorBoard logger of this package's runs."""

from collections.abc import Mapping

from pytorch_lightning.loggers import TensorBoardLogger
from pytorch_lightning.utilities import rank_zero_only


class RunLogger(TensorBoardLogger):
    """Lightning's logger, with one record per tag and step.

    Lightning adds the number of the epoch to whatever it logs, so that the end of an epoch, logged once for validation
    and once for training, would have it twice.
    """

    _epoch_logged_at: int | None = None

    @rank_zero_only
    def log_metrics(self, metrics: Mapping[str, float], step: int | None = None) -> None:
        """Write scalars; ``epoch`` only if it has not been written at this step."""
        if "epoch" in metrics:
            if step is not None and step == self._epoch_logged_at:
                metrics = {name: value for name, value in metrics.items() if name != "epoch"}
            self._epoch_logged_at = step
        super().log_metrics(metrics, step)
