"""Sphinx configuration of the documentation: ``python -m sphinx -W --keep-going -n docs docs/_build``."""

import docutils.nodes
import math_core

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
myst_enable_extensions = ["dollarmath", "amsmath"]
myst_fence_as_directive = ["math"]  # ```math, which forges render too
smartquotes = False  # `--option` keeps its two hyphens in prose
html_math_renderer = "mathml"  # browsers render MathML without a script; MathJax would be loaded from the network

autodoc_member_order = "groupwise"
autodoc_typehints = "none"  # the docstrings say shapes, dtypes and units
napoleon_attr_annotations = False
napoleon_use_ivar = True
napoleon_use_rtype = False

html_theme = "furo"
html_title = f"polyak {release}"
html_static_path = ["_static"]
html_css_files = ["site.css"]


LATEX = math_core.LatexToMathML()


def setup(app):
    """Register the renderer of equations, and leave out the fields of NamedTuples: the docstrings describe them."""
    app.add_html_math_renderer("mathml", (_inline_math, None), (_display_math, None))
    for function in (polyak.train, polyak.pretrain):  # the reference shows **fields instead of a hundred keywords
        del function.__signature__
    app.connect("autodoc-skip-member", lambda app, what, name, found, skip, options: _is_field(found) or None)


def _inline_math(translator, node):
    translator.body.append(LATEX.convert_with_local_state(node.astext(), displaystyle=False))
    raise docutils.nodes.SkipNode


def _display_math(translator, node):
    equation = LATEX.convert_with_local_state(node.astext(), displaystyle=True)
    translator.body.append(f'<div class="equation">{equation}</div>\n')
    raise docutils.nodes.SkipNode


def _is_field(found):
    return type(found).__name__ == "_tuplegetter"
