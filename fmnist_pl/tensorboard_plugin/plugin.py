"""The tab's WSGI part."""

from tensorboard.plugins import base_plugin

from fmnist_pl.tensorboard_plugin.loader import PLUGIN_NAME


class TrainingHealthPlugin(base_plugin.TBPlugin):
    """Placeholder until the routes are in."""

    plugin_name = PLUGIN_NAME

    def get_plugin_apps(self) -> dict:
        """No routes yet."""
        return {}

    def is_active(self) -> bool:
        """Never yet."""
        return False
