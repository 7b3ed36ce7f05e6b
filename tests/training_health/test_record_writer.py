"""Event files are written as TensorBoard writes them, to the byte, without its checksums in Python."""

import io

import pytest
from tensorboard.summary.writer import record_writer
from torch.utils.tensorboard import SummaryWriter

from tests.training_health.toys import events
from training_health.record_writer import hasten, write_record


@pytest.mark.parametrize("size", [0, 3, 255, 256, 1024, 5000])
def test_a_record_is_tensorboards_to_the_byte(size):
    data = (bytes(range(256)) * 20)[:size]
    theirs, ours = io.BytesIO(), io.BytesIO()
    record_writer.RecordWriter(theirs).write(data)

    write_record(ours, data)

    assert ours.getvalue() == theirs.getvalue()


def test_a_summary_writer_goes_on_without_tensorboards_checksum(tmp_path, monkeypatch):
    def refuse(data):
        raise AssertionError(f"{len(data)} bytes")

    writer = SummaryWriter(tmp_path)
    hasten(writer._get_file_writer())
    writer.flush()  # what has begun
    monkeypatch.setattr(record_writer, "masked_crc32c", refuse)
    writer.add_text("long", "x" * 2000)
    writer.add_scalar("short", 1.5)
    writer.close()

    assert [tag for tag, _, _ in events(tmp_path)] == ["long/text_summary", "short"]


def test_a_writer_that_is_built_otherwise_is_left_alone():
    class Other:
        event_writer = None

    other = Other()
    hasten(other)

    assert vars(other) == {}


@pytest.mark.parametrize("of_the_class", [True, False])
def test_what_others_put_in_place_of_tensorboards_way_to_write_stays(of_the_class, tmp_path, monkeypatch):
    seen, tensorboards = [], record_writer.RecordWriter.write
    writer = SummaryWriter(tmp_path)
    file_writer = writer._get_file_writer()
    writer.flush()
    owner = record_writer.RecordWriter if of_the_class else file_writer.event_writer._async_writer._writer

    def write(*arguments):
        seen.append(len(arguments[-1]))
        tensorboards(file_writer.event_writer._async_writer._writer, arguments[-1])

    monkeypatch.setattr(owner, "write", write)
    hasten(file_writer)
    writer.add_scalar("short", 1.5)
    writer.close()

    assert len(seen) == 1
