"""Sphinx's settings; ``make docs`` builds with warnings as errors."""

import shutil
import sys
from pathlib import Path
from typing import Any

from docutils import nodes
from docutils.utils.math import latex2mathml
from sphinx.application import Sphinx

ROOT = Path(__file__).resolve().parents[1]
sys.path[:0] = [str(ROOT), str(ROOT / "callbacks")]

project = "fmnist_pl and training_health"
html_title = project
copyright = ""
html_show_copyright = False
html_show_sphinx = False
extensions = ["myst_nb", "sphinx.ext.autodoc", "sphinx.ext.napoleon"]
exclude_patterns = ["_build", "jupyter_execute"]  # what building makes
html_theme = "furo"
html_static_path = ["_static"]
html_css_files = ["wide.css"]
default_role = "py:obj"  # a name in single backticks is a link where it is known, else code
python_use_unqualified_type_names = True
python_maximum_signature_line_length = 100
autodoc_preserve_defaults = True
autodoc_inherit_docstrings = False  # not those of Lightning's hooks
myst_heading_anchors = 3
nb_execution_mode = "off"  # the notebook's own test executes it
html_math_renderer = "mathml"


def setup(app: Sphinx) -> None:
    """Formulas as MathML, which browsers draw themselves, and the gallery's reports as they are."""

    def formula(translator: Any, node: nodes.Element) -> None:  # noqa: ANN401 - docutils' writer
        translator.body.append(latex2mathml.tex2mathml(node.astext(), as_block=isinstance(node, nodes.math_block)))
        raise nodes.SkipNode

    def copy_reports(app: Sphinx, error: Exception | None) -> None:
        for report in Path(app.srcdir, "gallery").glob("*.html"):
            shutil.copy(report, Path(app.outdir, "gallery"))

    app.add_html_math_renderer("mathml", (formula, None), (formula, None))
    app.connect("build-finished", copy_reports)
