"""Tables of text cells: aligned, as Markdown, or as CSV."""

import csv
import io
from collections.abc import Sequence
from typing import Literal

TableFormat = Literal["text", "markdown", "csv"]


def table(header: Sequence[str], rows: Sequence[Sequence[str]], form: TableFormat = "text") -> str:
    """Writes a table; every line ends with a newline.

    Args:
        header: the names of the columns.
        rows: the cells, as many in each row as there are columns.
        form: ``text`` (columns aligned, two spaces between), ``markdown`` or ``csv``.

    >>> print(table(["target", "seeds"], [["periodic:500", "3"], ["none", "10"]]), end="")
    target        seeds
    periodic:500  3
    none          10
    """
    lines = [list(header), *(list(row) for row in rows)]
    if form == "csv":
        text = io.StringIO()
        csv.writer(text, lineterminator="\n").writerows(lines)
        return text.getvalue()
    if form == "markdown":
        lines = [[cell.replace("|", "\\|") for cell in line] for line in lines]
        lines.insert(1, ["---"] * len(header))
        return "".join(f"| {' | '.join(line)} |\n" for line in lines)
    widths = [max(len(line[column]) for line in lines) for column in range(len(header))]
    padded = ("  ".join(cell.ljust(width) for cell, width in zip(line, widths, strict=True)) for line in lines)
    return "".join(f"{line.rstrip()}\n" for line in padded)
