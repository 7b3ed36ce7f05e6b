"""The fixed table of files the tab may serve: nothing else can be asked for."""

import importlib.util
from dataclasses import dataclass
from importlib import metadata
from pathlib import Path

MODULES = (
    "api.js",
    "chart.js",
    "dead_units.js",
    "dom.js",
    "empty.js",
    "findings.js",
    "gap.js",
    "host.js",
    "index.js",
    "overview.js",
    "state.js",
    "theme.js",
    "unit_map.js",
    "weights.js",
)
STYLE = "style.css"
PLOTLY = "plotly.min.js"
ONE_DAY = 86_400


@dataclass(frozen=True)
class StaticFile:
    """A file, its media type, and for how many seconds a browser may keep it."""

    path: Path
    media_type: str
    expires: int = 0


def static_files() -> dict[str, StaticFile]:
    """All files by name."""
    here = Path(__file__).parent / "static"
    files = {name: StaticFile(here / name, "text/javascript") for name in MODULES}
    files[STYLE] = StaticFile(here / STYLE, "text/css")
    plotly = plotly_path()
    if plotly is not None:
        files[PLOTLY] = StaticFile(plotly, "text/javascript", ONE_DAY)
    return files


def plotly_path() -> Path | None:
    """plotly.js inside the installed ``plotly`` package, found without importing it (which takes 0.1 s)."""
    spec = importlib.util.find_spec("plotly")
    if spec is None or spec.origin is None:
        return None
    path = Path(spec.origin).parent / "package_data" / PLOTLY
    return path if path.is_file() else None


def plotly_version() -> str:
    """Version of the ``plotly`` package: part of the script's address, so that an upgrade is not served from cache."""
    try:
        return metadata.version("plotly")
    except metadata.PackageNotFoundError:
        return "none"
