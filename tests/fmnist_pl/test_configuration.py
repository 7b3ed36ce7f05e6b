"""Options on the command line, configuration files, names and files of variants."""

import pytest

from fmnist_pl.configuration import CONFIGS, load_yaml, overlay_path, packaged_variants, value_of, variant_name
from training_health.errors import UserError


@pytest.mark.parametrize(
    ("args", "value"),
    [
        (["--resume", "last"], "last"),
        (["--resume=a=b"], "a=b"),
        (["--resume=x", "--resume", "y"], "y"),
        (["--resumed=x"], None),
        (["--resume"], None),
    ],
)
def test_an_option_is_found_on_the_command_line(args, value):
    assert value_of(args, "resume") == value


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


def test_the_notebooks_variants_are_packaged():
    assert {"baseline", "no_dropout", "sgd"} <= set(packaged_variants())


def test_a_name_leads_to_its_overlay():
    assert overlay_path("sgd") == CONFIGS / "sgd.yaml"


def test_a_path_leads_to_itself(tmp_path):
    mine = tmp_path / "mine.yaml"
    mine.write_text("variant: mine\n")

    assert overlay_path(str(mine)) == mine
    assert variant_name(str(mine)) == "mine"


def test_an_unknown_name_is_refused_with_the_nearest_one():
    with pytest.raises(UserError, match=r"no variant named 'no_dropuot'. Did you mean no_dropout\? Packaged") as raised:
        overlay_path("no_dropuot")

    assert raised.value.exit_code == 2


def test_a_missing_file_is_refused():
    with pytest.raises(UserError, match=r"no variant file missing\.yaml"):
        overlay_path("missing.yaml")


@pytest.mark.parametrize("name", packaged_variants())
def test_an_overlay_has_at_most_ten_lines_and_says_why(name):
    lines = (CONFIGS / f"{name}.yaml").read_text().splitlines()

    assert len(lines) <= 10
    assert lines[0].startswith("# ")
