"""What makes two runs the same run."""

import pytest
from jsonargparse import Namespace

from fmnist_pl.runs import identity as run_identity
from fmnist_pl.runs.identity import content_hash, identity, relevant_config

VERSIONS = {"python": "3.11.7", "torch": "2.15.0"}


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
    return identity(config(**changes), VERSIONS)["digest"]


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
def test_names_and_places_do_not_count(change):
    assert digest(**change) == digest()


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
def test_what_bears_on_the_figures_counts(change):
    assert digest(**change) != digest()


def test_the_libraries_versions_count_but_not_pythons():
    assert identity(config(), {**VERSIONS, "python": "3.13.1"})["digest"] == digest()
    assert identity(config(), {**VERSIONS, "torch": "2.16.0"})["digest"] != digest()


def test_code_that_is_edited_is_noticed(monkeypatch):
    before = digest()
    assert run_identity.code_is_unchanged()

    monkeypatch.setattr(run_identity, "source_hash", lambda modules: "edited")

    assert not run_identity.code_is_unchanged()
    assert digest() == before  # the process still runs the code that it loaded


def test_nested_settings_become_plain_values():
    plain = relevant_config(config())

    assert plain["trainer"]["callbacks"] == [{"class_path": "callbacks.Monitor", "init_args": {"every": 1}}]
    assert "root" not in plain["data"]


def test_the_order_of_keys_does_not_count():
    assert content_hash({"a": 1, "b": [2]}) == content_hash({"b": [2], "a": 1})
