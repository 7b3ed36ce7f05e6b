"""The fixed table of files the tab may serve: nothing else can be asked for."""

from pathlib import Path

STYLE = "style.css"
# With the traces of our charts alone, made by callbacks/plotly/bundle.mjs, which says why.
PLOTLY = "plotly-scatter-heatmap-image-4.1.1.min.js"


def static_files() -> dict[str, Path]:
    """All files by name: the front end's modules, its style, and plotly.js."""
    here = Path(__file__).parent / "static"
    return {path.name: path for path in [*sorted(here.glob("*.js")), here / STYLE]}
