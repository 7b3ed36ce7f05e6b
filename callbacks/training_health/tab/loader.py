"""The entry point TensorBoard imports at start-up: it must not fail, so it imports almost nothing."""

import argparse

from tensorboard.plugins import base_plugin

from training_health.log_format import PLUGIN_NAME

KEEP_ALL = 0  # TensorBoard's own meaning of 0 in --samples_per_plugin, under both of its loaders


class TrainingHealthLoader(base_plugin.TBLoader):
    """Makes the tab when TensorBoard starts, and asks TensorBoard to keep every epoch of its logs.

    Without the latter TensorBoard serves a random sample of 10 or 100 records per tag, depending on its loader.
    ``--samples_per_plugin=training_health=N`` sets another limit.
    """

    def fix_flags(self, flags: argparse.Namespace) -> None:
        """Sets the number of kept records, unless the user did."""
        samples = getattr(flags, "samples_per_plugin", None)
        if isinstance(samples, dict):
            samples.setdefault(PLUGIN_NAME, KEEP_ALL)

    def load(self, context: base_plugin.TBContext) -> base_plugin.TBPlugin | None:
        """Imports and makes the plugin; TensorBoard logs an error from here and runs without the tab."""
        from training_health.tab.plugin import TrainingHealthPlugin

        return TrainingHealthPlugin(context)
