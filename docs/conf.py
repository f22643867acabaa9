"""The manual: Markdown pages, and the API from the docstrings."""

import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parent))

project = "fewstep"
author = "the fewstep authors"
extensions = [
    "myst_parser", "sphinx.ext.autodoc", "sphinx.ext.napoleon", "sphinx.ext.viewcode", "sphinx_gallery.gen_gallery",
    "sphinx-mathjax-offline", "methods_page",
]  # fmt: skip
source_suffix = {".md": "markdown", ".rst": "restructuredtext"}
sphinx_gallery_conf = {
    "examples_dirs": "../examples/recipes", "gallery_dirs": "recipes", "abort_on_example_error": True,
    "download_all_examples": False, "show_memory": False, "show_signature": False, "remove_config_comments": True,
    "within_subsection_order": "FileNameSortKey",
}  # fmt: skip
exclude_patterns = ["build"]
myst_enable_extensions = ["dollarmath", "colon_fence"]
myst_heading_anchors = 3
autodoc_typehints = "description"
autodoc_member_order = "bysource"
# The equations in docstrings are written in plain Unicode and indented as literal blocks.
napoleon_google_docstring = True
html_theme = "furo"
html_title = "fewstep"


def _escape_stars(app, what, name, obj, options, lines):
    """`*shape` and `**cond` in docstrings are Python's stars, not emphasis."""
    lines[:] = [line.replace("*", "\\*") for line in lines]


def setup(app):
    """Sphinx calls this."""
    app.connect("autodoc-process-docstring", _escape_stars, priority=100)
