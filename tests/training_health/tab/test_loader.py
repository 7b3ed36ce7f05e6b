import argparse
import subprocess
import sys

import pytest
from tensorboard import default

from training_health.tab.loader import TrainingHealthLoader


def parsed(*arguments: str) -> argparse.Namespace:
    loader, parser = TrainingHealthLoader(), argparse.ArgumentParser()
    parser.add_argument("--samples_per_plugin", default={}, type=lambda text: {k: int(v) for k, v in [text.split("=")]})
    flags = parser.parse_args(arguments)
    loader.fix_flags(flags)
    return flags


def test_tensorboard_finds_the_loader_by_its_entry_point():
    assert TrainingHealthLoader in default.get_dynamic_plugins()


@pytest.mark.parametrize(
    ("arguments", "kept"),
    [
        ([], 0),
        (["--samples_per_plugin=training_health=7"], 7),
    ],
)
def test_all_epochs_are_kept_unless_told_otherwise(arguments, kept):
    assert parsed(*arguments).samples_per_plugin == {"training_health": kept}


def test_flags_of_another_shape_are_left_alone():
    flags = argparse.Namespace(samples_per_plugin=None)
    TrainingHealthLoader().fix_flags(flags)
    assert flags.samples_per_plugin is None


def test_tensorboards_process_imports_no_training_code_and_loses_little_time():
    code = """
import sys, time
from tensorboard import default, program
from tensorboard.backend import application
from tensorboard.data import server_ingester
start = time.process_time()
from training_health.tab.loader import TrainingHealthLoader
from tensorboard.plugins import base_plugin
plugin = TrainingHealthLoader().load(base_plugin.TBContext())
plugin.get_plugin_apps()
taken = time.process_time() - start
heavy = {"torch", "lightning", "pytorch_lightning", "fmnist_pl", "plotly", "matplotlib"} & set(sys.modules)
print(taken, sorted(heavy))
"""
    run = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    seconds, heavy = run.stdout.split(maxsplit=1)
    assert heavy.strip() == "[]"
    assert float(seconds) < 0.5
