"""Figures of a sweep: final scores over the numbers of target rules or over another numeric axis, and heat maps."""

import math
import pathlib
from collections.abc import Iterable, Mapping, Sequence
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np

from .figures import FONT_SIZE, Size, check_path, decorate, panels, save
from .looks import TITLES, Hue, Look, ordered_looks, pattern_looks, rule_looks
from .scores import ALL, Measure
from .sweep_axes import Axis, Point, axes_of, best_groups, map_axes, place_of, score_axis, sorted_by, text_of

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

    from .comparison import Comparison, Row

SEVERAL = 10.0  # ratio of the largest to the smallest number from which an axis is logarithmic
ROOM = 0.09  # smallest distance of two labels, as a fraction of the axis
NEXT_TO = 0.012  # distance of the points of two lines, as a fraction of the axis
MEASURE: Measure = "greedy"
XLABELS: Mapping[Hue, str] = {
    "hard": "period (learner steps)",
    "hard env": "period (environment steps)",
    "soft": "step size",
}


class Line(NamedTuple):
    """Line of final scores in one panel.

    Attributes:
        name: Name in the legend.
        numbers: Position of each point, ascending.
        rows: Row of each point.
    """

    name: str
    numbers: list[float]
    rows: list["Row"]


def final_score_figure(comparison: "Comparison", path: pathlib.Path, *, size: Size | None = None) -> None:
    """Write the figure of the final scores, as :func:`draw_final_score` draws it.

    Args:
        comparison: Comparison, from :func:`polyak.experiments.reports.comparison.compare`.
        path: File to write; its ending is the format: ``.png``, ``.pdf`` or ``.svg``.
        size: Width and height in inches; None fits them to the panels and the legend.

    Raises:
        ValueError: if no run has ended, the runs differ in no target rule and no number, and as
            :func:`~polyak.experiments.reports.figures.comparison_figure`.
    """
    check_path(path)
    save(draw_final_score(comparison, size=size), path)


def heat_map_figure(comparison: "Comparison", path: pathlib.Path, *, size: Size | None = None) -> None:
    """Write the heat map of the final scores, as :func:`draw_heat_map` draws it.

    Args:
        comparison: Comparison, from :func:`polyak.experiments.reports.comparison.compare`.
        path: File to write, as of :func:`final_score_figure`.
        size: Width and height in inches; None fits them to the cells.

    Raises:
        ValueError: if no run has ended, the runs differ in fewer than two fields, and as
            :func:`~polyak.experiments.reports.figures.comparison_figure`.
    """
    check_path(path)
    save(draw_heat_map(comparison, size=size), path)


def draw_final_score(comparison: "Comparison", *, size: Size | None = None) -> "Figure":
    """Figure of the final scores of the groups with their intervals; a row of panels for each environment.

    If the groups differ in a number, such as the learning rate, it is the horizontal axis, and each target rule is a
    line. If they differ in the target rule and in no number, a panel has the scores of hard targets over the period and
    a panel those of soft targets over the step size, with a line for each form of rule (``incremental:T@4``); other
    rules are horizontal lines in both. If they differ in several numbers, the one with the most values is the axis, and
    each point is the best group over the others (:func:`~polyak.experiments.reports.sweep_axes.best_groups`).

    Raises:
        ValueError: if no run has ended, the runs differ in no target rule and no number, or the size is not two numbers
            in (0, 50].
    """
    environments = _environments(comparison, "final_score")
    axes = axes_of(comparison)
    x = score_axis(axes)
    if x is None:
        raise ValueError(
            "final_score: the groups differ in no target rule and no number; expected runs that differ in one, such as "
            "target or learning_rate."
        )
    over_rules = x.kind == "rule"
    columns: list[Hue | None] = [*_hues(x)] if over_rules else [None]
    lines = {
        (environment, hue): (_rule_lines if over_rules else _number_lines)(comparison, axes, x, environment, hue)
        for environment in environments
        for hue in columns
    }
    levels = {environment: _levels(comparison, axes, x, environment) for environment in environments}
    looks = _looks(axes, x, [line.name for found in lines.values() for line in found], levels)
    with panels([name for name in looks if name], looks, len(environments), len(columns), size, sharey="row") as (
        figure,
        all_axes,
    ):
        for panel, (environment, hue) in zip(all_axes, lines, strict=True):
            title = f"{environment}, {TITLES[hue]}" if hue in XLABELS and hue else environment
            decorate(panel, title, XLABELS.get(hue, "") if hue else "" if over_rules else x.field)
            for name, row in levels[environment].items():
                _draw_level(panel, row, looks[name])
            numbers = sorted({number for line in lines[environment, hue] for number in line.numbers})
            _scale(panel, numbers)
            for position, line in enumerate(found := lines[environment, hue]):
                _draw_line(panel, line, looks[line.name], position - (len(found) - 1) / 2)
        for panel in all_axes[:: len(columns)]:
            panel.set_ylabel("greedy return")
    return figure


def draw_heat_map(comparison: "Comparison", *, size: Size | None = None) -> "Figure":
    """Heat map of the final scores over two fields, with the score, its interval and diverged runs in each cell.

    Rows are target rules, or the values of the first field if there is one rule; columns are the field with the most
    values, a numeric one if there is one. If the groups differ in more fields, each cell is the best group over the
    others (:func:`~polyak.experiments.reports.sweep_axes.best_groups`). Each environment has a panel.

    Raises:
        ValueError: if no run has ended, the runs differ in fewer than two fields, or the size is not two numbers in
            (0, 50].
    """
    environments = _environments(comparison, "heat_map")
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


def final_score_caption(comparison: "Comparison") -> list[str]:
    """Sentences on the points and the lines of :func:`draw_final_score`."""
    axes = axes_of(comparison)
    x = score_axis(axes)
    rest = _collapsed(axes, [axis for axis in axes if axis is x or (x is not None and axis.kind != "number")])
    return [
        "Points: interquartile mean over seeds of the greedy returns of the final evaluations, with its "
        "95 % stratified bootstrap interval; it takes two seeds.",
        *(["Horizontal lines: rules without a number, with the interval as a band."] if _has_levels(x) else []),
        *rest,
        *_diverged(comparison),
    ]


def heat_map_caption(comparison: "Comparison") -> list[str]:
    """Sentences on the cells of :func:`draw_heat_map`."""
    axes = axes_of(comparison)
    return [
        "Cells: interquartile mean over seeds of the greedy returns of the final evaluations "
        "[95 % stratified bootstrap interval; it takes two seeds].",
        *_collapsed(axes, map_axes(axes)),
        *_diverged(comparison),
    ]


def _environments(comparison: "Comparison", figure: str) -> list[str]:
    found = [row.environment for row in comparison.rows if row.environment != ALL and row.seeds]
    if not found:
        raise ValueError(f"{figure}: no run has ended yet. Wait for the first run to end, or leave the figure out.")
    return list(dict.fromkeys(found))


def _collapsed(axes: Sequence[Axis], kept: Sequence[Axis]) -> list[str]:
    rest = " and ".join(axis.field for axis in axes if axis not in kept)
    if not rest:
        return []
    return [
        f"Best over {rest} by the interquartile mean of the same seeds, so the scores are biased upwards, more "
        "for more values."
    ]


def _diverged(comparison: "Comparison") -> list[str]:
    rows = [row for row in comparison.rows if row.diverged and row.environment != ALL]
    runs = "; ".join(f"{row.diverged} of {row.group}" for row in rows)
    return [f"Scores are over the seeds that did not diverge. Diverged: {runs}."] if rows else []


def _hues(rules: Axis) -> list[Hue]:
    """Families with a panel; ``none`` for one panel of horizontal lines, if no rule has a number."""
    families: list[Hue] = [place.family for place in map(place_of, rules.values) if not math.isnan(place.number)]
    return list(dict.fromkeys(families)) or ["none"]


def _has_levels(x: Axis | None) -> bool:
    return x is not None and x.kind == "rule" and any(math.isnan(place_of(rule).number) for rule in x.values)


def _rest(axes: Sequence[Axis], x: Axis) -> list[Axis]:
    """Axes whose values make the lines: all but the horizontal axis and other numbers."""
    return [axis for axis in axes if axis is not x and axis.kind != "number"]


def _name(axes: Iterable[Axis], point: Point, pattern: str | None = None) -> str:
    return ", ".join(
        [*([pattern] if pattern else []), *(text_of(axis, value) for axis, value in zip(axes, point, strict=True))]
    )


def _finished(comparison: "Comparison", axes: Sequence[Axis], environment: str) -> dict[Point, "Row"]:
    """Best rows that have a score, by the points of axes, in the order of the values."""
    found = best_groups(comparison, axes, environment, MEASURE)
    return {point: found[point] for point in sorted(found, key=sorted_by(axes)) if found[point].seeds}


def _rule_lines(
    comparison: "Comparison", axes: Sequence[Axis], x: Axis, environment: str, hue: Hue | None
) -> list[Line]:
    """Lines over the numbers of the rules of a family, one for each pattern of rule and each point of other axes."""
    rest, lines = _rest(axes, x), dict[str, Line]()
    for (rule, *point), row in _finished(comparison, [x, *rest], environment).items():
        place = place_of(rule)
        if place.family == hue and not math.isnan(place.number):
            line = lines.setdefault(name := _name(rest, tuple(point), place.pattern), Line(name, [], []))
            line.numbers.append(place.number)
            line.rows.append(row)
    return [_ascending(line) for line in lines.values()]


def _number_lines(
    comparison: "Comparison", axes: Sequence[Axis], x: Axis, environment: str, _: Hue | None
) -> list[Line]:
    """Lines over a number, one for each point of the axes that are no numbers."""
    rest, lines = _rest(axes, x), dict[str, Line]()
    for (*point, number), row in _finished(comparison, [*rest, x], environment).items():
        line = lines.setdefault(name := _name(rest, tuple(point)), Line(name, [], []))
        line.numbers.append(number)
        line.rows.append(row)
    return list(lines.values())


def _levels(comparison: "Comparison", axes: Sequence[Axis], x: Axis, environment: str) -> dict[str, "Row"]:
    """Rules without a number, by name."""
    if not _has_levels(x):
        return {}
    rest = _rest(axes, x)
    return {
        _name(rest, tuple(point), rule): row
        for (rule, *point), row in _finished(comparison, [x, *rest], environment).items()
        if math.isnan(place_of(rule).number)
    }


def _ascending(line: Line) -> Line:
    order = np.argsort(line.numbers, kind="stable")
    return Line(line.name, [line.numbers[i] for i in order], [line.rows[i] for i in order])


def _looks(
    axes: Sequence[Axis], x: Axis, names: Iterable[str], levels: Mapping[str, Mapping[str, "Row"]]
) -> dict[str, Look]:
    """Looks of lines and levels, in the order of the legend; a line without a name is not in the legend."""
    names = [*dict.fromkeys(name for found in levels.values() for name in found), *dict.fromkeys(names)]
    others = [axis for axis in axes if axis is not x and axis.kind != "number"]
    if x.kind == "rule" and not others:
        return pattern_looks(names)
    if [axis.kind for axis in others] == ["rule"]:
        return rule_looks({name: place_of(name) for name in names})
    return ordered_looks(names)


def _draw_line(panel: "Axes", line: Line, look: Look, position: float) -> None:
    """Points with intervals, joined by a line; lines are moved aside by a little, so that intervals stay apart."""
    estimates = [getattr(row, MEASURE).iqm for row in line.rows]
    value, low, high = (np.array([float(part) for part in parts]) for parts in zip(*estimates, strict=True))
    x = _aside(panel, np.array(line.numbers, float), NEXT_TO * position)
    panel.plot(x, value, **look, linewidth=1.6, marker="o", markersize=4, zorder=3)
    known = ~np.isnan(low)
    panel.vlines(x[known], low[known], high[known], color=look["color"], linewidth=1.0, zorder=2)


def _aside(panel: "Axes", numbers: np.ndarray, fraction: float) -> np.ndarray:
    low, high = panel.get_xlim()
    if panel.get_xscale() == "log":
        return np.asarray(numbers * (high / low) ** fraction)
    return np.asarray(numbers + (high - low) * fraction)


def _draw_level(panel: "Axes", row: "Row", look: Look) -> None:
    value, low, high = (float(part) for part in getattr(row, MEASURE).iqm)
    panel.axhline(value, **look, linewidth=1.6, zorder=2)
    if not math.isnan(low):
        panel.axhspan(low, high, facecolor=look["color"], alpha=0.1, linewidth=0, zorder=1)


def _scale(panel: "Axes", numbers: list[float]) -> None:
    """Scale of a horizontal axis, with a tick at each number and a label where there is room."""
    from matplotlib.ticker import NullLocator

    if not numbers:
        panel.set_xticks([])
        return
    log = numbers[0] > 0 and numbers[-1] / numbers[0] >= SEVERAL
    places = np.log(numbers) if log else np.array(numbers, float)
    span = float(places[-1] - places[0]) or 1.0
    margins = places[0] - 0.08 * span, places[-1] + 0.08 * span
    if log:
        panel.set_xscale("log")
    panel.set_xlim(*(np.exp(margins) if log else margins))
    labels, last = [], -math.inf
    for number, place in zip(numbers, places, strict=True):
        text = f"{number:g}"
        shown = (place - last) / (1.16 * span) >= ROOM + 0.01 * len(text)
        labels.append(text if shown else "")
        last = place if shown else last
    panel.set_xticks(numbers, labels)
    panel.xaxis.set_minor_locator(NullLocator())


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
    figure.colorbar(image, ax=panel, label="greedy return", shrink=0.9)


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
