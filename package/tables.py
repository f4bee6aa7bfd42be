"""Tables of text cells as aligned text, Markdown or CSV."""

import csv
import io
from collections.abc import Sequence
from typing import Literal

TableFormat = Literal["text", "markdown", "csv"]


def table(header: Sequence[str], rows: Sequence[Sequence[str]], form: TableFormat = "text") -> str:
    """Format a table; every line ends with a newline.

    Args:
        header: Names of the columns.
        rows: Cells of each row, one per column.
        form: Format of the table: ``text`` (aligned columns, two spaces apart), ``markdown`` or ``csv``.

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
