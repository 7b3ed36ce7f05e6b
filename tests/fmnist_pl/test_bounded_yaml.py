"""YAML that would keep a program busy for ever is refused at once."""

import time

import pytest

from fmnist_pl.bounded_yaml import LARGEST_FILE, check_bounds, guard_configurations, load_yaml
from fmnist_pl.cli import main
from training_health.errors import UserError

LAUGHS = "a0: &a0 [x, x, x, x, x, x, x, x, x, x]\n" + "".join(
    f"a{level}: &a{level} [{', '.join([f'*a{level - 1}'] * 10)}]\n" for level in range(1, 10)
)
HOSTILE = {
    "ten billion values by aliases": (LAUGHS, "stands for more than 50,000 values"),
    "an alias of itself": ("a: &a [*a]", "contains itself"),
    "an alias of what holds it": ("a: &a {b: {c: *a}}", "contains itself"),
    "a hundred thousand levels": ("[" * 100_000, "nested more than 50 levels"),
    "levels that are closed": ("[" * 20_000 + "]" * 20_000, "nested more than 50 levels"),
    "levels by aliases": (
        "- &a0 [x]\n" + "".join(f"- &a{level} [*a{level - 1}]\n" for level in range(1, 100)),
        "nested more than 50 levels",
    ),
    "many values": ("a: [" + "1," * 400_000 + "]", "more than 50,000 values"),
    "many characters": ("a: " + "x" * LARGEST_FILE, "more than 1,048,576 characters"),
}


@pytest.mark.parametrize("name", HOSTILE)
def test_hostile_yaml_is_refused_within_a_second(name):
    text, said = HOSTILE[name]
    began = time.perf_counter()

    with pytest.raises(UserError, match=f"configuration it was refused: .*{said}"):
        check_bounds(text, "it")

    assert time.perf_counter() - began < 1


@pytest.mark.parametrize("text", ["", "a: 1", "a: &x {b: 1}\nc: *x\nd: {<<: *x}", "not: [yaml", "*unknown"])
def test_ordinary_yaml_passes(text):
    check_bounds(text, "it")


def test_a_file_is_read_as_plain_values(tmp_path):
    (tmp_path / "x.yaml").write_text("a: &x {b: 1}\nc: {<<: *x, d: [2.5, null]}")

    assert load_yaml(tmp_path / "x.yaml") == {"a": {"b": 1}, "c": {"b": 1, "d": [2.5, None]}}


def test_a_tag_that_asks_for_python_is_refused(tmp_path):
    (tmp_path / "x.yaml").write_text("a: !!python/object/apply:os.system [touch ran]")

    with pytest.raises(UserError, match="is not valid YAML"):
        load_yaml(tmp_path / "x.yaml")


@pytest.mark.parametrize(
    ("content", "said"),
    [(None, "There is no configuration"), (b"\xff\xfe\x00", "not text in UTF-8"), (b"x" * (LARGEST_FILE + 1), "bytes")],
)
def test_a_file_that_cannot_be_a_configuration_is_named(tmp_path, content, said):
    path = tmp_path / "x.yaml"
    if content is not None:
        path.write_bytes(content)

    with pytest.raises(UserError, match=said) as raised:
        load_yaml(path)
    assert str(path) in str(raised.value)


def test_a_device_is_not_read(tmp_path):
    (tmp_path / "x.yaml").symlink_to("/dev/zero")

    with pytest.raises(UserError, match="is not a file"):
        load_yaml(tmp_path / "x.yaml")


@pytest.mark.parametrize("option", ["--config={}", "--variant={}", "--model={}"])
def test_every_file_on_the_command_line_is_checked(tmp_path, option):
    (tmp_path / "x.yaml").write_text(LAUGHS)

    with pytest.raises(UserError, match=r"x\.yaml was refused"):
        guard_configurations([option.format(tmp_path / "x.yaml")])


@pytest.mark.parametrize("arguments", [["--config", "{}"], ["--variant", "{}"], ["--trainer.callbacks={}"]])
def test_the_command_refuses_a_hostile_configuration_within_seconds(tmp_path, arguments):
    (tmp_path / "x.yaml").write_text("model: &a\n  conv_channels: *a\n")
    began = time.perf_counter()

    with pytest.raises(UserError, match="contains itself"):
        main(["fit", *(argument.format(tmp_path / "x.yaml") for argument in arguments)])
    assert time.perf_counter() - began < 5


def test_hostile_yaml_within_an_option_is_refused():
    with pytest.raises(UserError, match="contains itself"):
        main(["fit", "--model.conv_channels=&a [*a]"])
