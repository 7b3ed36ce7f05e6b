"""Make the logs in ``real_logs/``: ``python -m tests.training_health.tab.strip_log RUN_FOLDER NEW_FOLDER``.

Keeps what the tab reads, the monitors' records and a few scalars, byte for byte and in order; leaves out images,
histograms and the rest, which are nine tenths of a log and more.
"""

import sys
from pathlib import Path

from tensorboard.backend.event_processing.event_file_loader import RawEventFileLoader
from tensorboard.compat.proto.event_pb2 import Event
from tensorboard.compat.proto.summary_pb2 import Summary
from tensorboard.summary.writer.event_file_writer import EventFileWriter

PLUGIN = "training_health"
SCALARS = ("epoch", "train/loss", "train/accuracy", "val/loss", "val/accuracy", "test/accuracy")


def strip(run: Path, target: Path) -> Path:
    """Write one event file with the kept events of all the run's event files, oldest first; return it.

    A file of a killed run ends where its last whole event ends.
    """
    if target.exists():
        raise FileExistsError(target)
    target.mkdir(parents=True)
    writer = EventFileWriter(str(target))
    started: set[str] = set()
    for file in sorted(run.glob("events.out.tfevents.*")):
        for raw in RawEventFileLoader(str(file)).Load():
            event = Event.FromString(raw)
            values = [value for value in event.summary.value if _kept(value, started)]
            if values:
                kept = Event(wall_time=event.wall_time, step=event.step, summary=Summary(value=values))
                writer.add_event(kept)
    writer.close()
    (written,) = target.iterdir()
    return written.rename(target / "events.out.tfevents.1700000000.real")


def _kept(value: Summary.Value, tags: set[str]) -> bool:
    # TensorBoard takes a tag's metadata from its first event and lets later ones leave it out
    if value.metadata.plugin_data.plugin_name == PLUGIN:
        tags.add(value.tag)
    return value.tag in tags or value.tag in SCALARS


if __name__ == "__main__":
    file = strip(Path(sys.argv[1]), Path(sys.argv[2]))
    print(f"{file}: {file.stat().st_size:,} bytes")
