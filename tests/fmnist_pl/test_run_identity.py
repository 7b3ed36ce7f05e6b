"""What makes two runs the same run."""

import subprocess

import pytest
from jsonargparse import Namespace

from fmnist_pl.runs.identity import code_version, content_hash, identity, relevant_config


def config(**changes):
    values = {
        "variant": "baseline",
        "seed_everything": 0,
        "model.learning_rate": 0.001,
        "data.root": "data",
        "data.dataset": "fashion_mnist",
        "data.training_images": None,
        "data.seed": 0,
        "trainer.max_epochs": 10,
        "trainer.logger": Namespace(class_path="Logger", init_args=Namespace(save_dir="logs")),
        "trainer.callbacks": [Namespace(class_path="callbacks.Monitor", init_args=Namespace(every=1))],
        "monitors": "on",
        "test_checkpoint": "best",
    }
    return Namespace(**{**values, **changes})


def digest(**changes):
    return identity(config(**changes))["digest"]


@pytest.mark.parametrize(
    "change",
    [
        {"variant": "mine"},
        {"data.root": "/elsewhere"},
        {"trainer.logger": None},
        {"trainer.enable_progress_bar": False},
    ],
    ids=str,
)
def test_names_and_folders_do_not_count(change):
    assert digest(**change) == digest()


def test_a_run_without_monitors_is_the_same_before_and_after_they_are_taken_out():
    others = [Namespace(class_path="callbacks.Monitor", init_args=Namespace(every=1))]
    ours = [Namespace(class_path="training_health.DeadReLUMonitor", init_args=Namespace())]

    whole = {"monitors": "off", "trainer.callbacks": [*ours, *others]}

    assert digest(**whole) == digest(**{**whole, "trainer.callbacks": others})


def test_runs_that_differ_by_their_seed_have_the_same_options():
    options = identity(config())["options"]

    assert identity(config(seed_everything=1))["options"] == options
    assert identity(config(**{"data.training_images": 500}))["options"] != options


@pytest.mark.parametrize(
    "change",
    [
        {"seed_everything": 1},
        {"model.learning_rate": 0.002},
        {"data.dataset": "synthetic"},
        {"data.training_images": 500},
        {"trainer.max_epochs": 9},
        {"trainer.callbacks": []},
        {"monitors": "off"},
        {"test_checkpoint": "last"},
    ],
    ids=str,
)
def test_what_bears_on_the_metrics_counts(change):
    assert digest(**change) != digest()


def test_the_libraries_versions_count_but_not_pythons(monkeypatch):
    before = digest()
    monkeypatch.setattr("platform.python_version", lambda: "3.99")
    assert digest() == before
    monkeypatch.setattr("torch.__version__", "0.1")
    assert digest() != before


@pytest.fixture
def package(tmp_path, monkeypatch):
    """A package in a repository of its own, with one commit."""
    package = tmp_path / "fmnist_pl"
    package.mkdir()
    (package / "__init__.py").write_text("")
    for key in ("GIT_AUTHOR_NAME", "GIT_AUTHOR_EMAIL", "GIT_COMMITTER_NAME", "GIT_COMMITTER_EMAIL"):
        monkeypatch.setenv(key, "someone")
    for command in ("init -q", "add .", "commit -q -m first"):
        subprocess.run(["git", "-C", str(tmp_path), *command.split()], check=True)
    return package


def version_now(package):
    """A process asks once and keeps the answer; here each call asks again."""
    code_version.cache_clear()
    return code_version(package)


def test_the_code_is_known_by_its_commit_and_what_was_changed_since(package):
    commit = subprocess.run(["git", "-C", str(package), "rev-parse", "HEAD"], capture_output=True, text=True).stdout
    clean = version_now(package)
    (package.parent / "README.md").write_text("beside the package")
    beside = version_now(package)
    (package / "__init__.py").write_text("x = 1")
    edited = version_now(package)
    (package / "new.py").write_text("x = 1")
    added = version_now(package)
    (package / "new.py").write_text("x = 2")
    again = version_now(package)

    assert clean == beside == commit.strip()
    assert all(version.startswith(f"{clean}-dirty-") for version in (edited, added, again))
    assert len({edited, added, again}) == 3


def test_a_package_that_only_lies_in_somebodys_repository_is_known_by_its_version(package):
    installed = package.parent / "site-packages" / "fmnist_pl"
    installed.mkdir(parents=True)
    (installed / "__init__.py").write_text("")

    assert version_now(installed).startswith("fmnist_pl ")
    code_version.cache_clear()


def test_nested_settings_become_plain_values():
    plain = relevant_config(config())

    assert plain["trainer"]["callbacks"] == [{"class_path": "callbacks.Monitor", "init_args": {"every": 1}}]
    assert "root" not in plain["data"]


def test_the_order_of_keys_does_not_count():
    assert content_hash({"a": 1, "b": [2]}) == content_hash({"b": [2], "a": 1})
