"""The IDX reader accepts exactly the format, and its writer is its inverse."""

import gzip
import os
from pathlib import Path

import numpy as np
import pytest

from fmnist_pl.dataset.idx_format import check_pair, decode_images, decode_labels, encode, gunzip, pack, read_content
from training_health.errors import UserError

HERE = Path("some-file")


def test_encodes_labels_as_the_format_says():
    assert encode(np.array([3, 9], np.uint8)) == bytes([0, 0, 8, 1, 0, 0, 0, 2, 3, 9])


def test_encodes_images_with_big_endian_dimensions():
    images = np.zeros((258, 28, 28), np.uint8)
    assert encode(images)[:16] == bytes([0, 0, 8, 3, 0, 0, 1, 2, 0, 0, 0, 28, 0, 0, 0, 28])


def test_decodes_what_torchvision_decodes(tmp_path):
    from torchvision.datasets.mnist import read_image_file, read_label_file

    images = np.random.default_rng(0).integers(0, 256, (3, 28, 28), dtype=np.uint8)
    labels = np.array([7, 0, 9], np.uint8)
    (tmp_path / "images").write_bytes(encode(images))
    (tmp_path / "labels").write_bytes(encode(labels))
    np.testing.assert_array_equal(decode_images(encode(images), HERE), read_image_file(str(tmp_path / "images")))
    np.testing.assert_array_equal(decode_labels(encode(labels), HERE), read_label_file(str(tmp_path / "labels")))


def test_arrays_are_writable_so_that_torch_can_share_them():
    assert decode_labels(encode(np.array([1], np.uint8)), HERE).flags.writeable


def test_packed_bytes_depend_on_the_content_alone():
    assert pack(b"abc")[4:8] == bytes(4)  # gzip's time stamp
    assert gzip.decompress(pack(b"abc")) == b"abc"


def test_only_uint8_can_be_encoded():
    with pytest.raises(ValueError, match="float32"):
        encode(np.zeros(3, np.float32))


IMAGES = encode(np.zeros((2, 28, 28), np.uint8))


@pytest.mark.parametrize(
    ("content", "found"),
    [
        (b"", "an empty file"),
        (b"\0\0\x08", "3 bytes"),
        (bytes(2000), "2,000 bytes that begin with 00 00 00 00"),
        (b"\n<html>sign in</html>", "a web page"),
        (pack(IMAGES), "gzip data"),
        (encode(np.zeros(5, np.uint8)), "an IDX file of labels"),
        (IMAGES[:15], "an IDX file of images, 15 bytes"),
        (b"\0\0\x09" + IMAGES[3:], "begin with 00 00 09 03"),  # int8
        (b"\0\0\x08\x04" + IMAGES[4:], "begin with 00 00 08 04"),  # four dimensions
        (IMAGES[:4] + IMAGES[4:8][::-1] + IMAGES[8:], "1,584 bytes"),  # little-endian count
        (IMAGES[:-1], "1,583 bytes"),
        (IMAGES + b"\0", "1,585 bytes"),
        (IMAGES[:7] + b"\x03" + IMAGES[8:], "expected 2,368 bytes for the shape (3, 28, 28)"),
        (IMAGES[:16].replace(b"\x02", b"\0"), "the shape (0, 28, 28)"),
        (IMAGES[:4] + b"\xff" * 12, "16 bytes"),  # a product that overflows 64 bits
        (encode(np.zeros((2, 28, 27), np.uint8)), "images of 28x27 pixels"),
    ],
)
def test_refuses_everything_but_images(content, found):
    with pytest.raises(UserError) as caught:
        decode_images(content, HERE)
    message = str(caught.value)
    assert message.startswith("some-file is not usable: expected ")
    assert found in message
    assert message.endswith("Replace it with an intact copy.")


def test_refuses_a_label_out_of_range_with_its_position():
    with pytest.raises(UserError, match="expected labels from 0 to 9, found label 10 at position 2"):
        decode_labels(encode(np.array([0, 9, 10, 200], np.uint8)), HERE)


def test_refuses_unequal_counts():
    with pytest.raises(UserError, match="expected 3 labels, one per image, found 2 labels"):
        check_pair(np.zeros((3, 28, 28)), np.zeros(2), HERE)


@pytest.mark.parametrize(
    ("packed", "reason"),
    [
        (b"", "an empty file"),
        (b"not gzip", "8 bytes that begin with 6e 6f 74 20"),
        (pack(b"abc")[:-1], "cut short"),
        (pack(b"abc")[:12], "cut short"),
        (pack(b"abc") + b"x", "1 bytes after the end"),
        (pack(b"abc")[:-8] + bytes(8), "incorrect data check"),
        (pack(b"abcdefgh"), "more than 5 bytes"),
    ],
)
def test_refuses_everything_but_one_gzip_stream(packed, reason):
    with pytest.raises(ValueError, match=reason):
        gunzip(packed, largest=5)


def test_a_gzip_bomb_is_refused_at_the_limit(tmp_path):
    (tmp_path / "bomb.gz").write_bytes(pack(bytes(10_000_000)))
    with pytest.raises(UserError, match=r"unpacks to more than 60,008 bytes"):
        read_content(tmp_path / "bomb.gz", largest=60_008)


def test_a_huge_file_is_refused_unread(tmp_path):
    with (tmp_path / "huge").open("wb") as file:
        file.truncate(1 << 40)  # sparse: takes no space
    with pytest.raises(UserError, match=r"expected at most 60,008 bytes, found 1,099,511,627,776 bytes"):
        read_content(tmp_path / "huge", largest=60_008)


def test_a_pipe_is_refused_instead_of_waited_for(tmp_path):
    os.mkfifo(tmp_path / "pipe")
    with pytest.raises(UserError, match="expected a regular file"):
        read_content(tmp_path / "pipe")
