"""The fixed table of files the tab may serve: nothing else can be asked for."""

import importlib.util
from importlib import metadata
from pathlib import Path

STYLE = "style.css"
PLOTLY = "plotly.min.js"


def static_files() -> dict[str, Path]:
    """All files by name: the front end's modules, its style, and plotly.js where ``plotly`` is installed.

    plotly.js is found without importing the package, which takes 0.1 s.
    """
    here = Path(__file__).parent / "static"
    files = {path.name: path for path in [*sorted(here.glob("*.js")), here / STYLE]}
    plotly = importlib.util.find_spec("plotly")
    if plotly is not None and plotly.origin is not None:
        path = Path(plotly.origin).parent / "package_data" / PLOTLY
        if path.is_file():
            files[PLOTLY] = path
    return files


def plotly_version() -> str:
    """Version of the ``plotly`` package: part of the script's address, so that an upgrade is not served from cache."""
    try:
        return metadata.version("plotly")
    except metadata.PackageNotFoundError:
        return "none"
