"""What TensorBoard's two readers make of a run's folder."""

import json
import subprocess
import sys
import time
from pathlib import Path

from tensorboard import context
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator
from tensorboard.data import provider, server_ingester
from tensorboard.util import grpc_util

Curves = dict[str, list[tuple[int, float]]]


def python_curves(folder: Path) -> Curves:
    """Every scalar's steps and values as the Python reader (``--load_fast=false``) has them."""
    events = EventAccumulator(str(folder), size_guidance={"scalars": 0})
    events.Reload()
    return {tag: [(event.step, event.value) for event in events.Scalars(tag)] for tag in events.Tags()["scalars"]}


def rust_curves(folder: Path) -> Curves:
    """The same as the data server has them, which TensorBoard uses by default."""
    # In a process of its own: TensorBoard leaves the server to whoever ends last.
    command = [sys.executable, "-m", "tests.soak.tensorboard_readers", str(folder)]
    run = subprocess.run(command, capture_output=True, text=True, check=True)
    return {tag: [(step, value) for step, value in curve] for tag, curve in json.loads(run.stdout).items()}


def _rust_curves(folder: Path) -> Curves:
    ingester = server_ingester.SubprocessServerDataIngester(
        server_binary=server_ingester.get_server_binary(),
        logdir=str(folder.parent),
        reload_interval=1,
        channel_creds_type=grpc_util.ChannelCredsType.LOCAL,
        samples_per_plugin={"scalars": 0},
    )
    ingester.start()
    found: Curves = {}
    for _ in range(100):
        runs = ingester.data_provider.read_scalars(
            context.RequestContext(),
            experiment_id="",
            plugin_name="scalars",
            downsample=10_000,
            run_tag_filter=provider.RunTagFilter(runs=[folder.name]),
        )
        now = {tag: [(datum.step, datum.value) for datum in data] for tag, data in runs.get(folder.name, {}).items()}
        if now and now == found:
            break
        found = now
        time.sleep(0.2)
    ingester._stdin_handle.close()  # the server ends when its input does
    return found


if __name__ == "__main__":
    print(json.dumps(_rust_curves(Path(sys.argv[1]))))
