"""Pictures of runs."""

import pathlib
from collections.abc import Sequence
from typing import Any

import numpy as np

SMOOTHING = 20  # episodes


def learning_curve(records: Sequence[dict[str, Any]], path: pathlib.Path, title: str) -> None:
    """Draws the return of every training episode and their running mean over the environment steps, as a PNG.

    Args:
        records: the records of a run, in order.
        path: where the picture goes.
        title: what stands above it.
    """
    from matplotlib.backends.backend_agg import FigureCanvasAgg  # heavy; no window system is touched
    from matplotlib.figure import Figure

    ended_at = np.concatenate([record["ended_at"] for record in records] or [[]])
    returns = np.concatenate([record["returns"] for record in records] or [[]])
    figure = Figure(figsize=(7, 4), layout="constrained")
    FigureCanvasAgg(figure)
    axes = figure.add_subplot()
    axes.plot(ended_at, returns, ".", color="tab:blue", alpha=0.35, markersize=5, markeredgewidth=0, label="episode")
    axes.plot(ended_at, _running_mean(returns), color="tab:blue", linewidth=2, label=f"mean of the last {SMOOTHING}")
    axes.set_xlabel("environment steps")
    axes.set_ylabel("training return (exploration included)")
    axes.set_title(title, fontsize=10)
    axes.grid(alpha=0.3)
    if len(returns):
        axes.legend(frameon=False)
    figure.savefig(path, dpi=150)


def _running_mean(returns: np.ndarray) -> np.ndarray:
    sums = np.cumsum(np.concatenate([[0.0], returns]))
    ends = np.arange(1, len(returns) + 1)
    starts = np.maximum(ends - SMOOTHING, 0)
    means: np.ndarray = (sums[ends] - sums[starts]) / (ends - starts)
    return means
