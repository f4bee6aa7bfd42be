"""How Sphinx makes the site, from this folder alone: ``python -m sphinx -W --keep-going -n docs docs/_build``."""

import polyak

project = "polyak"
author = "polyak developers"
project_copyright = "polyak developers, Apache-2.0"
version = release = polyak.__version__

extensions = ["myst_parser", "sphinx.ext.autodoc", "sphinx.ext.napoleon"]
exclude_patterns = ["_build"]
default_role = "code"  # `x` in a docstring
highlight_language = "text"  # of blocks that name none
myst_heading_anchors = 3  # links to headings, as a forge makes them

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
    """Leaves out the fields of NamedTuples as members of their own: the docstrings say what they are."""
    for function in (polyak.train, polyak.pretrain):  # the reference shows **fields, and not a hundred keywords
        del function.__signature__
    app.connect("autodoc-skip-member", lambda app, what, name, found, skip, options: _is_field(found) or None)


def _is_field(found):
    return type(found).__name__ == "_tuplegetter"
