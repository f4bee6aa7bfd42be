"""docs/reliability.md: every test that it names exists, and every row has one or says why not."""

import ast
import pathlib
import re

ROOT = pathlib.Path(__file__).parent.parent
PAGE = (ROOT / "docs" / "reliability.md").read_text()
NAME = re.compile(r"`(tests/[\w/]+\.py)::((?:\w+::)?test_\w+)`")
NOT_YET: set[str] = set()


def rows():
    """The cells of every row of a table, headings aside."""
    lines = [line for line in PAGE.splitlines() if line.startswith("| ")]
    cells = [[cell.strip() for cell in line.strip("|").split("|")] for line in lines]
    return [row for row in cells if row[-1] != "test"]


def functions(path):
    body = ast.parse((ROOT / path).read_text()).body
    found = {node.name for node in body if isinstance(node, ast.FunctionDef)}
    classes = [node for node in body if isinstance(node, ast.ClassDef)]
    return found | {f"{kind.name}::{node.name}" for kind in classes for node in kind.body if hasattr(node, "name")}


def test_every_test_that_is_named_exists():
    named = set(NAME.findall(PAGE))
    assert len(named) > 80
    assert [f"{path}::{name}" for path, name in sorted(named) if name not in functions(path)] == []
    assert PAGE.count("::test_") == len(NAME.findall(PAGE))  # none is written otherwise


def test_every_row_has_a_test_or_a_reason():
    numbered = [row for row in rows() if row[0].isdecimal()]
    assert [int(row[0]) for row in numbered] == list(range(1, 76))
    without = {row[0]: row[-2] for row in rows() if not NAME.search(row[-1])}
    assert without.keys() == NOT_YET
    assert all(reason.startswith("not yet") for reason in without.values())
