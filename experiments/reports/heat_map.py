"""Heat map of the final scores of a sweep over two fields."""

import math
import pathlib
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

import numpy as np

from .figures import FONT_SIZE, Size, check_path, panels, save
from .sweep_axes import (
    MEASURE,
    Axis,
    Point,
    axes_of,
    best_groups,
    best_over,
    diverged_runs,
    ended_environments,
    map_axes,
)

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

    from .comparison import Comparison, Row


def heat_map_figure(comparison: "Comparison", path: pathlib.Path, *, size: Size | None = None) -> None:
    """Write the heat map of the final scores, as :func:`draw_heat_map` draws it.

    Args:
        comparison: Comparison, from :func:`polyak.experiments.reports.comparison.compare`.
        path: File to write, as of :func:`~polyak.experiments.reports.sweep_figures.final_score_figure`.
        size: Width and height in inches; None fits them to the cells.

    Raises:
        ValueError: if no run has ended, the runs differ in fewer than two fields, and as
            :func:`~polyak.experiments.reports.figures.comparison_figure`.
    """
    check_path(path)
    save(draw_heat_map(comparison, size=size), path)


def draw_heat_map(comparison: "Comparison", *, size: Size | None = None) -> "Figure":
    """Heat map of the final scores over two fields, with the score, its interval and diverged runs in each cell.

    Rows are target rules, or the values of the first field if there is one rule; columns are the field with the most
    values, a numeric one if there is one. If the groups differ in more fields, each cell is the best group over the
    others (:func:`~polyak.experiments.reports.sweep_axes.best_groups`). Each environment has a panel.

    Raises:
        ValueError: if no run has ended, the runs differ in fewer than two fields, or the size is not two numbers in
            (0, 50].
    """
    environments = ended_environments(comparison, "heat_map")
    axes = axes_of(comparison)
    if len(axes) < 2:
        fields = ", ".join(axis.field for axis in axes) or "none"
        raise ValueError(
            f"heat_map: the groups differ in {len(axes)} fields ({fields}); expected two or more, such as target and "
            "learning_rate."
        )
    rows, columns = map_axes(axes)
    height = 0.5 + 0.42 * len(rows.values)
    fitted = (2.2 + 0.85 * len(columns.values), (height + 0.6) * len(environments))
    with panels([], {}, len(environments), 1, size or fitted) as (figure, all_axes):
        for panel, environment in zip(all_axes, environments, strict=True):
            _draw_cells(figure, panel, rows, columns, best_groups(comparison, [rows, columns], environment, MEASURE))
            panel.set_title(environment, fontsize=FONT_SIZE)
    return figure


def heat_map_caption(comparison: "Comparison") -> list[str]:
    """Sentences on the cells of :func:`draw_heat_map`."""
    axes = axes_of(comparison)
    return [
        "Cells: interquartile mean over seeds of the greedy returns of the final evaluations "
        "[95 % stratified bootstrap interval; it takes two seeds].",
        *best_over(axes, map_axes(axes)),
        *diverged_runs(comparison),
    ]


def _draw_cells(figure: "Figure", panel: "Axes", rows: Axis, columns: Axis, found: Mapping[Point, "Row"]) -> None:
    import matplotlib  # heavy

    scores = np.full((len(rows.values), len(columns.values)), np.nan)
    for (row, column), one in found.items():
        scores[rows.values.index(row), columns.values.index(column)] = getattr(one, MEASURE).iqm.value
    colors = matplotlib.colormaps["viridis"].with_extremes(bad="0.92")
    image = panel.imshow(np.ma.masked_invalid(scores), cmap=colors, aspect="auto")
    for (row, column), one in found.items():
        i, j = rows.values.index(row), columns.values.index(column)
        shade: Any = image.cmap(image.norm(scores[i, j])) if not math.isnan(scores[i, j]) else (1, 1, 1)
        dark = 0.3 * shade[0] + 0.59 * shade[1] + 0.11 * shade[2] < 0.5
        look: dict[str, Any] = {"color": "white" if dark else "black", "fontsize": FONT_SIZE - 2}
        panel.text(j, i, _cell(one), ha="center", va="center", **look)
    panel.set_xticks(range(len(columns.values)), [_short(columns, value) for value in columns.values])
    panel.set_yticks(range(len(rows.values)), [_short(rows, value) for value in rows.values])
    panel.set_xlabel(columns.field)
    panel.set_ylabel(rows.field)
    panel.tick_params(labelsize=FONT_SIZE - 1, length=0)
    panel.spines[:].set_visible(False)
    figure.colorbar(image, ax=panel, label="greedy return", aspect=max(16, 4 * len(rows.values)))


def _cell(row: "Row") -> str:
    value, low, high = (float(part) for part in getattr(row, MEASURE).iqm)
    lines = ["-" if math.isnan(value) else _digits(value)]
    if not math.isnan(low):
        lines.append(f"[{_digits(low)}, {_digits(high)}]")
    if row.diverged:
        lines.append(f"{row.diverged} diverged")
    return "\n".join(lines)


def _digits(number: float) -> str:
    return f"{number:.0f}" if abs(number) >= 100 else f"{number:.3g}"


def _short(axis: Axis, value: Any) -> str:
    return f"{value:g}" if axis.kind == "number" else str(value)
