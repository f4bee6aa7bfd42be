"""Sphinx configuration of the documentation: ``python -m sphinx -W --keep-going -n docs docs/_build``."""

import re

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
autodoc_preserve_defaults = True  # defaults as the source writes them
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
    """Register the renderer of equations and the marks of literals, and skip the fields of NamedTuples.

    The docstrings describe these fields.
    """
    app.add_html_math_renderer("mathml", (_inline_math, None), (_display_math, None))
    # The reference shows **fields instead of a hundred keywords.
    for function in (polyak.train, polyak.pretrain, polyak.sweep):
        del function.__signature__
    app.connect("builder-inited", _add_sections)
    app.connect("doctree-read", lambda app, tree: _mark(tree))
    app.connect("autodoc-process-signature", lambda *given: _short(given[-2]))
    app.connect("autodoc-skip-member", lambda app, what, name, found, skip, options: _is_field(found) or None)


def _add_sections(app):
    app.config.napoleon_custom_sections = ["Reference"]  # set in this file, Sphinx 8.2 would warn of its type


def _inline_math(translator, node):
    translator.body.append(LATEX.convert_with_local_state(node.astext(), displaystyle=False))
    raise docutils.nodes.SkipNode


def _display_math(translator, node):
    equation = LATEX.convert_with_local_state(node.astext(), displaystyle=True)
    translator.body.append(f'<div class="equation">{equation}</div>\n')
    raise docutils.nodes.SkipNode


def _mark(tree):
    """Mark options for the style sheet, let long names in tables break, and label the lists of the reference."""
    for literal in list(tree.findall(docutils.nodes.literal)):
        text, in_table = literal.astext(), isinstance(literal.parent.parent, docutils.nodes.entry)
        if text.startswith("--") and len(text) <= 30:
            literal["classes"].append("option")
        elif len(text) <= 50 and not in_table:
            literal["classes"].append("short")
        elif in_table and re.fullmatch(r"[\w./:~]{25,}", text):  # a path or the name of a test
            pieces = re.split(r"(?<=[/_])(?=\w)|(?<=::)", text)
            breaks = [(docutils.nodes.raw("", "<wbr>", format="html"), docutils.nodes.Text(piece)) for piece in pieces]
            literal.children = []
            literal.extend([node for pair in breaks for node in pair][1:])
    for text in list(tree.findall(docutils.nodes.Text)):
        if text == " -- ":  # of Sphinx, between a name and its description; smartquotes is off
            text.parent.replace(text, docutils.nodes.Text(": "))
        elif text == "Variables" and isinstance(text.parent, docutils.nodes.field_name):
            text.parent.replace(text, docutils.nodes.Text("Attributes"))


def _short(signature):
    """Dots in place of a signature of many lines, that of a config of configs; its docstring lists the fields."""
    return ("(...)", None) if signature and len(signature) > 600 else None


def _is_field(found):
    return type(found).__name__ == "_tuplegetter"
