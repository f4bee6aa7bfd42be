"""Figures of a comparison: learning curves, and performance profiles."""

import math
import pathlib
import textwrap
import warnings
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any, Literal

from .scores import ALL, SCALED

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

    from .comparison import Comparison, Curve, Row

COLORS = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9", "#000000")  # Okabe and Ito's: for all eyes
DASHES = ("-", "--", ":", "-.")  # the next one when all colors are used
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
    _check_path(path)
    _save(draw_comparison(comparison, size=size), path)


def profile_figure(comparison: "Comparison", path: pathlib.Path, *, size: Size | None = None) -> None:
    """Write the figure of the performance profiles, as :func:`draw_profiles` draws it.

    Args:
        comparison: Comparison, from :func:`polyak.experiments.reports.comparison.compare`.
        path: File to write, as of :func:`comparison_figure`.
        size: Width and height in inches; None fits them to the panels and the legend.

    Raises:
        ValueError: if no run has ended, and as :func:`comparison_figure`.
    """
    _check_path(path)
    _save(draw_profiles(comparison, size=size), path)


def draw_comparison(comparison: "Comparison", *, size: Size | None = None) -> "Figure":
    """Figure of the learning curves: a panel for each environment, and a color for each group in the order of groups.

    :func:`curve_caption` says in words what the lines, bands and points are.

    Raises:
        ValueError: if no run has a curve, or the size is not two numbers in (0, 50].
    """
    from matplotlib.ticker import EngFormatter  # heavy

    curves = comparison.curves
    if not curves:
        raise ValueError("figure: no run has a curve yet. Wait for the first episodes to end, or leave the figure out.")
    environments = list(dict.fromkeys(curve.environment for curve in curves))
    columns = min(len(environments), COLUMNS)
    rows = -(-len(environments) // columns)
    groups = [group for group in comparison.scores if any(curve.group == group for curve in curves)]
    with _panels(list(comparison.scores), groups, rows, columns, size) as (figure, panels, looks):
        for axes, environment in zip(panels, environments, strict=False):
            if comparison.threshold is not None:
                axes.axhline(comparison.threshold, color="0.5", linewidth=0.8, linestyle=(0, (1, 2)))
            _decorate(axes, environment, "environment steps")
            axes.xaxis.set_major_formatter(EngFormatter(sep=""))
        for axes in panels[: len(environments) : columns]:
            axes.set_ylabel("return")
        for axes in panels[len(environments) :]:
            axes.remove()
        for curve in curves:
            axes, look = panels[environments.index(curve.environment)], looks[curve.group]
            axes.plot(curve.steps, curve.training.value, **look, linewidth=1.6, zorder=3)
            if len(curve.evaluated_at):
                points: dict[str, Any] = {"marker": "o", "markersize": 2.5, "linewidth": 0.6, "zorder": 3}
                axes.plot(curve.evaluated_at, curve.greedy.value, color=look["color"], **points)
            if curve.seeds > 1:
                _band(axes, curve.steps, curve.training, look["color"], len(groups))
    return figure


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
    groups = [group for group in comparison.scores if any(profile.group == group for profile in profiles)]
    rows = len({environment for environment, _ in places})
    with _panels(list(comparison.scores), groups, rows, 2, size) as (figure, panels, looks):
        rows_of = {environment: row for row, environment in enumerate(dict.fromkeys(place[0] for place in places))}
        of_place = {place: panels[2 * rows_of[place[0]] + (place[1] == "greedy")] for place in places}
        for (environment, measure), axes in of_place.items():
            unit = "scaled " if environment == ALL else ""
            _decorate(axes, environment, f"{unit}{measure} return τ")
            axes.set_ylim(-0.03, 1.03)
            axes.locator_params(axis="x", nbins=6)
        for axes in panels[::2]:
            axes.set_ylabel("fraction of runs > τ")
        for axes in set(panels) - set(of_place.values()):
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
    if len(set(texts.values())) == 1:
        return f"{next(iter(texts.values()))} for each line"
    return "; ".join(f"{seeds} of {group}" for group, seeds in texts.items())


@contextmanager
def _panels(
    order: Sequence[str], groups: Sequence[str], rows: int, columns: int, size: Size | None
) -> Iterator[tuple["Figure", list["Axes"], dict[str, dict[str, Any]]]]:
    """An empty figure with a legend of ``groups`` below its panels; looks of lines by position in ``order``."""
    import matplotlib  # heavy; no window system is touched
    from matplotlib.lines import Line2D

    from ..runs.picture import Picture

    if size is not None and not (len(size) == 2 and all(0 < length <= LARGEST for length in size)):
        raise ValueError(f"size: got {size}; expected a width and a height in inches, in (0, {LARGEST:g}].")
    looks: dict[str, dict[str, Any]] = {
        group: {"color": COLORS[number % len(COLORS)], "linestyle": DASHES[number // len(COLORS) % len(DASHES)]}
        for number, group in enumerate(order)
    }
    width = size[0] if size else 2.4 + 2.4 * columns
    letters = max(10, int(12 * width) - 8)  # that fit into a line of the legend
    labels = ["\n".join(textwrap.wrap(group, letters)) for group in groups]
    legend_columns = max(1, min(len(groups), letters // (max(map(len, labels)) + 6)))
    legend_lines = sum(label.count("\n") + 1 for label in labels) / legend_columns
    with matplotlib.rc_context({"font.size": FONT_SIZE}):
        figure = Picture(*(size or (width, 2.4 * rows + 0.2 * legend_lines)))
        yield figure, list(figure.subplots(rows, columns, squeeze=False).flatten()), looks
        handles = [Line2D([], [], **looks[group], linewidth=1.6) for group in groups]
        figure.legend(handles, labels, loc="outside lower center", ncols=legend_columns, frameon=False)


def _decorate(axes: "Axes", title: str, xlabel: str) -> None:
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


def _check_path(path: pathlib.Path) -> None:
    if path.suffix not in FORMATS:
        raise ValueError(f"figure: got {path}; expected a file that ends in .png, .pdf or .svg.")


def _save(figure: "Figure", path: pathlib.Path) -> None:
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
