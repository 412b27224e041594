"""How the site is built: ``make docs``. The choice of tools is in ``design/0011-docs-site.md``."""

import os
import sys
from importlib.metadata import version as installed
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parent / "_ext"))

project = "ninefold"
author = "the authors of ninefold"
project_copyright = author
version = release = installed("ninefold")

extensions = [
    "myst_nb",
    "sphinx.ext.autodoc",
    "sphinx.ext.autosummary",
    "sphinx.ext.napoleon",
    "sphinx_copybutton",
    "api_names",
    "docstrings",
]
exclude_patterns = ["_ext", "_site"]

# Pages are Markdown, as they were before there was a site: they read well in a repository's own view, too.
myst_enable_extensions = ["colon_fence", "deflist"]
myst_heading_anchors = 3
# The outputs in the notebooks are shown, and tests/docs/test_notebooks.py runs every cell.
# NINEFOLD_DOCS_EXECUTE=1 runs them here, too.
nb_execution_mode = "force" if os.environ.get("NINEFOLD_DOCS_EXECUTE") else "off"
nb_execution_raise_on_error = True
nb_execution_timeout = 600  # seconds for a cell

# Docstrings are NumPy style. A name in single backquotes is a link where the site has a page for it, else it is only set as code.
autosummary_generate = False  # a page per group of names, not per name: see _ext/api_names.py
autodoc_member_order = "bysource"
autodoc_typehints = "none"  # parameters say their types in words, with shapes and units
napoleon_google_docstring = False
napoleon_use_param = False
napoleon_use_rtype = False
napoleon_use_ivar = True
default_role = "py:obj"

# Every link must lead somewhere, but for names in docstrings: they may be types in words, parameters, or names of other packages.
nitpicky = True
nitpick_ignore_regex = [("py:(class|obj|exc)", ".*")]
suppress_warnings = ["ref.python"]  # a short name in a docstring may be that of several methods; the nearest is linked

templates_path: list[str] = []
html_theme = "furo"
html_title = "ninefold"
html_logo = html_favicon = "_static/ninefold.svg"
html_static_path = ["_static"]
html_css_files = ["site.css"]
html_copy_source = False
html_show_sphinx = False
highlight_language = "none"  # blocks without a language are commands, texts and formulas
pygments_style = "friendly"
copybutton_prompt_text = r">>> |\.\.\. |\$ "
copybutton_prompt_is_regexp = True
copybutton_only_copy_prompt_lines = True
