"""Figures of a pretraining run: probes over time, and features in two dimensions."""

import pathlib
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from .records import columns

if TYPE_CHECKING:
    from matplotlib.figure import Figure

PROBES = {"probe/few_labels": "10 labels a class", "probe/linear": "all labels", "probe/knn": "nearest neighbours"}
LEAST_OF_TSNE = 100  # minimum number of images for t-SNE
SHOWN = 2000  # number of images in the embedding
_MARKED = 12  # maximum number of classes in the legend


def probes_figure(
    records: Sequence[Mapping[str, Any]], result: Mapping[str, Any], path: pathlib.Path, title: str
) -> None:
    """Draw the probes of a run, and save them as a PNG; see :func:`draw_probes`.

    Args:
        records: Records of the run, in order.
        result: Content of ``evaluation.json``.
        path: File of the figure, a PNG.
        title: Title of the figure.
    """
    draw_probes(columns(records), result, title).savefig(path, dpi=100)


def draw_probes(metrics: Mapping[str, np.ndarray], result: Mapping[str, Any], title: str) -> "Figure":
    """Draw the probes over the gradient steps, with those of the pixels as dotted lines; without labels, the spread.

    Args:
        metrics: Name to array over the records, as of :func:`polyak.experiments.runs.records.columns`.
        result: Content of ``evaluation.json``.
        title: Title of the picture.

    Returns:
        Figure, which no window shows.
    """
    figure, axes = _figure()
    probed = np.isfinite(metrics.get("probe/linear", np.empty(0)))
    for number, (name, label) in enumerate(PROBES.items()):
        if not probed.any():
            break
        steps, values = [0, *metrics["step"][probed]], metrics[name][probed]
        start = result["initial_encoder"][name]
        axes.plot(steps, [start, *values], "o-", color=f"C{number}", markersize=3, label=label)
        axes.axhline(result["pixels"][name], color=f"C{number}", linewidth=1, linestyle=":")
    if probed.any():
        axes.plot([], [], ":", color="0.5", label="pixels")
        axes.set_ylabel("accuracy on test images")
    else:
        axes.plot(metrics["step"], metrics["projection_spread"])
        axes.set_ylabel("spread of the projections")
        axes.set_ylim(0, 1)
    axes.set_xlabel("gradient steps")
    axes.set_title(title, fontsize=10, parse_math=False)
    axes.grid(alpha=0.3)
    if probed.any():
        axes.legend(frameon=False)
    return figure


def embedding_figure(features: np.ndarray, labels: np.ndarray | None, path: pathlib.Path, title: str) -> None:
    """Draw features in two dimensions, coloured by label.

    The dimensions are those of t-SNE if scikit-learn is installed (by the extra ``images``) and there are at least 100
    images. Otherwise they are the first two principal components.

    Args:
        features: ``[N, D]``, features; the first 2000 are drawn.
        labels: ``[N]``, labels, or None.
        path: File of the figure, a PNG.
        title: Title of the figure.
    """
    features = features[:SHOWN].astype(np.float64)
    labels = np.zeros(len(features), int) if labels is None else labels[:SHOWN]
    places, how = in_the_plane(features)
    figure, axes = _figure()
    for label in np.unique(labels):
        rows = labels == label
        color = f"C{label % 10}"
        axes.plot(*places[rows].T, ".", color=color, markersize=6, alpha=0.6, markeredgewidth=0, label=str(label))
    if 1 < len(np.unique(labels)) <= _MARKED:
        axes.legend(frameon=False, markerscale=2, loc="center left", bbox_to_anchor=(1, 0.5))
    axes.set_xticks([])
    axes.set_yticks([])
    axes.set_xlabel(how)
    axes.set_title(title, fontsize=10, parse_math=False)
    figure.savefig(path, dpi=100)


def in_the_plane(features: np.ndarray) -> tuple[np.ndarray, str]:
    """Embedding ``[N, 2]`` of features ``[N, D]``, and the name of its method.

    >>> places, how = in_the_plane(np.eye(4))
    >>> places.shape, how
    ((4, 2), 'features by their first two principal components')
    """
    places = principal_components(features)
    if len(features) >= LEAST_OF_TSNE and np.ptp(places[:, 0]) > 0:  # t-SNE fails if all features are equal
        try:
            from sklearn.manifold import TSNE

            return TSNE(init="pca", random_state=0).fit_transform(features), "features by t-SNE"
        except ImportError:  # the extra ``images`` is not installed
            pass
    return places, "features by their first two principal components"


def principal_components(features: np.ndarray) -> np.ndarray:
    """First two principal components ``[N, 2]`` of features ``[N, D]``; the largest entry of each axis is positive.

    >>> places = principal_components(np.array([[0.0, 0.0, 0.0], [3.0, 0.0, 0.0], [0.0, 0.0, 1.0], [3.0, 0.0, 1.0]]))
    >>> places.round(3).tolist()
    [[-1.5, -0.5], [1.5, -0.5], [-1.5, 0.5], [1.5, 0.5]]
    """
    centred = features - features.mean(axis=0)
    axes = np.linalg.svd(centred, full_matrices=False)[2][:2]
    axes = axes * np.sign(axes[np.arange(len(axes)), np.abs(axes).argmax(axis=1)])[:, None]
    places = centred @ axes.T
    padded: np.ndarray = np.pad(places, ((0, 0), (0, 2 - places.shape[1])))
    return padded


def _figure() -> tuple["Figure", Any]:
    from .picture import Picture  # heavy

    figure = Picture(6, 4)
    return figure, figure.add_subplot()
