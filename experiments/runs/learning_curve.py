"""Figure of the learning curve of one run."""

import pathlib
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from .records import GREEDY, columns, running_mean

if TYPE_CHECKING:
    from matplotlib.figure import Figure

SMOOTHING = 20  # episodes


def learning_curve(records: Sequence[dict[str, Any]], path: pathlib.Path, title: str) -> None:
    """Draw the learning curve of a run, and save it as a PNG.

    Args:
        records: Records of the run, in order.
        path: File of the figure.
        title: Title of the figure.
    """
    draw_learning_curve(columns(records), title).savefig(path, dpi=150)


def draw_learning_curve(metrics: Mapping[str, np.ndarray], title: str) -> "Figure":
    """Draw every training episode's return, their running mean, and the evaluations within the run.

    Args:
        metrics: Name to array over the records, as of :func:`polyak.experiments.runs.records.columns`.
        title: Title of the picture.

    Returns:
        Figure, which no window shows.
    """
    from .picture import Picture  # heavy

    ended_at, returns = (metrics.get(name, np.empty(0)) for name in ("ended_at", "returns"))
    figure = Picture(7, 4)
    axes = figure.add_subplot()
    axes.plot(ended_at, returns, ".", color="tab:blue", alpha=0.35, markersize=5, markeredgewidth=0, label="episode")
    axes.plot(
        ended_at, running_mean(returns, SMOOTHING), color="tab:blue", linewidth=2, label=f"mean of the last {SMOOTHING}"
    )
    greedy = metrics.get(GREEDY, np.empty(0))
    evaluated = np.isfinite(greedy)
    if evaluated.any():
        steps = metrics["step"][evaluated]
        axes.plot(steps, greedy[evaluated], "o-", color="tab:orange", markersize=4, label="greedy, evaluated")
    axes.set_xlabel("environment steps")
    axes.set_ylabel("return" if evaluated.any() else "training return, exploration included")
    axes.set_title(title, fontsize=10, parse_math=False)
    axes.grid(alpha=0.3)
    if len(returns):
        axes.legend(frameon=False)
    return figure
