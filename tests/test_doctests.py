"""The examples in the docstrings run and print what they say."""

import doctest
import re
from importlib import import_module
from pathlib import Path

import pytest

import fmnist_pl
import training_health
from tests.training_health.toys import FEW_EXAMPLES

ROOTS = [Path(package.__file__).parent for package in (fmnist_pl, training_health)]
WITH_EXAMPLES = sorted(
    ".".join([root.name, *path.relative_to(root).with_suffix("").parts])
    for root in ROOTS
    for path in root.rglob("*.py")
    if ">>>" in path.read_text(encoding="utf-8")
)
NAMED_IN_CONFIGS = {
    name
    for path in (ROOTS[0] / "configs").glob("*.yaml")
    for name in re.findall(r"class_path: ((?:fmnist_pl|training_health)\.[\w.]+)", path.read_text(encoding="utf-8"))
}
PUBLIC = NAMED_IN_CONFIGS | {
    f"{package.__name__}.{name}" for package in (fmnist_pl, training_health) for name in package.__all__
}


@pytest.mark.parametrize("name", sorted(PUBLIC))
def test_every_public_name_has_an_example(name):
    module, attribute = name.rsplit(".", 1)

    assert ">>>" in getattr(import_module(module), attribute).__doc__


@pytest.mark.parametrize("name", WITH_EXAMPLES)
@FEW_EXAMPLES
@pytest.mark.filterwarnings("ignore::DeprecationWarning")
def test_the_examples_of_a_module(name):
    result = doctest.testmod(import_module(name))

    assert result.attempted > 0
    assert result.failed == 0
