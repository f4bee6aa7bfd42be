"""Sphinx configuration of the documentation: ``python -m sphinx -W --keep-going -n docs docs/_build``."""

import polyak

project = "polyak"
author = "polyak developers"
project_copyright = "polyak developers, Apache-2.0"
version = release = polyak.__version__

extensions = ["myst_parser", "sphinx.ext.autodoc", "sphinx.ext.napoleon"]
exclude_patterns = ["_build"]
default_role = "code"  # `x` in a docstring
highlight_language = "text"  # language of code blocks that name none
myst_heading_anchors = 3  # anchors of headings, as GitHub makes them
myst_enable_extensions = ["dollarmath", "amsmath"]

autodoc_member_order = "groupwise"
autodoc_typehints = "none"  # the docstrings say shapes, dtypes and units
napoleon_attr_annotations = False
napoleon_use_ivar = True
napoleon_use_rtype = False

html_theme = "furo"
html_title = f"polyak {release}"
html_static_path = ["_static"]
html_css_files = ["site.css"]


def setup(app):
    """Skip the fields of NamedTuples as members, because the class docstrings describe them."""
    app.connect("autodoc-skip-member", lambda app, what, name, found, skip, options: _is_field(found) or None)


def _is_field(found):
    return type(found).__name__ == "_tuplegetter"
