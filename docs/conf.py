"""How Sphinx builds the site: `make docs`. No page loads anything from another host."""

import os
import sys
from importlib.metadata import version as installed
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parent / "_ext"))

project = "rfdiff"
author = "rfdiff developers"
release = version = installed("rfdiff")
copyright = f"{author}, MIT licence"

extensions = [
    "myst_nb",
    "sphinx.ext.autodoc",
    "sphinx.ext.napoleon",
    "sphinx.ext.mathjax",
    "sphinx_design",
    "sphinx_copybutton",
    "sphinx-mathjax-offline",  # vendors MathJax, from its own package
    "generated_pages",  # of this folder's _ext: gallery, interface and command line
    "docstrings",
]
exclude_patterns = ["_build", "_ext"]
html_theme = "furo"
html_title = "rfdiff"
html_static_path = ["_static"]
html_css_files = ["rfdiff.css"]
html_favicon = "_static/favicon.svg"
default_role = "code"
nitpicky = False

# formulas: the full component set, since the plain one leaves a whole page unrendered at one unknown macro
mathjax3_config = {"tex": {"macros": {}}, "svg": {"fontCache": "global"}}
math_number_all = False
math_eqref_format = "({number})"
numfig = True

myst_enable_extensions = ["amsmath", "attrs_inline", "colon_fence", "deflist", "dollarmath", "smartquotes"]
myst_heading_anchors = 3
myst_dmath_double_inline = True

# Tutorials run while the site is built, and a build fails where one does. Their programs run for seconds and would compile for a minute:
# few optimisations and, with the release that the site is built with, another backend halve that.
os.environ.setdefault("JAX_DISABLE_MOST_OPTIMIZATIONS", "1")
if installed("jaxlib").startswith("0.10."):
    os.environ.setdefault("XLA_FLAGS", "--xla_cpu_use_fusion_emitters=false")
nb_execution_mode = "cache"
nb_execution_timeout = 600
nb_execution_raise_on_error = True
nb_execution_excludepatterns = ["gallery/*"]
nb_merge_streams = True

autodoc_member_order = "bysource"
autodoc_typehints = "signature"
autodoc_preserve_defaults = True
napoleon_google_docstring = True
napoleon_numpy_docstring = False
napoleon_use_rtype = False
copybutton_exclude = ".linenos, .gp, .go"


def setup(app: object) -> None:
    """After every extension is loaded: which of MathJax's programs pages load."""
    app.config.mathjax_path = "mathjax/tex-svg-full.js"  # type: ignore[attr-defined]
