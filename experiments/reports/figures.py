"""Figures of a comparison: learning curves, and performance profiles."""

import math
import pathlib
import textwrap
import warnings
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any, Literal

from .looks import TITLES, Hue, Look, family_columns, group_looks, hue_of, rule_places
from .scores import ALL, SCALED

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

    from .comparison import Comparison, Curve, Row

COLUMNS = 3  # of panels of learning curves
FONT_SIZE = 9
FORMATS = (".png", ".pdf", ".svg")
LARGEST = 50.0  # inches

Size = tuple[float, float]


def comparison_figure(comparison: "Comparison", path: pathlib.Path, *, size: Size | None = None) -> None:
    """Write the figure of the learning curves, as :func:`draw_comparison` draws it.

    Args:
        comparison: Comparison, from :func:`polyak.experiments.reports.comparison.compare`.
        path: File to write; its ending is the format: ``.png`` (300 dpi), ``.pdf`` (with embedded fonts) or ``.svg``.
        size: Width and height in inches; None fits them to the panels and the legend.

    Raises:
        ValueError: if the ending is unknown, the file cannot be written, no run has a curve, or the size is too small
            for the panels and the legend or above 50 inches.
    """
    check_path(path)
    save(draw_comparison(comparison, size=size), path)


def profile_figure(comparison: "Comparison", path: pathlib.Path, *, size: Size | None = None) -> None:
    """Write the figure of the performance profiles, as :func:`draw_profiles` draws it.

    Args:
        comparison: Comparison, from :func:`polyak.experiments.reports.comparison.compare`.
        path: File to write, as of :func:`comparison_figure`.
        size: Width and height in inches; None fits them to the panels and the legend.

    Raises:
        ValueError: if no run has ended, and as :func:`comparison_figure`.
    """
    check_path(path)
    save(draw_profiles(comparison, size=size), path)


def draw_comparison(comparison: "Comparison", *, size: Size | None = None) -> "Figure":
    """Figure of the learning curves: a panel for each environment, and a color for each group in the order of groups.

    Groups that have a target rule of their own are sorted by rule, with the colors of
    :func:`~polyak.experiments.reports.looks.rule_looks`. Eight groups or more are drawn in a column of panels for each
    family of rules; the rules ``none`` and ``frozen`` are in each column. :func:`curve_caption` describes the lines,
    bands and points.

    Raises:
        ValueError: if no run has a curve, or the size is not two numbers in (0, 50].
    """
    from matplotlib.ticker import EngFormatter  # heavy

    curves = comparison.curves
    if not curves:
        raise ValueError("figure: no run has a curve yet. Wait for the first episodes to end, or leave the figure out.")
    groups = [group for group in comparison.scores if any(curve.group == group for curve in curves)]
    looks, rules = group_looks(comparison), rule_places(comparison)
    groups = [group for group in looks if group in groups]
    families = family_columns(rules[group] for group in groups if group in rules)
    hues = {group: hue_of(place) for group, place in rules.items()}
    shown_families: list[Hue | None] = [*families] or [None]
    environments = list(dict.fromkeys(curve.environment for curve in curves))
    places = [(environment, family) for environment in environments for family in shown_families]
    columns = len(families) or min(len(places), COLUMNS)
    rows = -(-len(places) // columns)
    with panels(groups, looks, rows, columns, size, sharey="row" if families else False) as (figure, all_axes):
        for axes, (environment, family) in zip(all_axes, places, strict=False):
            if comparison.threshold is not None:
                axes.axhline(comparison.threshold, color="0.5", linewidth=0.8, linestyle=(0, (1, 2)))
            decorate(axes, f"{environment}, {TITLES[family]}" if family else environment, "environment steps")
            axes.xaxis.set_major_formatter(EngFormatter(sep=""))
            elsewhere = {*families} - {family}
            shown = [one for one in curves if one.environment == environment and hues.get(one.group) not in elsewhere]
            for curve in shown:
                _draw_curve(axes, curve, looks[curve.group], len(shown))
        for axes in all_axes[: len(places) : columns]:
            axes.set_ylabel("return")
        for axes in all_axes[len(places) :]:
            axes.remove()
    return figure


def _draw_curve(axes: "Axes", curve: "Curve", look: Look, lines: int) -> None:
    axes.plot(curve.steps, curve.training.value, **look, linewidth=1.6, zorder=3)
    if len(curve.evaluated_at):
        points: dict[str, Any] = {"marker": "o", "markersize": 2.5, "linewidth": 0.6, "zorder": 3}
        axes.plot(curve.evaluated_at, curve.greedy.value, color=look["color"], **points)
    if curve.seeds > 1:
        _band(axes, curve.steps, curve.training, look["color"], lines)


def draw_profiles(comparison: "Comparison", *, size: Size | None = None) -> "Figure":
    """Figure of the performance profiles: a row for each environment, a column for training and for greedy returns.

    The last row is over all environments, if :attr:`Comparison.rows` has such rows. Colors are those of
    :func:`draw_comparison`, and :func:`profile_caption` says in words what the lines and bands are.

    Raises:
        ValueError: if no run has ended, or the size is not two numbers in (0, 50].
    """
    profiles = comparison.profiles()
    if not profiles:
        raise ValueError("profile: no run has ended yet. Wait for the first run to end, or leave the profile out.")
    places = list(dict.fromkeys((profile.environment, profile.measure) for profile in profiles))
    looks = group_looks(comparison)
    groups = [group for group in looks if any(profile.group == group for profile in profiles)]
    rows = len({environment for environment, _ in places})
    with panels(groups, looks, rows, 2, size) as (figure, all_axes):
        rows_of = {environment: row for row, environment in enumerate(dict.fromkeys(place[0] for place in places))}
        of_place = {place: all_axes[2 * rows_of[place[0]] + (place[1] == "greedy")] for place in places}
        for (environment, measure), axes in of_place.items():
            unit = "scaled " if environment == ALL else ""
            decorate(axes, environment, f"{unit}{measure} return τ")
            axes.set_ylim(-0.03, 1.03)
            axes.locator_params(axis="x", nbins=6)
        for axes in all_axes[::2]:
            axes.set_ylabel("fraction of runs > τ")
        for axes in set(all_axes) - set(of_place.values()):
            axes.remove()
        for profile in profiles:
            axes, look = of_place[profile.environment, profile.measure], looks[profile.group]
            axes.step(profile.thresholds, profile.fraction.value, where="post", **look, linewidth=1.6, zorder=3)
            if not any(map(math.isnan, profile.fraction.low)):
                _band(axes, profile.thresholds, profile.fraction, look["color"], len(groups), step="post")
    return figure


def curve_caption(comparison: "Comparison") -> list[str]:
    """Sentences on the lines, the bands and the points of :func:`draw_comparison`."""
    curves = comparison.curves
    return [
        f"Lines: interquartile mean over seeds of the mean of the last {comparison.window} training episodes.",
        "Bands: 95 % stratified bootstrap interval.",
        *(
            ["Points: interquartile mean of evaluations, greedy."]
            if any(len(one.evaluated_at) for one in curves)
            else []
        ),
        *([] if comparison.threshold is None else [f"Dotted: a return of {comparison.threshold:g}."]),
        f"Seeds: {_seeds(comparison, curves)}.",
    ]


def profile_caption(comparison: "Comparison") -> list[str]:
    """Sentences on the lines and the bands of :func:`draw_profiles`."""
    return [
        "Lines: fraction of runs with a return above τ, at the end of training and in the final evaluation.",
        "Bands: pointwise 95 % stratified bootstrap interval.",
        *([SCALED] if any(row.environment == ALL for row in comparison.rows) else []),
        f"Seeds: {_seeds(comparison, [row for row in comparison.rows if row.environment != ALL and row.seeds])}.",
    ]


def _seeds(comparison: "Comparison", shown: Sequence["Curve | Row"]) -> str:
    counts = {group: {one.seeds for one in shown if one.group == group} for group in comparison.scores}
    texts = {
        group: f"{min(seeds)} to {max(seeds)}" if len(seeds) > 1 else str(*seeds)
        for group, seeds in counts.items()
        if seeds
    }
    [(most, number)] = Counter(texts.values()).most_common(1)
    usual = f"{most} for each line" if 2 * number > len(texts) else ""
    others = "; ".join(f"{seeds} of {group}" for group, seeds in texts.items() if not usual or seeds != most)
    return ", but ".join(filter(None, [usual, others]))


@contextmanager
def panels(
    names: Sequence[str],
    looks: Mapping[str, Look],
    rows: int,
    columns: int,
    size: Size | None,
    *,
    height: float = 2.4,
    sharey: Literal["row", False] = False,
) -> Iterator[tuple["Figure", list["Axes"]]]:
    """Empty panels, which get a legend of ``names`` below them.

    Args:
        names: Names in the legend, in order; no legend if empty.
        looks: Look of the line of each name.
        rows: Number of rows of panels.
        columns: Number of columns of panels.
        size: Width and height of the figure in inches; None fits them to the panels and the legend.
        height: Height of a panel in inches, without ``size``.
        sharey: Whether the panels of a row have one vertical axis.

    Raises:
        ValueError: if the size is not two numbers in (0, 50].
    """
    import matplotlib  # heavy; no window system is touched
    from matplotlib.lines import Line2D

    from ..runs.picture import Picture

    if size is not None and not (len(size) == 2 and all(0 < length <= LARGEST for length in size)):
        raise ValueError(f"size: got {size}; expected a width and a height in inches, in (0, {LARGEST:g}].")
    width = size[0] if size else 2.4 + 2.4 * columns
    letters = max(10, int(12 * width) - 8)  # that fit into a line of the legend
    labels = ["\n".join(textwrap.wrap(name, letters)) for name in names]
    legend_columns = max(1, min(len(names), letters // (max(map(len, labels), default=0) + 6)))
    legend_lines = sum(label.count("\n") + 1 for label in labels) / legend_columns
    with matplotlib.rc_context({"font.size": FONT_SIZE}):
        figure = Picture(*(size or (width, height * rows + 0.2 * legend_lines)))
        yield figure, list(figure.subplots(rows, columns, squeeze=False, sharey=sharey).flatten())
        if names:
            handles = [Line2D([], [], **looks[name], linewidth=1.6) for name in names]
            figure.legend(handles, labels, loc="outside lower center", ncols=legend_columns, frameon=False)


def decorate(axes: "Axes", title: str, xlabel: str) -> None:
    """Title, label of the horizontal axis, grid and spines of a panel."""
    axes.set_title(title, fontsize=FONT_SIZE)
    axes.set_xlabel(xlabel)
    axes.tick_params(labelsize=FONT_SIZE)
    axes.grid(alpha=0.25, linewidth=0.5)
    axes.spines[["top", "right"]].set_visible(False)


def _band(axes: "Axes", x: Any, estimate: Any, color: str, groups: int, step: Literal["post"] | None = None) -> None:
    """A light band with thin edges below all lines, lighter for many groups, so that bands that overlap stay apart."""
    look: dict[str, Any] = {"facecolor": color, "alpha": min(0.12, 0.36 / groups), "linewidth": 0, "zorder": 1}
    axes.fill_between(x, estimate.low, estimate.high, step=step, **look)
    for edge in (estimate.low, estimate.high):
        axes.plot(x, edge, color=color, alpha=0.5, linewidth=0.5, drawstyle=f"steps-{step}" if step else None, zorder=2)


def check_path(path: pathlib.Path) -> None:
    """Check the ending of the file of a figure.

    Raises:
        ValueError: if the ending is unknown.
    """
    if path.suffix not in FORMATS:
        raise ValueError(f"figure: got {path}; expected a file that ends in .png, .pdf or .svg.")


def save(figure: "Figure", path: pathlib.Path) -> None:
    """Write a figure.

    Raises:
        ValueError: if the file cannot be written, or the figure is too small for its panels and legend.
    """
    import matplotlib

    with matplotlib.rc_context({"font.size": FONT_SIZE, "pdf.fonttype": 42}), warnings.catch_warnings():
        warnings.filterwarnings("error", "constrained_layout not applied", UserWarning)
        try:
            figure.savefig(path, dpi=300)
        except OSError as error:
            raise ValueError(f"figure: {path} cannot be written ({error.strerror}). Give another file.") from None
        except ValueError as error:  # of a name with two dollar signs
            raise ValueError(
                "figure: matplotlib reads a text between two dollar signs in the name of a group as mathematics, and "
                f"cannot draw it ({str(error).splitlines()[-1]}). Write \\$ for a dollar sign, or give another --label."
            ) from None
        except UserWarning:
            width, height = figure.get_size_inches()
            raise ValueError(
                f"size: got {width:g} by {height:g} inches, which is too small for the panels and the legend. "
                "Give a larger size, or shorter names of groups."
            ) from None
