"""Statistics of scores over runs, with intervals of the stratified bootstrap (Agarwal et al., 2021).

A *stratum* is the scores of a group of runs in one environment. The stratified bootstrap draws runs with replacement
within each stratum, computes the statistic of each draw, and takes the percentiles of the results. The draws are
seeded, so that the same scores give the same numbers.

Source: https://arxiv.org/abs/2108.13264.
"""

from collections.abc import Callable, Sequence
from typing import Literal, NamedTuple, get_args

import numpy as np

from ...agents.fields import check_name

CONFIDENCE = 0.95
RESAMPLES = 10_000
BATCH = 20_000_000  # elements that the resamples of one call hold together, 160 MB

Statistic = Literal["iqm", "mean", "median"]
STATISTICS: tuple[Statistic, ...] = get_args(Statistic)


class Estimate(NamedTuple):
    """Value of a statistic and its 95 % interval, float64 arrays of one shape; NaN where they are not defined."""

    value: np.ndarray
    low: np.ndarray
    high: np.ndarray


def estimate(strata: Sequence[np.ndarray], statistic: Statistic = "iqm", *, resamples: int = RESAMPLES) -> Estimate:
    r"""Statistic of scores and its 95 % stratified bootstrap interval.

    The scores of all strata are pooled, so that each run has the same weight. With the :math:`K` pooled scores in
    ascending order, :math:`x_{(1)} \le \dots \le x_{(K)}`, the statistics are trimmed means:

    .. math::

        \mathrm{IQM} = \frac{1}{K - 2k} \sum_{i = k + 1}^{K - k} x_{(i)}, \quad k = \lfloor K / 4 \rfloor, \qquad
        \mathrm{mean} = \frac{1}{K} \sum_{i = 1}^{K} x_{(i)}, \qquad
        \mathrm{median} = \tfrac{1}{2}
        \left(x_{(\lceil K / 2 \rceil)} + x_{(\lfloor K / 2 \rfloor + 1)}\right).

    The interquartile mean (IQM) of three scores is their mean, because :math:`k = 0`. Over several environments the
    median is over runs; the median over environments of the mean over runs is another number.

    Args:
        strata: Scores in each environment, ``[runs, ...]`` of one trailing shape.
        statistic: ``iqm``, ``mean`` or ``median``.
        resamples: Number of bootstrap draws.

    Returns:
        Arrays of the trailing shape. The interval is NaN if an environment has one run. All arrays are NaN if an
        environment has no run or a score is NaN.

    Raises:
        ValueError: if the statistic is unknown.

    >>> scores = np.array([1.0, 2.0, 3.0, 10.0])
    >>> [float(estimate([scores], statistic).value) for statistic in ("iqm", "mean", "median")]
    [2.5, 4.0, 2.5]
    >>> value, low, high = estimate([scores])
    >>> float(low), float(high)
    (1.0, 10.0)
    """
    check_name(statistic, STATISTICS, "statistic")

    def pooled(*samples: np.ndarray, axis: int) -> np.ndarray:
        return _statistic(np.concatenate(samples, axis=axis), statistic, axis)

    return _bootstrap(strata, pooled, np.shape(strata[0])[1:], resamples)


def performance_profile(
    strata: Sequence[np.ndarray], thresholds: np.ndarray, *, resamples: int = RESAMPLES
) -> Estimate:
    r"""Performance profile: fraction of runs with a score above each threshold :math:`\tau`, and its pointwise band.

    .. math::

        \hat F(\tau) = \frac{1}{K} \sum_{i = 1}^{K} \mathbb{1}[x_i > \tau]

    The scores of all strata are pooled. With equally many runs in each environment this is the run-score distribution
    of Agarwal et al. (2021).

    Args:
        strata: Scores in each environment, ``[runs]``.
        thresholds: Thresholds :math:`\tau`, ``[P]``, in the unit of the scores.
        resamples: Number of bootstrap draws.

    Returns:
        Arrays ``[P]``, NaN as in :func:`estimate`. The band has 95 % coverage at each threshold alone.

    >>> performance_profile([np.array([1.0, 2.0, 2.0, 4.0])], np.array([0.0, 2.0, 4.0])).value
    array([1.  , 0.25, 0.  ])
    """
    above = [np.where(np.isnan(x)[:, None], np.nan, x[:, None] > thresholds) for x in strata]
    return estimate(above, "mean", resamples=resamples)


def probability_of_improvement(
    x: Sequence[np.ndarray], y: Sequence[np.ndarray], *, resamples: int = RESAMPLES
) -> Estimate:
    r"""Probability that a run of X has a higher score than a run of Y, averaged over environments.

    The probability in an environment is the Mann-Whitney U statistic of its :math:`N` runs of X and :math:`K` runs of
    Y, divided by :math:`N K` (Agarwal et al., 2021); the :math:`M` environments have the same weight:

    .. math::

        P(X > Y) = \frac{1}{M} \sum_{m = 1}^{M} \frac{1}{N K} \sum_{i = 1}^{N} \sum_{j = 1}^{K} S(x_{m,i}, y_{m,j}),
        \qquad S(x, y) = \mathbb{1}[x > y] + \tfrac{1}{2} \, \mathbb{1}[x = y].

    The bootstrap draws the runs of X and of Y independently of each other.

    Args:
        x: Scores of X in each environment, ``[runs]``.
        y: Scores of Y in the same environments, in the same order, ``[runs]``.
        resamples: Number of bootstrap draws.

    Returns:
        Scalar arrays, NaN as in :func:`estimate`. The probability of Y over X is one minus the value, and its interval
        is one minus the bounds.

    Raises:
        ValueError: if ``x`` and ``y`` have different numbers of environments.

    >>> float(probability_of_improvement([np.array([3.0, 5.0])], [np.array([1.0, 3.0])]).value)
    0.875
    """
    if len(x) != len(y):
        raise ValueError(f"y: got {len(y)} environments and {len(x)} for x; expected the same environments in both.")

    def average(*samples: np.ndarray, axis: int) -> np.ndarray:
        moved = [np.moveaxis(sample, axis, -1) for sample in samples]
        pairs = zip(moved[: len(x)], moved[len(x) :], strict=True)
        return np.asarray(np.mean([_above(*pair) for pair in pairs], axis=0))

    return _bootstrap([*x, *y], average, (), resamples)


def _above(x: np.ndarray, y: np.ndarray) -> np.ndarray:
    above, equal = x[..., :, None] > y[..., None, :], x[..., :, None] == y[..., None, :]
    return np.asarray((above + 0.5 * equal).mean(axis=(-2, -1)))


def _statistic(scores: np.ndarray, statistic: Statistic, axis: int) -> np.ndarray:
    from scipy import stats  # heavy

    if statistic == "iqm":
        return np.asarray(stats.trim_mean(scores, 0.25, axis=axis))
    return np.asarray((np.mean if statistic == "mean" else np.median)(scores, axis=axis))


def _bootstrap(
    strata: Sequence[np.ndarray], statistic: Callable[..., np.ndarray], shape: tuple[int, ...], resamples: int
) -> Estimate:
    from scipy import stats  # heavy

    undefined = np.full(shape, np.nan)
    if any(len(scores) == 0 or np.isnan(scores).any() for scores in strata):
        return Estimate(undefined, undefined, undefined)
    value = statistic(*strata, axis=0)
    if any(len(scores) == 1 for scores in strata):
        return Estimate(value, undefined, undefined)
    interval = stats.bootstrap(
        tuple(strata),
        statistic,
        method="percentile",
        vectorized=True,
        axis=0,
        confidence_level=CONFIDENCE,
        n_resamples=resamples,
        batch=max(1, min(resamples, BATCH // sum(map(np.size, strata)))),
        rng=np.random.default_rng(0),
    ).confidence_interval
    return Estimate(value, np.asarray(interval.low), np.asarray(interval.high))
