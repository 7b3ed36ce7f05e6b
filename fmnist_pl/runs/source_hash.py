"""A hash of the source code that a run's figures depend on; comments, layout and docstrings do not count."""

import ast
import hashlib
from collections.abc import Iterable
from pathlib import Path

PROJECT = Path(__file__).parents[2]
PACKAGES = ("fmnist_pl", "training_health")


def source_hash(modules: Iterable[str], project: Path = PROJECT, packages: tuple[str, ...] = PACKAGES) -> str:
    """Hash the modules and everything of ``packages`` that they import, directly or through others.

    Code that no module of the run imports (the tab, the command line, this comparison) can change without making
    finished runs stale.

    Args:
        modules: Dotted names; an attribute of a module (a class path) counts as its module.
        project: Folder that holds the packages.
        packages: The packages whose source counts.

    Returns:
        SHA-256 in hexadecimal.
    """
    found: dict[str, str] = {}
    waiting = sorted(modules)
    while waiting:
        path = _source_file(waiting.pop(), project, packages)
        if path is None or (name := path.relative_to(project).as_posix()) in found:
            continue
        tree = ast.parse(path.read_bytes())
        waiting.extend(_imported_names(tree, path.relative_to(project).parent.parts))
        found[name] = ast.dump(_without_docstrings(tree))
    digest = hashlib.sha256()
    for name in sorted(found):
        digest.update(f"{name}\0{found[name]}\0".encode())
    return digest.hexdigest()


def _source_file(name: str, project: Path, packages: tuple[str, ...]) -> Path | None:
    """The file of the longest prefix of a dotted name that is a module of the packages."""
    parts = name.split(".")
    if parts[0] not in packages:
        return None
    for length in range(len(parts), 0, -1):
        path = project.joinpath(*parts[:length])
        if path.with_suffix(".py").is_file():
            return path.with_suffix(".py")
        if (path / "__init__.py").is_file():
            return path / "__init__.py"
    return None


def _imported_names(tree: ast.Module, package: tuple[str, ...]) -> list[str]:
    """Every dotted name that a module of ``package`` imports; ``from a import b`` gives a and a.b."""
    names: list[str] = []
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            names += [alias.name for alias in node.names]
        elif isinstance(node, ast.ImportFrom):
            base = package[: len(package) - node.level + 1] if node.level else ()
            module = ".".join([*base, *([node.module] if node.module else [])])
            names += [module, *(f"{module}.{alias.name}" for alias in node.names)]
    return names


def _without_docstrings(tree: ast.Module) -> ast.Module:
    for node in ast.walk(tree):
        if isinstance(node, ast.Module | ast.ClassDef | ast.FunctionDef | ast.AsyncFunctionDef) and (
            ast.get_docstring(node, clean=False) is not None
        ):
            node.body = node.body[1:]
    return tree
