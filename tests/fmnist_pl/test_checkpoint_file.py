"""Checkpoint files: what is written comes back, and anything else is refused in words."""

import io
import pickle
import random
import re
import zipfile
from collections import Counter, OrderedDict
from pathlib import Path

import numpy as np
import pytest
import torch

from fmnist_pl.checkpoints.checkpoint_file import SEALED, load_checked, sealed_bytes
from fmnist_pl.checkpoints.plain_values import not_plain
from tests.soak import attacks, bit_flips
from training_health.errors import UserError

CHECKPOINT = {"state_dict": {"weight": torch.arange(50.0)}, "loops": {"steps": 3}, "name": "x"}


@pytest.fixture
def file(tmp_path):
    path = tmp_path / "last.ckpt"
    path.write_bytes(sealed_bytes(CHECKPOINT))
    return path


def foreign(path: Path) -> Path:
    """A checkpoint that another program has written."""
    torch.save(CHECKPOINT, path)
    return path


def test_what_is_written_is_loaded(file):
    loaded = load_checked(file)

    assert torch.equal(loaded["state_dict"]["weight"], torch.arange(50.0))
    assert (loaded["loops"], loaded["name"]) == ({"steps": 3}, "x")


def test_torch_and_zipfile_read_a_sealed_file_as_any_other(file):
    assert torch.load(file, weights_only=True)["name"] == "x"
    assert zipfile.ZipFile(file).testzip() is None


def test_a_file_of_another_program_is_loaded(tmp_path):
    assert load_checked(foreign(tmp_path / "other.ckpt"))["name"] == "x"


def test_every_one_of_a_thousand_flipped_bits_is_found_and_the_whole_checkpoint_offered(file):
    assert bit_flips.check(1000, seed=1, file=file) == []


def test_a_flipped_bit_in_the_values_of_another_programs_file_is_found_by_crc(tmp_path):
    path = foreign(tmp_path / "other.ckpt")
    content = bytearray(path.read_bytes())
    place = content.index(torch.arange(50.0).numpy().tobytes())
    content[place + 10] ^= 1
    path.write_bytes(content)

    with pytest.raises(UserError, match=r"other.ckpt is damaged: the CRC of .*data/0 does not fit"):
        load_checked(path)


@pytest.mark.parametrize("share", [0.0, 0.1, 0.5, 0.9, 0.999])
def test_a_cut_file_is_damaged(file, share):
    file.write_bytes(file.read_bytes()[: int(len(file.read_bytes()) * share)])

    with pytest.raises(UserError, match=r"last.ckpt is damaged: .*There is no whole checkpoint beside it"):
        load_checked(file)


def test_a_file_whose_seal_was_cut_off_is_damaged(file):
    buffer = io.BytesIO()
    torch.save({**CHECKPOINT, SEALED: True}, buffer)
    file.write_bytes(buffer.getvalue())

    with pytest.raises(UserError, match="its seal is missing"):
        load_checked(file)


def test_beside_a_damaged_checkpoint_the_previous_is_offered(file):
    file.with_name("previous.ckpt").write_bytes(file.read_bytes())
    file.write_bytes(b"torn")

    with pytest.raises(UserError, match=r"previous.ckpt is whole: go on with --resume .*previous.ckpt"):
        load_checked(file)


def test_a_previous_checkpoint_that_is_damaged_too_is_not_offered(file):
    file.with_name("previous.ckpt").write_bytes(file.read_bytes()[:-1])
    file.write_bytes(b"torn")

    with pytest.raises(UserError, match="There is no whole checkpoint beside it"):
        load_checked(file)


@pytest.mark.parametrize("address", ["http://host/x.ckpt", "https://host/x.ckpt", "s3://bucket/x.ckpt"])
def test_an_address_is_refused(address):
    with pytest.raises(UserError, match=f"{re.escape(address)} is an address"):
        load_checked(address)


def test_a_missing_file_is_named(tmp_path):
    with pytest.raises(UserError, match=r"There is no checkpoint .*absent.ckpt"):
        load_checked(tmp_path / "absent.ckpt")


def test_a_folder_is_no_checkpoint(tmp_path):
    with pytest.raises(UserError, match="cannot be read: Is a directory"):
        load_checked(tmp_path)


@pytest.mark.parametrize("value", [[1], {"weights": {}}, {"state_dict": 3}])
def test_something_else_that_torch_saved_is_no_checkpoint(tmp_path, value):
    torch.save(value, tmp_path / "x.ckpt")

    with pytest.raises(UserError, match="is not a checkpoint of a training run"):
        load_checked(tmp_path / "x.ckpt")


def test_random_bytes_are_refused(tmp_path):
    for number in range(50):
        (tmp_path / "x.ckpt").write_bytes(random.Random(number).randbytes(number * 20))
        with pytest.raises(UserError, match="is damaged"):
            load_checked(tmp_path / "x.ckpt")


def test_planted_code_never_runs():
    attempts, wrong = attacks.check()

    assert wrong == []
    assert attempts > 100


def test_the_planted_code_would_run_if_it_were_let(tmp_path):
    mark = tmp_path / "it-ran"
    file = attacks.planted_files(tmp_path, mark)["a shell command in state_dict"]
    torch.load(file, weights_only=False)

    assert mark.exists()


def test_torchs_switch_for_unsafe_loading_changes_nothing(tmp_path, monkeypatch):
    monkeypatch.setenv("TORCH_FORCE_NO_WEIGHTS_ONLY_LOAD", "1")
    mark = tmp_path / "it-ran"
    file = attacks.planted_files(tmp_path, mark)["a call in callbacks"]

    with pytest.raises(UserError, match="nothing in it was run"):
        load_checked(file)
    assert not mark.exists()


@pytest.mark.parametrize(
    ("value", "said"),
    [
        ({"root": Path("x")}, "['root'] is a pathlib"),
        ({"best": [1.0, np.float64(2)]}, "['best'][1] is a numpy.float64"),
        ({np.int64(3): 1}, "a key of checkpoint['callbacks'] is a numpy.int64"),
        ({"f": print}, "['f'] is a builtins.builtin_function_or_method"),
        ({"version": torch.__version__}, "['version'] is a torch.torch_version.TorchVersion"),
    ],
)
def test_what_could_not_be_loaded_is_not_saved(value, said):
    with pytest.raises(UserError, match=re.escape(said)):
        sealed_bytes({**CHECKPOINT, "callbacks": value})


def test_what_counts_as_plain_is_what_torch_loads():
    plain = {
        "scalars": [1, 2.5, True, None, "x", b"x", 1j],
        "collections": [(1,), {2}, OrderedDict(a=1), Counter("aab"), [[]]],
        "torch": [
            torch.zeros(2),
            torch.nn.Parameter(torch.zeros(2)),
            torch.float32,
            torch.device("cpu"),
            torch.Size([1]),
        ],
    }
    buffer = io.BytesIO()
    torch.save(plain, buffer)
    buffer.seek(0)

    assert not_plain(plain) is None
    assert set(torch.load(buffer, weights_only=True)) == set(plain)


def test_what_counts_as_not_plain_is_what_torch_refuses():
    for value in (Path("x"), np.float64(1), np.zeros(2), print):
        buffer = io.BytesIO()
        torch.save([value], buffer)
        buffer.seek(0)

        assert not_plain([value]) is not None
        with pytest.raises(pickle.UnpicklingError):
            torch.load(buffer, weights_only=True)
