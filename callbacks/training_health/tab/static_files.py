"""The fixed table of files the tab may serve: nothing else can be asked for."""

from pathlib import Path

STYLE = "style.css"
# As published on npm in plotly.js-cartesian-dist-min: a third of the whole library, and four times as fast to start.
PLOTLY = "plotly-cartesian-4.1.1.min.js"


def static_files() -> dict[str, Path]:
    """All files by name: the front end's modules, its style, and plotly.js."""
    here = Path(__file__).parent / "static"
    return {path.name: path for path in [*sorted(here.glob("*.js")), here / STYLE]}
