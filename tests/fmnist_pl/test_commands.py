"""Which subcommand runs, and what a person sees who mistypes one."""

import subprocess
import sys
from types import SimpleNamespace

import pytest

from fmnist_pl import commands
from fmnist_pl.__main__ import run
from training_health.errors import UserError


@pytest.mark.parametrize("args", [["--help"], ["-h"], []])
def test_help_lists_every_command(args, capsys):
    commands.main(args)

    printed = capsys.readouterr().out
    assert all(f"\n  {name} " in printed for name in commands.COMMANDS)


@pytest.mark.parametrize("command", commands.COMMANDS)
def test_a_commands_help_fits_a_terminal_and_ends_with_examples(command, capsys, monkeypatch):
    monkeypatch.setenv("COLUMNS", "80")

    commands.main([command, "--help"])

    lines = capsys.readouterr().out.splitlines()
    assert [line for line in lines if len(line) > 80] == []
    assert lines[0].startswith(f"usage: fmnist {command} ")
    assert lines[lines.index("examples:") + 1].strip().startswith(("fmnist ", "DATA_DIR="))


def test_an_unknown_command_is_refused_with_the_nearest_one():
    with pytest.raises(UserError, match=r"no command 'fti'. Did you mean fit\? Commands: fit, validate") as raised:
        commands.main(["fti"])

    assert raised.value.exit_code == 2


def test_a_report_of_a_folder_that_is_not_there_is_refused(tmp_path):
    with pytest.raises(UserError, match="missing"):
        commands.main(["report", "--logdir", str(tmp_path / "missing")])


def test_a_users_mistake_ends_in_one_message_without_a_traceback():
    ended = subprocess.run(
        [sys.executable, "-m", "fmnist_pl", "fit", "--variant", "basline"], capture_output=True, text=True, timeout=120
    )

    assert ended.returncode == 2
    assert ended.stderr.startswith("error: There is no variant named 'basline'. Did you mean baseline?")
    assert "Traceback" not in ended.stderr


@pytest.mark.parametrize(
    ("error", "line"),
    [
        (
            OSError(28, "No space left on device"),
            "error: No space left on device. Make room, or correct path and permissions.",
        ),
        (
            OSError(13, "Permission denied", "/a"),
            "error: /a: Permission denied. Make room, or correct path and permissions.",
        ),
    ],
)
def test_a_refusal_of_the_system_names_the_file_if_there_is_one(monkeypatch, capsys, error, line):
    def refuse() -> None:
        raise error

    monkeypatch.setattr(commands, "main", refuse)
    monkeypatch.setattr("fmnist_pl.__main__.end_with_parent", lambda: None)
    monkeypatch.setattr("fmnist_pl.__main__.keep_writing", lambda: None)
    with pytest.raises(SystemExit, match="1"):
        run()
    assert capsys.readouterr().err == f"{line}\n"


@pytest.mark.parametrize("words", [["fit", "--variant=basline"], ["compare", "--variants", "sgd", "basline"]])
def test_a_mistyped_variant_is_refused_before_torch_is_imported(words):
    code = f"""
import sys
from fmnist_pl import commands
from training_health import errors
try:
    commands.main({words})
except errors.UserError as error:
    print("torch" in sys.modules, str(error)[:40])
"""
    ended = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=60, check=True)

    assert ended.stdout == "False There is no variant named 'basline'. Did\n"


def lacking(package):
    def main(args):
        raise ModuleNotFoundError(f"No module named {package!r}", name=package)

    return SimpleNamespace(main=main)


@pytest.mark.parametrize(("command", "package"), [("search", "optuna.samplers"), ("compare", "scipy")])
def test_a_missing_extra_is_named(monkeypatch, command, package):
    monkeypatch.setitem(sys.modules, f"fmnist_pl.{command}.command", lacking(package))

    with pytest.raises(UserError, match=rf'fmnist {command} needs \w+,.*pip install -e "\.\[{command}\]"'):
        commands.main([command])


def test_another_missing_module_is_no_mistake_of_the_users(monkeypatch):
    monkeypatch.setitem(sys.modules, "fmnist_pl.search.command", lacking("fmnist_pl.gone"))

    with pytest.raises(ModuleNotFoundError, match="gone"):
        commands.main(["search"])


def test_importing_the_package_imports_neither_torch_nor_lightning():
    code = "import sys, fmnist_pl, fmnist_pl.commands; print({'torch', 'pytorch_lightning'} & set(sys.modules))"

    ended = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=60, check=True)

    assert ended.stdout == "set()\n"


@pytest.mark.slow
def test_a_checkpoints_dead_units_are_counted_on_the_validation_images(tmp_path, capsys):
    import torch

    from fmnist_pl.classifier import FashionClassifier
    from training_health.tab.one_file import write_report

    model = FashionClassifier()
    with torch.no_grad():
        model.net.fc1.linear.bias.fill_(-1000)
    (tmp_path / "checkpoints").mkdir()
    saved = {"state_dict": model.state_dict(), "hyper_parameters": dict(model.hparams), "run": {"dataset": "synthetic"}}
    torch.save(saved, tmp_path / "checkpoints" / "best.ckpt")

    commands.main(["inspect", str(tmp_path), "--root", str(tmp_path), "--write", str(tmp_path / "logs")])
    write_report(tmp_path / "logs", tmp_path / "report.html")

    printed = capsys.readouterr().out
    assert "fc1 256/256" in printed
    assert "examples)" in printed


def test_a_file_that_holds_no_network_of_ours_is_refused(tmp_path):
    import torch

    torch.save({"state_dict": {"weight": torch.ones(1)}}, tmp_path / "other.ckpt")

    with pytest.raises(UserError, match=r"other\.ckpt does not hold a network"):
        commands.main(["inspect", str(tmp_path / "other.ckpt")])
