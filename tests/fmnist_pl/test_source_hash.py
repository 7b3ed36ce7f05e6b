"""The hash of the code that a run depends on."""

import pytest

from fmnist_pl.runs.source_hash import source_hash

SOURCES = {
    "lab/__init__.py": "",
    "lab/model.py": '"""Doc."""\nfrom lab import layers\n\ndef build():\n    return layers.SIZE\n',
    "lab/layers.py": "SIZE = 3\n",
    "lab/screen.py": "from lab.model import build\n",
}


@pytest.fixture
def project(tmp_path):
    for name, text in SOURCES.items():
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_text(text)
    return tmp_path


def hash_of(project, *modules):
    return source_hash(modules or ["lab.model"], project, ("lab",))


def test_a_change_of_an_imported_module_changes_the_hash(project):
    before = hash_of(project)
    (project / "lab/layers.py").write_text("SIZE = 4\n")

    assert hash_of(project) != before


def test_a_module_that_the_run_does_not_import_does_not_count(project):
    before = hash_of(project)
    (project / "lab/screen.py").write_text("from lab.model import build\n\nprint(build())\n")

    assert hash_of(project) == before


def test_comments_docstrings_and_layout_do_not_count(project):
    before = hash_of(project)
    (project / "lab/model.py").write_text(
        'from lab import layers  # filters\n\n\ndef build():\n    """The network."""\n    return (layers.SIZE)\n'
    )

    assert hash_of(project) == before


@pytest.mark.parametrize("line", ["import lab.layers", "from lab.layers import SIZE", "from .layers import SIZE"])
def test_every_form_of_import_is_followed(project, line):
    (project / "lab/model.py").write_text(f"def build():\n    {line}\n    return 1\n")
    before = hash_of(project)
    (project / "lab/layers.py").write_text("SIZE = 4\n")

    assert hash_of(project) != before


def test_a_class_path_counts_as_its_module(project):
    assert hash_of(project, "lab.model.build") == hash_of(project, "lab.model")


def test_other_packages_do_not_count(project):
    assert hash_of(project, "lab.model", "torch.nn.ReLU") == hash_of(project, "lab.model")
