"""Figures of compared runs."""

import pathlib
import textwrap
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from .comparison import Comparison, Curve

COLORS = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9", "#000000")  # Okabe and Ito's: for all eyes
DASHES = ("-", "--", ":", "-.")  # the next where the colors are used up
PANELS = 3  # in a row


def comparison_figure(comparison: "Comparison", path: pathlib.Path) -> None:
    """Draws the curves of a comparison, fit for a paper: a panel for each environment, a line for each group.

    Lines are interquartile means over seeds, bands their 95 % bootstrap intervals (no band for one seed).

    Args:
        comparison: what :func:`polyak.experiments.reports.comparison.compare` found.
        path: where the picture goes: a PNG, or with letters as letters a PDF, or an SVG, by its ending.

    Raises:
        ValueError: another ending, a file that cannot be written, or no curve to draw.
    """
    import matplotlib  # heavy; no window system is touched

    if path.suffix not in (".png", ".pdf", ".svg"):
        raise ValueError(f"figure: got {path}; expected a file that ends in .png, .pdf or .svg.")
    if not comparison.curves:
        raise ValueError("figure: no run has a curve yet. Wait for the first episodes to end, or leave the figure out.")
    with matplotlib.rc_context({"font.size": 9, "pdf.fonttype": 42}):
        figure = draw_comparison(comparison)
        try:
            figure.savefig(path, dpi=300)
        except OSError as error:
            raise ValueError(f"figure: {path} cannot be written ({error.strerror}). Give another file.") from None


def draw_comparison(comparison: "Comparison") -> Any:
    """The matplotlib ``Figure`` that :func:`comparison_figure` saves."""
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure
    from matplotlib.ticker import EngFormatter

    environments = list(dict.fromkeys(curve.environment for curve in comparison.curves))
    groups = list(dict.fromkeys(curve.group for curve in comparison.curves))
    columns = min(len(environments), PANELS)
    rows = -(-len(environments) // columns)
    width = 2.4 + 2.4 * columns  # inches, as all sizes of a figure
    letters = int(12 * width) - 8  # of the legend's font that fit into it
    labels = ["\n".join(textwrap.wrap(_label(group, comparison.curves), letters)) for group in groups]
    legend_columns = max(1, min(len(groups), letters // (max(map(len, labels)) + 6)))
    lines_of_legend = 3 + sum(label.count("\n") + 1 for label in labels) / legend_columns
    figure = Figure(figsize=(width, 2.4 * rows + 0.2 * lines_of_legend), layout="constrained")
    FigureCanvasAgg(figure)
    panels = figure.subplots(rows, columns, squeeze=False).flatten()
    for axes, environment in zip(panels, environments, strict=False):
        if comparison.threshold is not None:
            axes.axhline(comparison.threshold, color="0.5", linewidth=0.8, linestyle=(0, (1, 2)))
        axes.set_title(environment, fontsize=9)
        axes.set_xlabel("environment steps")
        axes.xaxis.set_major_formatter(EngFormatter(sep=""))
        axes.grid(alpha=0.25, linewidth=0.5)
        axes.spines[["top", "right"]].set_visible(False)
    for axes in panels[: len(environments) : columns]:
        axes.set_ylabel("return")
    for axes in panels[len(environments) :]:
        axes.remove()
    handles = {}
    for curve in comparison.curves:
        axes, number = panels[environments.index(curve.environment)], groups.index(curve.group)
        color, dash = COLORS[number % len(COLORS)], DASHES[number // len(COLORS) % len(DASHES)]
        [handles[curve.group]] = axes.plot(curve.steps, curve.training.value, dash, color=color, linewidth=1.6)
        if len(curve.evaluated_at):
            axes.plot(curve.evaluated_at, curve.greedy.value, "o-", color=color, linewidth=0.6, markersize=2.5)
        if curve.seeds > 1:
            axes.fill_between(curve.steps, curve.training.low, curve.training.high, color=color, alpha=0.2, linewidth=0)
    meaning = [
        f"Each run: mean of its last {comparison.window} training episodes.",
        *(["Points: evaluations, greedy."] if any(len(curve.evaluated_at) for curve in comparison.curves) else []),
        "Over seeds: interquartile mean, and its 95 % bootstrap interval.",
        *([] if comparison.threshold is None else [f"Dotted: a training return of {comparison.threshold:g}."]),
    ]
    figure.legend(
        [handles[group] for group in groups],
        labels,
        loc="outside lower center",
        ncols=legend_columns,
        title="\n".join(meaning),
        title_fontsize=8,
        frameon=False,
    )
    return figure


def _label(group: str, curves: Sequence["Curve"]) -> str:
    seeds = [curve.seeds for curve in curves if curve.group == group]
    few, many = min(seeds), max(seeds)
    return f"{group} ({f'{few} to ' if few < many else ''}{many} seed{'s' if many > 1 else ''})"
