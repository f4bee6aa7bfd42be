"""Figure of the final scores of a sweep, over the numbers of its target rules or over another number."""

import math
import pathlib
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np

from .figures import Size, check_path, decorate, panels, save
from .looks import COLORS, DASHES, TITLES, Hue, Look, family_columns, hue_of, ordered_looks, pattern_looks, rule_looks
from .sweep_axes import (
    MEASURE,
    Axis,
    Point,
    axes_of,
    best_groups,
    best_over,
    diverged_runs,
    ended_environments,
    place_of,
    score_axis,
    sorted_by,
    text_of,
)

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

    from .comparison import Comparison, Row

SEVERAL = 10.0  # ratio of the largest to the smallest number from which an axis is logarithmic
ROOM = 0.09  # smallest distance of two labels, as a fraction of the axis
NEXT_TO = 0.012  # largest distance of the points of two lines, as a fraction of the axis
TOGETHER = 0.1  # largest distance of the first and the last of all lines
XLABELS: Mapping[Hue, str] = {
    "hard": "period (learner steps)",
    "hard env": "period (environment steps)",
    "soft": "step size",
}


class Name(NamedTuple):
    """Name of a line in the legend.

    Attributes:
        pattern: Pattern of its rules (:class:`~polyak.experiments.reports.sweep_axes.RulePlace`), or a rule without a
            number; empty if the panel implies it.
        rest: Values of the axes that are not numbers.
    """

    pattern: str
    rest: str

    def __str__(self) -> str:
        return ", ".join(filter(None, self))


class Line(NamedTuple):
    """Line of final scores in one panel.

    Attributes:
        name: Name in the legend.
        numbers: Position of each point, ascending.
        rows: Row of each point.
    """

    name: Name
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


def draw_final_score(comparison: "Comparison", *, size: Size | None = None) -> "Figure":
    """Figure of the final scores of the groups with their intervals; a row of panels for each environment.

    If the groups differ in a number, such as the learning rate, it is the horizontal axis, and each target rule is a
    line; eight rules or more have a column of panels for each family, with ``none`` and ``frozen`` in each. If the
    groups differ in the target rule and in no number, a panel has the scores of hard targets over the period and a
    panel those of soft targets over the step size, with a line for each form of rule (``incremental:T@4``); rules
    without a number are horizontal lines in both. If the groups differ in several numbers, the one with the most values
    is the axis, and each point is the best group over the others
    (:func:`~polyak.experiments.reports.sweep_axes.best_groups`).

    Raises:
        ValueError: if no run has ended, the runs differ in no target rule and no number, or the size is not two numbers
            in (0, 50].
    """
    environments = ended_environments(comparison, "final_score")
    axes = axes_of(comparison)
    x = score_axis(axes)
    if x is None:
        raise ValueError(
            "final_score: the groups differ in no target rule and no number; expected runs that differ in one, such as "
            "target or learning_rate."
        )
    columns = _columns(axes, x)
    places = [(environment, hue) for environment in environments for hue in columns]
    find = _rule_lines if x.kind == "rule" else _number_lines
    lines = {place: find(comparison, axes, x, *place) for place in places}
    levels = {environment: _levels(comparison, axes, x, environment) for environment in environments}
    looks = _looks(axes, x, [*(name for found in levels.values() for name in found), *_names(lines.values())])
    legend = {str(name): look for name, look in looks.items() if str(name)}
    with panels(list(legend), legend, len(environments), len(columns), size, sharey="row") as (figure, all_axes):
        for panel, (environment, hue) in zip(all_axes, places, strict=True):
            xlabel = XLABELS.get(hue, "") if x.kind == "rule" and hue else x.field
            decorate(panel, f"{environment}, {TITLES[hue]}" if hue in TITLES and hue else environment, xlabel)
            found = lines[environment, hue]
            _scale(panel, sorted({number for line in found for number in line.numbers}))
            for name, row in levels[environment].items():
                _draw_level(panel, row, looks[name])
            for position, line in enumerate(found):
                move = min(NEXT_TO, TOGETHER / len(found)) * (position - (len(found) - 1) / 2)
                _draw_line(panel, line, looks[line.name], move)
        for panel in all_axes[:: len(columns)]:
            panel.set_ylabel("greedy return")
    return figure


def final_score_caption(comparison: "Comparison") -> list[str]:
    """Sentences on the points and the lines of :func:`draw_final_score`."""
    axes = axes_of(comparison)
    x = score_axis(axes)
    rest = best_over(axes, [axis for axis in axes if axis is x or (x is not None and axis.kind != "number")])
    return [
        "Points: interquartile mean over seeds of the greedy returns of the final evaluations, with its "
        "95 % stratified bootstrap interval; it takes two seeds.",
        *(["Horizontal lines: rules without a number, with the interval as a band."] if _has_levels(x) else []),
        *rest,
        *diverged_runs(comparison),
    ]


def _columns(axes: Sequence[Axis], x: Axis) -> list[Hue | None]:
    """Families with a column of panels; None for one column of all, ``none`` if no rule has a number."""
    if x.kind == "rule":
        families = [place.family for place in map(place_of, x.values) if not math.isnan(place.number)]
        return list(dict.fromkeys(families)) or ["none"]
    rest = _rest(axes, x)
    return [*family_columns(map(place_of, rest[0].values))] or [None] if _are_rules(rest) else [None]


def _are_rules(rest: Sequence[Axis]) -> bool:
    return [axis.kind for axis in rest] == ["rule"]


def _has_levels(x: Axis | None) -> bool:
    return x is not None and x.kind == "rule" and any(math.isnan(place_of(rule).number) for rule in x.values)


def _rest(axes: Sequence[Axis], x: Axis) -> list[Axis]:
    """Axes whose values make the lines: all but the horizontal axis and other numbers."""
    return [axis for axis in axes if axis is not x and axis.kind != "number"]


def _name(rest: Sequence[Axis], point: Sequence[Any], rule: str = "") -> Name:
    """Name of the line of a rule and a point of the other axes."""
    place = place_of(rule)
    implied = not rule or (rest and place.plain and not math.isnan(place.number))
    texts = [text_of(axis, value) for axis, value in zip(rest, point, strict=True)]
    return Name("" if implied else place.pattern, ", ".join(texts))


def _names(lines: Iterable[Sequence[Line]]) -> Iterator[Name]:
    return (line.name for found in lines for line in found)


def _finished(comparison: "Comparison", axes: Sequence[Axis], environment: str) -> dict[Point, "Row"]:
    """Best rows that have a score, by the points of axes, in the order of the values."""
    found = best_groups(comparison, axes, environment, MEASURE)
    return {point: found[point] for point in sorted(found, key=sorted_by(axes)) if found[point].seeds}


def _rule_lines(
    comparison: "Comparison", axes: Sequence[Axis], x: Axis, environment: str, hue: Hue | None
) -> list[Line]:
    """Lines over the numbers of the rules of a family, one for each pattern of rule and each point of other axes."""
    rest, lines = _rest(axes, x), dict[Name, Line]()
    for (rule, *point), row in _finished(comparison, [x, *rest], environment).items():
        place = place_of(rule)
        if place.family == hue and not math.isnan(place.number):
            line = lines.setdefault(name := _name(rest, point, rule), Line(name, [], []))
            line.numbers.append(place.number)
            line.rows.append(row)
    return [_ascending(line) for line in lines.values()]


def _number_lines(
    comparison: "Comparison", axes: Sequence[Axis], x: Axis, environment: str, hue: Hue | None
) -> list[Line]:
    """Lines over a number, one for each point of the axes that are no numbers; those of a family, none and frozen."""
    rest, lines = _rest(axes, x), dict[Name, Line]()
    for (*point, number), row in _finished(comparison, [*rest, x], environment).items():
        if hue is None or hue_of(place_of(point[0])) in (hue, "none", "frozen"):
            line = lines.setdefault(name := _name(rest, point), Line(name, [], []))
            line.numbers.append(number)
            line.rows.append(row)
    return list(lines.values())


def _levels(comparison: "Comparison", axes: Sequence[Axis], x: Axis, environment: str) -> dict[Name, "Row"]:
    """Rules without a number, by name."""
    if not _has_levels(x):
        return {}
    rest = _rest(axes, x)
    return {
        _name(rest, point, rule): row
        for (rule, *point), row in _finished(comparison, [x, *rest], environment).items()
        if math.isnan(place_of(rule).number)
    }


def _ascending(line: Line) -> Line:
    order = np.argsort(line.numbers, kind="stable")
    return Line(line.name, [line.numbers[i] for i in order], [line.rows[i] for i in order])


def _looks(axes: Sequence[Axis], x: Axis, names: Iterable[Name]) -> dict[Name, Look]:
    """Looks of lines and levels, in the order of the legend."""
    rest, names = _rest(axes, x), list(dict.fromkeys(names))
    if x.kind == "rule" and rest:  # a color for each point of the other axes, dashes for each pattern
        points, patterns = (sorted({name[i] for name in names}, key=[name[i] for name in names].index) for i in (1, 0))
        patterns.sort(key=bool)  # stable: the pattern that panels imply is first
        return {
            name: {
                "color": COLORS[points.index(name.rest) % len(COLORS)],
                "linestyle": DASHES[patterns.index(name.pattern) % len(DASHES)],
            }
            for name in names
        }
    by_text = {str(name): name for name in names}
    if x.kind == "rule":
        looks = pattern_looks(by_text)
    else:
        looks = rule_looks({text: place_of(text) for text in by_text}) if _are_rules(rest) else ordered_looks(by_text)
    return {by_text[text]: look for text, look in looks.items()}


def _draw_line(panel: "Axes", line: Line, look: Look, move: float) -> None:
    """Points with intervals, joined by a line; ``move`` is a fraction of the axis, so that intervals stay apart."""
    estimates = [getattr(row, MEASURE).iqm for row in line.rows]
    value, low, high = (np.array([float(part) for part in parts]) for parts in zip(*estimates, strict=True))
    x = _aside(panel, np.array(line.numbers, float), move)
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
