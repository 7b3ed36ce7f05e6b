"""The fixed table of files the tab may serve: nothing else can be asked for."""

import importlib.util
from pathlib import Path

STYLE = "style.css"
PLOTLY = "plotly.min.js"


def static_files() -> dict[str, Path]:
    """All files by name: the front end's modules, its style, and plotly.js where ``plotly`` is installed."""
    here = Path(__file__).parent / "static"
    files = {path.name: path for path in [*sorted(here.glob("*.js")), here / STYLE]}
    plotly = importlib.util.find_spec("plotly")  # found without importing the package, which takes 0.1 s
    path = Path(plotly.origin).parent / "package_data" / PLOTLY if plotly and plotly.origin else None
    return files | {PLOTLY: path} if path and path.is_file() else files
