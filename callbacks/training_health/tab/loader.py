"""The entry point TensorBoard imports at start-up: it must not fail, so it imports almost nothing."""

import argparse

from tensorboard.plugins import base_plugin

from training_health.log_format import PLUGIN_NAME

KEEP_ALL = 0  # TensorBoard's own meaning of 0 in --samples_per_plugin, under both of its loaders


def _epoch_count(text: str) -> int:
    count = int(text)  # argparse turns a ValueError into its usual message
    if count < 0:
        raise argparse.ArgumentTypeError(f"expected 0 (all epochs) or a positive number, got {count}")
    return count


class TrainingHealthLoader(base_plugin.TBLoader):
    """Makes the tab when TensorBoard starts, and asks TensorBoard to keep every epoch of its logs.

    Without the latter TensorBoard serves a random sample of 10 or 100 records per tag, depending on its loader.
    """

    def define_flags(self, parser: argparse.ArgumentParser) -> None:
        """Adds ``--training_health_max_epochs``."""
        parser.add_argument_group("training health").add_argument(
            "--training_health_max_epochs",
            metavar="N",
            type=_epoch_count,
            default=KEEP_ALL,
            help="Keep at most N epochs per run for the Training Health tab, a random sample with the last "
            "(default: 0, all of them). --samples_per_plugin=training_health=N does the same and wins.",
        )

    def fix_flags(self, flags: argparse.Namespace) -> None:
        """Sets the number of kept records, unless the user did with ``--samples_per_plugin``."""
        samples = getattr(flags, "samples_per_plugin", None)
        if isinstance(samples, dict):
            samples.setdefault(PLUGIN_NAME, getattr(flags, "training_health_max_epochs", KEEP_ALL))

    def load(self, context: base_plugin.TBContext) -> base_plugin.TBPlugin | None:
        """Imports and makes the plugin; TensorBoard logs an error from here and goes on without the tab."""
        from training_health.tab.plugin import TrainingHealthPlugin

        return TrainingHealthPlugin(context)
