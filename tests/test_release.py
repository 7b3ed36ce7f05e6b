"""A release has one version, wherever it is written, and the same checks before a commit as in CI."""

import re
import tomllib
from pathlib import Path

import pytest
import yaml

ROOT = Path(__file__).parents[1]
RELEASE = re.compile(r"^## \[(\d+\.\d+\.\d+)\] - (\d{4}-\d\d-\d\d)$", re.MULTILINE)


@pytest.fixture(scope="module")
def newest():
    """Version and date of the changelog's first release."""
    return RELEASE.search((ROOT / "CHANGELOG.md").read_text(encoding="utf-8")).groups()


@pytest.mark.parametrize("folder", [".", "callbacks"])
def test_both_packages_have_the_changelogs_version(folder, newest):
    project = tomllib.loads((ROOT / folder / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    assert project["version"] == newest[0]


def test_the_citation_has_it_too(newest):
    citation = yaml.safe_load((ROOT / "CITATION.cff").read_text(encoding="utf-8"))
    assert (citation["version"], str(citation["date-released"])) == newest


def test_releases_are_in_order():
    dates = [date for _, date in RELEASE.findall((ROOT / "CHANGELOG.md").read_text(encoding="utf-8"))]
    assert dates == sorted(dates, reverse=True)
    assert len(dates) >= 2


def test_a_commit_is_checked_by_make_lint():
    (repo,) = yaml.safe_load((ROOT / ".pre-commit-config.yaml").read_text(encoding="utf-8"))["repos"]
    assert [hook["entry"].split()[-1] for hook in repo["hooks"]] == ["lint"]
    assert re.search(r"^lint:", (ROOT / "Makefile").read_text(encoding="utf-8"), re.MULTILINE)


def test_the_files_that_contributing_names_are_there():
    text = (ROOT / "CONTRIBUTING.md").read_text(encoding="utf-8")
    named = re.findall(r"`((?:callbacks|fmnist_pl|tests|benchmarks)/[\w/.*]*)`", text)
    assert len(named) > 10
    assert [name for name in named if not list(ROOT.glob(name.rstrip("/")))] == []
