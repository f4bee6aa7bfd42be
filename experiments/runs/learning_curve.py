"""Figure of the learning curve of one run."""

import pathlib
from collections.abc import Sequence
from typing import Any

import numpy as np

from .records import GREEDY, running_mean

SMOOTHING = 20  # episodes


def learning_curve(records: Sequence[dict[str, Any]], path: pathlib.Path, title: str) -> None:
    """Draw the return of every training episode, their running mean, and evaluations during the run, as a PNG.

    Args:
        records: Records of the run, in order.
        path: File of the figure.
        title: Title of the figure.
    """
    from matplotlib.backends.backend_agg import FigureCanvasAgg  # slow to import; no window system is used
    from matplotlib.figure import Figure

    ended_at = np.concatenate([record["ended_at"] for record in records] or [[]])
    returns = np.concatenate([record["returns"] for record in records] or [[]])
    figure = Figure(figsize=(7, 4), layout="constrained")
    FigureCanvasAgg(figure)
    axes = figure.add_subplot()
    axes.plot(ended_at, returns, ".", color="tab:blue", alpha=0.35, markersize=5, markeredgewidth=0, label="episode")
    axes.plot(
        ended_at, running_mean(returns, SMOOTHING), color="tab:blue", linewidth=2, label=f"mean of the last {SMOOTHING}"
    )
    evaluated = [(record["step"], record[GREEDY]) for record in records if record.get(GREEDY) is not None]
    if evaluated:
        axes.plot(*zip(*evaluated, strict=True), "o-", color="tab:orange", markersize=4, label="greedy, evaluated")
    axes.set_xlabel("environment steps")
    axes.set_ylabel("training return, exploration included" if not evaluated else "return")
    axes.set_title(title, fontsize=10)
    axes.grid(alpha=0.3)
    if len(returns):
        axes.legend(frameon=False)
    figure.savefig(path, dpi=150)
