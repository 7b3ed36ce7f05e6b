"""A configuration that cannot be read is one message that names the file."""

import pytest

from fmnist_pl.yaml_file import load_yaml
from training_health.errors import UserError


def test_values_are_plain(tmp_path):
    path = tmp_path / "v.yaml"
    path.write_text("model: {filters: [16, 32], activation: relu}\n")
    assert load_yaml(path) == {"model": {"filters": [16, 32], "activation": "relu"}}


@pytest.mark.parametrize(
    "content",
    [
        b"a: [1",
        b"\xff\xfe\xff",
        b"seed: " + b"9" * 5000,
        b"x: 2024-13-45",
        b"[" * 100_000,
        b"x: !!python/name:os.system",
    ],
)
def test_what_is_no_yaml_is_refused_by_name(tmp_path, content):
    path = tmp_path / "v.yaml"
    path.write_bytes(content)
    with pytest.raises(UserError, match=r"v\.yaml is not valid YAML"):
        load_yaml(path)


def test_a_missing_file_and_a_folder_are_named(tmp_path):
    with pytest.raises(UserError, match=r"no configuration .*v\.yaml"):
        load_yaml(tmp_path / "v.yaml")
    with pytest.raises(UserError, match="cannot be read: Is a directory"):
        load_yaml(tmp_path)
