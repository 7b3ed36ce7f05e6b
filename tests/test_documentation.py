"""The READMEs and ``docs/``: their code runs, their commands exist, their links lead somewhere."""

import os
import re
import shlex
import shutil
import subprocess
import sys
from functools import cache
from importlib.util import find_spec
from itertools import pairwise
from pathlib import Path

import pytest
import yaml

from benchmarks.__main__ import MEASURES, READERS
from fmnist_pl.cli import fit_configuration
from fmnist_pl.commands import COMMANDS, main
from fmnist_pl.configuration import overlay_path
from tests.test_doctests import PUBLIC
from tests.training_health.toys import events

ROOT = Path(__file__).parents[1]
DOCS = ROOT / "docs"
PAGES = [ROOT / "README.md", ROOT / "callbacks/README.md", ROOT / "benchmarks/README.md"]
PAGES += sorted(path for path in DOCS.rglob("*.md") if "_build" not in path.parts)
FENCE = re.compile(r"^```(\w*)\n(.*?)^```", re.MULTILINE | re.DOTALL)
SPAN = re.compile(r"`([^`]+)`")
LINK = re.compile(r"\]\(([^)\s]+)\)|(?:src|href)=\"([^\"]+)\"")
OTHERS = {"createdb", "optuna-dashboard", "tensorboard"}  # commands of other projects


def blocks(language: str) -> list:
    """All blocks of a language, as test parameters that are named by page and line."""
    found = []
    for page in PAGES:
        text = page.read_text(encoding="utf-8")
        for block in FENCE.finditer(text):
            if block[1] == language:
                line = text.count("\n", 0, block.start()) + 1
                found.append(pytest.param(block[2], id=f"{page.relative_to(ROOT)}:{line}"))
    return found


def prose(page: Path) -> str:
    return FENCE.sub("", page.read_text(encoding="utf-8"))


def in_spans(page: Path) -> list[str]:
    return [" ".join(span.split()) for span in SPAN.findall(prose(page))]


@pytest.mark.slow
@pytest.mark.parametrize("block", blocks("python"))
def test_a_block_of_python_runs_and_leaves_records(block, tmp_path):
    if "WandbLogger" in block:
        pytest.importorskip("wandb.sdk")
    start = (
        "import functools; from tests.training_health.toys import *\n"
        "torch.compile = functools.partial(torch.compile, backend='aot_eager')  # in seconds, without a C++ compiler\n"
        "datamodule = pl.LightningDataModule.from_datasets(image_set(23), image_set(13, 1), batch_size=5)\n"
        "model = Toy()\n"
    )
    # A W&B service that this process started would write into this process's folder, not into the other's.
    environment = {name: value for name, value in os.environ.items() if name != "WANDB_SERVICE"}
    environment |= {"LIGHTNING": "lightning.pytorch", "WANDB_MODE": "offline", "OMP_NUM_THREADS": "1"}

    done = subprocess.run(
        [sys.executable, "-c", start + block], cwd=tmp_path, capture_output=True, text=True, check=False,
        env=environment | {"PYTHONPATH": os.pathsep.join(sys.path)},
    )  # fmt: skip

    assert done.returncode == 0, done.stderr[-3000:]
    assert any(tag.startswith("training_health/") for tag, _, _ in events(tmp_path))


@pytest.mark.parametrize("block", blocks("yaml"))
def test_a_block_of_yaml_is_a_search_space(block):
    space = pytest.importorskip("fmnist_pl.search.space", reason="needs Optuna")
    content = yaml.safe_load(block)

    assert list(space.Space(content, "block").distributions) == list(content["space"])


@pytest.mark.parametrize("block", blocks("bash"))
def test_the_commands_of_a_block_exist(block):
    for line in block.replace("\\\n", " ").splitlines():
        check_command(shlex.split(line, comments=True))


@pytest.mark.parametrize("page", PAGES, ids=[str(page.relative_to(ROOT)) for page in PAGES])
def test_the_commands_in_the_text_exist(page):
    for span in in_spans(page):
        if re.match(r"(make|fmnist|torchrun|pip install|python -m|python \S+\.py)\b", span):
            check_command(shlex.split(span))
        elif span.startswith("--"):
            check_options(shlex.split(span))


def test_the_check_of_commands_finds_what_is_wrong():
    for wrong in ("make trian", "make train EPOHCS=1", "fmnist fot", "fmnist compare --sedes 1", "mkae train",
                  "fmnist fit --trainer.max_epoch=3", "python -m benchmarks all", 'pip install ".[fsat]"'):  # fmt: skip
        with pytest.raises((AssertionError, SystemExit)):
            check_command(shlex.split(wrong))


def check_command(words: list[str]) -> None:
    """Fails for a command, target, variable, option or file that does not exist."""
    match words:
        case [] | [".", ".venv/bin/activate"]:
            return
        case ["make", *rest]:
            check_make(rest)
        case ["fmnist", *rest]:
            check_fmnist(rest)
        case ["torchrun", *rest]:
            from torch.distributed.run import get_args_parser

            launched = get_args_parser().parse_args(rest)
            assert launched.training_script == "fmnist_pl"
            check_fmnist(launched.training_script_args)
        case ["pip", "install", *packages]:
            for package in packages:
                named = re.search(r"\[(.*?)\]", package)
                assert set(named[1].split(",") if named else []) <= extras(), package
        case ["python", "-m", "benchmarks", *rest]:
            assert not rest or rest[0] in {*MEASURES, *READERS}, rest
            check_options(rest)
        case ["python", "-m", module, *rest]:
            assert find_spec(module), module
            assert {option.partition("=")[0] for option in rest if option.startswith("--")} <= known_options(), rest
        case ["python", script, *_]:
            assert (ROOT / script).is_file(), script
        case [other, *_]:
            assert other in OTHERS, words


def check_make(words: list[str]) -> None:
    """The target, its variables, and what ``make`` would run for them."""
    makefile = (ROOT / "Makefile").read_text()
    for name in [word.partition("=")[0] for word in words if "=" in word]:
        assert re.search(rf"^(export )?{name} \?=", makefile, re.MULTILINE), name
    make = shutil.which("make") or pytest.skip("needs make")
    dry = subprocess.run([make, "-n", *words], cwd=ROOT, capture_output=True, text=True, check=False)
    assert dry.returncode == 0, dry.stderr
    for line in dry.stdout.replace("\\\n", " ").splitlines():
        if found := re.match(r"\.venv/bin/(fmnist .*)", line.strip()):
            check_command(shlex.split(found[1]))


def check_fmnist(words: list[str]) -> None:
    """A subcommand and its options."""
    if words in ([], ["--help"]) or words[0] == "COMMAND":
        return
    assert words[0] in COMMANDS, words
    check_options(words[1:])


def check_options(words: list[str]) -> None:
    """Options of any command; what none of them lists must be one of ``fmnist fit``, with a value that it takes."""
    unknown = []
    for word, after in pairwise([*words, "--"]):
        name, equals, value = word.partition("=")
        if word.startswith("--") and name.removesuffix("+") not in known_options():
            unknown += [word] if equals or after.startswith("--") else [f"{word}={after}"]
        elif name == "--variant" and not (value or after).endswith((".yaml", "...")):  # which the reader is to write
            overlay_path(value or after)
    if unknown:
        parse_as_fit(*unknown)


parse_as_fit = cache(lambda *options: fit_configuration(list(options)))


@cache
def known_options() -> frozenset[str]:
    """What ``--help`` lists, of all commands but Lightning's; and Lightning's that need a checkpoint or a run."""
    import contextlib
    import io

    text = io.StringIO()
    for command in set(COMMANDS) - {"fit", "validate", "test", "predict"}:
        with contextlib.redirect_stdout(text), contextlib.suppress(SystemExit):
            main([command, "--help"])
    benchmarks = "".join((ROOT / f"benchmarks/{name}.py").read_text() for name in ("__main__", *READERS))
    found = re.findall(r"--[a-z_-]+", text.getvalue()) + re.findall(r"\"(--[a-z_-]+)\"", benchmarks)
    return frozenset(found) | {"--help", "--variant", "--resume", "--config", "--ckpt_path"}


@cache
def extras() -> set[str]:
    import tomllib

    projects = [tomllib.loads((ROOT / folder / "pyproject.toml").read_text()) for folder in ("", "callbacks")]
    return {name for project in projects for name in project["project"]["optional-dependencies"]}


def slug(heading: str) -> str:
    """GitHub's anchor of a heading."""
    return re.sub(r"[^\w\- ]", "", heading.lower()).strip().replace(" ", "-")


@pytest.mark.parametrize("page", PAGES, ids=[str(page.relative_to(ROOT)) for page in PAGES])
def test_links_within_the_repository_lead_somewhere(page):
    for target in ["".join(found) for found in LINK.findall(prose(page))]:
        file, _, anchor = target.partition("#")
        if re.match(r"\w+:", file):
            continue
        linked = (page.parent / file).resolve() if file else page
        assert linked.exists(), target
        if anchor:
            headings = re.findall(r"^#+ (.*)", FENCE.sub("", linked.read_text(encoding="utf-8")), re.MULTILINE)
            assert anchor in [slug(heading) for heading in headings], target


def test_the_readme_is_a_screen_and_a_half():
    lines = (ROOT / "README.md").read_text().splitlines()

    assert len(lines) <= 75
    assert max(map(len, lines)) <= 122  # one line is a link that cannot be broken


@pytest.mark.slow
def test_the_pages_build_without_a_warning(tmp_path):
    pytest.importorskip("sphinx")

    done = subprocess.run(
        [sys.executable, "-m", "sphinx", "-W", "--keep-going", "-q", "-b", "html", DOCS, tmp_path],
        capture_output=True, text=True, check=False,
    )  # fmt: skip

    assert (done.returncode, done.stderr) == (0, "")
    described = "".join((tmp_path / f"api_{part}.html").read_text() for part in ("monitors", "experiment"))
    assert [name for name in sorted(PUBLIC) if f'id="{name}"' not in described] == []
    assert {path.name for path in DOCS.glob("gallery/*.html")} <= {path.name for path in tmp_path.glob("gallery/*")}


@pytest.mark.slow
def test_the_notebook_runs_and_answers(tmp_path, monkeypatch):
    nbformat, nbclient = pytest.importorskip("nbformat"), pytest.importorskip("nbclient")
    for name, value in {"DATASET": "synthetic", "DATA_DIR": str(tmp_path), "OMP_NUM_THREADS": "1"}.items():
        monkeypatch.setenv(name, value)
    monkeypatch.setenv("PYTHONPATH", os.pathsep.join(sys.path))
    notebook = nbformat.read(DOCS / "notebooks" / "dead_neurons.ipynb", 4)
    cells = [cell for cell in notebook.cells if cell.cell_type == "code"]
    kept = sum(len(str(cell.outputs)) for cell in cells)

    nbclient.NotebookClient(
        notebook, timeout=600, kernel_name="python3", resources={"metadata": {"path": str(tmp_path)}}
    ).execute()

    printed = "".join(output.get("text", "") for cell in cells for output in cell.outputs)
    assert re.search(r"^untrained +\d+\n^baseline +\d+ .*\n^no_dropout +\d+ .*\n^sgd +\d+ ", printed, re.MULTILINE)
    assert re.search(r"Noise behind \d+ dead units: largest change of a logit 0\.0e\+00", printed)
    assert printed.count("The gap is ") == 3
    assert "</html>" in (tmp_path / "report.html").read_text()
    assert kept < 10_000  # characters of output in the repository


def test_the_gallery_is_small():
    sizes = {page.name: page.stat().st_size for page in DOCS.glob("gallery/*.html")}

    assert set(sizes) == {"notebooks.html", "dying.html", "foreign.html", "search.html"}
    assert max(sizes.values()) <= 3_000_000
