"""Report of a sweep: the table of its settings, and the figures that follow from its axes, in its folder."""

import pathlib
import textwrap
from collections.abc import Callable, Iterator

from .comparison import Comparison, compare
from .comparison_table import COLUMNS, comparison_table
from .figures import comparison_figure, curve_caption
from .heat_map import heat_map_caption, heat_map_figure
from .sweep_axes import axes_of, best_comparison, score_axis
from .sweep_figures import final_score_caption, final_score_figure

MOST_CURVES = 15
Draw = Callable[[Comparison, pathlib.Path], None]


def write(folder: pathlib.Path) -> list[str]:
    """Write the table and the figures of a sweep into its folder.

    The files are ``comparison.txt`` (table, notes and captions), ``comparison.csv``, and the figures:

    - ``comparison.png``, the learning curves, once an episode has ended. With more than 15 groups that differ in
      several fields, it has the best group of each target rule, or of each value of the first field.
    - ``final_score.png``, if runs have ended and differ in the target rule or in a number.
    - ``heat_map.png``, if runs have ended and differ in two fields or more.

    Args:
        folder: Folder of the sweep, with a folder for each run at any depth.

    Returns:
        Lines of ``comparison.txt``, to print.

    Raises:
        ValueError: if the folder holds no run, a file of a run cannot be read, or a file cannot be written.
    """
    comparison = compare(folder)
    lines = comparison_table(comparison, "text").rstrip().splitlines()
    lines += [f"note      {note}" for note in comparison.notes]
    for name, draw, shown, caption in _figures(comparison):
        draw(shown, folder / name)
        lines += ["", f"figure    {folder / name}", *(line for one in caption for line in textwrap.wrap(one, COLUMNS))]
    _write(folder / "comparison.csv", comparison_table(comparison, "csv"))
    _write(folder / "comparison.txt", "\n".join(lines) + "\n")
    return lines


def _figures(comparison: Comparison) -> Iterator[tuple[str, Draw, Comparison, list[str]]]:
    """File, function that writes it, what it shows, and its caption, of each figure that the comparison can have."""
    axes, ended = axes_of(comparison), any(row.seeds for row in comparison.rows)
    if comparison.curves:
        shown, best = comparison, list[str]()
        if len(comparison.settings) > MOST_CURVES and len(axes) > 1:
            shown = best_comparison(comparison, axes[0])
            others = " and ".join(axis.field for axis in axes[1:])
            best = [f"The best group for each {axes[0].field}: the highest greedy return over {others}."]
        yield "comparison.png", comparison_figure, shown, [*curve_caption(shown), *best]
    if ended and score_axis(axes) is not None:
        yield "final_score.png", final_score_figure, comparison, final_score_caption(comparison)
    if ended and len(axes) > 1:
        yield "heat_map.png", heat_map_figure, comparison, heat_map_caption(comparison)


def _write(path: pathlib.Path, text: str) -> None:
    try:
        path.write_text(text, encoding="utf-8")
    except OSError as error:
        raise ValueError(f"{path} cannot be written ({error.strerror}). Give a folder that can be written.") from None
