"""Runs compared over seeds: interquartile means with bootstrap intervals, steps to a threshold, learning curves.

A *training return* at an environment step is the mean of the last 100 training episodes that had ended by then, as in
the records. Over seeds, returns are told as their interquartile mean with a percentile interval of the stratified
bootstrap, which draws seeds with replacement within each environment (Agarwal et al., 2021,
https://arxiv.org/abs/2108.13264). The draws are seeded: the same runs give the same numbers.
"""

import functools
import math
import pathlib
from collections.abc import Iterable, Sequence
from typing import NamedTuple

import numpy as np

from ..loops.episodes import RECENT
from ..runs.records import running_mean
from .run_groups import FoundRun, Groups, grouped, read_run, run_folders, without_repeats

CONFIDENCE = 0.95
RESAMPLES = 10_000  # of a number in the table
CURVE_RESAMPLES = 1_000  # of a curve
POINTS = 200  # of a curve
ALL = "all"


class Estimate(NamedTuple):
    """An interquartile mean and its 95 % interval, float64 of one shape; NaN where they are not defined."""

    value: np.ndarray
    low: np.ndarray
    high: np.ndarray


class Row(NamedTuple):
    """A line of the table: a group of runs in one environment, or over all of them.

    Attributes:
        group: what sets the group apart from the others.
        environment: its id, or ``all``: returns of each environment are then scaled from 0, that of the lowest run
            compared, to 1, that of the highest, since returns of two environments have no common unit.
        seeds: runs that have ended; every number is over these.
        unfinished: runs that have not.
        training: of the training returns at the end.
        greedy: of the mean greedy returns of the runs' own evaluations.
        steps_to_threshold: the median over seeds of :func:`steps_to`; infinite where half of them or more did not reach
            it, NaN where it was not asked for.
        reached: how many seeds reached it.
        evaluated: Number of seeds with evaluations before their end.
        greedy_steps_to_threshold: Median over these of the environment step of the first evaluation whose mean return
            is no less than the threshold; infinite and NaN as ``steps_to_threshold``.
        greedy_reached: Number of these that reached it.
    """

    group: str
    environment: str
    seeds: int
    unfinished: int
    training: Estimate
    greedy: Estimate
    steps_to_threshold: float = math.nan
    reached: int = 0
    evaluated: int = 0
    greedy_steps_to_threshold: float = math.nan
    greedy_reached: int = 0


class Curve(NamedTuple):
    """A learning curve: a group of runs in one environment, unfinished ones included.

    Attributes:
        group: what sets the group apart from the others.
        environment: its id.
        seeds: how many runs.
        steps: ``[P]`` float64, environment steps, from the first at which every run has a training return to the last
            that every run has reached.
        training: ``[P]``, of the training returns there.
        evaluated_at: ``[K]`` float64, environment steps at which every run was evaluated before its end.
        greedy: ``[K]``, of the mean greedy returns there.
    """

    group: str
    environment: str
    seeds: int
    steps: np.ndarray
    training: Estimate
    evaluated_at: np.ndarray
    greedy: Estimate


class Comparison(NamedTuple):
    """What :func:`compare` finds.

    Attributes:
        rows: the table; ``all`` rows stand at its end, where two groups or more have several environments.
        curves: the learning curves.
        notes: what was left out and why, a sentence each.
        threshold: the return to reach, in training and by evaluations; None for none.
        window: the training episodes that a training return is the mean of.
    """

    rows: list[Row]
    curves: list[Curve]
    notes: list[str]
    threshold: float | None
    window: int


def compare(*folders: str | pathlib.Path, threshold: float | None = None, window: int = RECENT) -> Comparison:
    """Compares runs over their seeds. Those that differ in seed and environment alone are a group.

    Args:
        *folders: folders of runs, and folders that hold runs.
        threshold: a return, for the steps that it takes to reach it in training and by the evaluations within a run.
        window: the training episodes that a training return is the mean of.

    Raises:
        ValueError: no run, a file of a run that cannot be read, or an option out of range.

    >>> compare("nowhere")
    Traceback (most recent call last):
    ValueError: nowhere: no run found (no config.json). Runs are made with: polyak train --out FOLDER
    """
    if window < 1:
        raise ValueError(f"window: got {window}; expected an integer >= 1.")
    if threshold is not None and not math.isfinite(threshold):
        raise ValueError(f"threshold: got {threshold}; expected a finite number.")
    runs, notes = without_repeats(read_run(folder) for folder in run_folders(folders))
    groups = grouped(runs)
    environments = list(dict.fromkeys(run.environment for run in runs))
    by_environment = [
        (group, environment, strata[environment])
        for environment in environments
        for group, strata in groups.items()
        if environment in strata
    ]
    rows = [_row(*one, threshold, window) for one in by_environment]
    curves = [curve for one in by_environment if (curve := _curve(*one, window))]
    notes = [*notes, *_notes(runs, threshold, window)]
    return Comparison([*rows, *_rows_over_all(groups, environments, window)], curves, notes, threshold, window)


def estimate(strata: Sequence[np.ndarray], *, resamples: int = RESAMPLES) -> Estimate:
    """The interquartile mean of scores and its 95 % stratified bootstrap interval.

    The mean leaves out a quarter of the scores at either end, rounded down: none of three, one of four to seven.

    Args:
        strata: ``[seeds, ...]`` for each environment, of one trailing shape; seeds are drawn within each.
        resamples: how many times.

    Returns:
        Arrays of the trailing shape. NaN is the interval where an environment has one seed, and all of it where an
        environment has none or a score is NaN.

    >>> value, low, high = estimate([np.array([1.0, 2.0, 3.0, 10.0])])
    >>> float(value), float(low), float(high)
    (2.5, 1.0, 10.0)
    """
    from scipy import stats  # heavy

    def interquartile_mean(*samples: np.ndarray, axis: int = 0) -> np.ndarray:
        return np.asarray(stats.trim_mean(np.concatenate(samples, axis=axis), 0.25, axis=axis))

    undefined = np.full(np.shape(strata[0])[1:], np.nan)
    if any(len(scores) == 0 or np.isnan(scores).any() for scores in strata):
        return Estimate(undefined, undefined, undefined)
    value = interquartile_mean(*strata)
    if any(len(scores) == 1 for scores in strata):
        return Estimate(value, undefined, undefined)
    interval = stats.bootstrap(
        tuple(strata),
        interquartile_mean,
        method="percentile",
        vectorized=True,
        axis=0,
        confidence_level=CONFIDENCE,
        n_resamples=resamples,
        rng=np.random.default_rng(0),
    ).confidence_interval
    return Estimate(value, np.asarray(interval.low), np.asarray(interval.high))


def training_returns(steps: np.ndarray, returns: np.ndarray, ended_at: np.ndarray, window: int = RECENT) -> np.ndarray:
    """The training return at each of ``steps``: the mean of the last ``window`` episodes that had ended by then.

    Args:
        steps: ``[P]`` environment steps.
        returns: ``[E]``, of the episodes in the order in which they ended.
        ended_at: ``[E]`` environment steps.
        window: episodes.

    Returns:
        ``[P]`` float64; where fewer have ended, the mean of those; where none has, NaN.

    >>> training_returns(np.array([0, 10, 25, 40]), np.array([1.0, 3.0, 8.0]), np.array([10, 20, 30]), window=2)
    array([nan, 1. , 2. , 5.5])
    """
    means = np.concatenate([[np.nan], running_mean(returns, window)])
    return means[np.searchsorted(ended_at, steps, side="right")]


def steps_to(threshold: float, returns: np.ndarray, ended_at: np.ndarray, window: int = RECENT) -> float:
    """The first environment step at which the mean of the last ``window`` episodes is no less than ``threshold``.

    A few lucky episodes are no evidence: before ``window`` of them have ended, nothing is reached.

    Args:
        threshold: a return.
        returns: ``[E]``, of the episodes in the order in which they ended.
        ended_at: ``[E]`` environment steps.
        window: episodes.

    Returns:
        The step; infinite where it is not reached.

    >>> steps_to(5.0, np.array([9.0, 1.0, 3.0, 8.0, 0.0]), np.array([10, 20, 30, 40, 50]), window=2)
    20.0
    """
    reached = np.flatnonzero(running_mean(returns, window)[window - 1 :] >= threshold)
    return float(ended_at[window - 1 + reached[0]]) if len(reached) else math.inf


def _row(group: str, environment: str, runs: list[FoundRun], threshold: float | None, window: int) -> Row:
    ended = [run for run in runs if run.greedy is not None]
    training, greedy = _scores(ended, window)
    evaluated = [run for run in ended if len(run.evaluated_at)]
    steps, greedy_steps = [], []
    if threshold is not None:
        steps = [steps_to(threshold, run.returns, run.ended_at, window) for run in ended]
        greedy_steps = [steps_to(threshold, run.evaluations, run.evaluated_at, window=1) for run in evaluated]
    return Row(
        group,
        environment,
        seeds=len(ended),
        unfinished=len(runs) - len(ended),
        training=estimate([training]),
        greedy=estimate([greedy]),
        steps_to_threshold=float(np.median(steps)) if steps else math.nan,
        reached=sum(map(math.isfinite, steps)),
        evaluated=len(evaluated),
        greedy_steps_to_threshold=float(np.median(greedy_steps)) if greedy_steps else math.nan,
        greedy_reached=sum(map(math.isfinite, greedy_steps)),
    )


def _rows_over_all(groups: Groups, environments: Sequence[str], window: int) -> list[Row]:
    """A row for each group that has all environments; none unless there are two such groups to tell apart."""
    complete = {group: strata for group, strata in groups.items() if set(strata) == set(environments)}
    if len(environments) < 2 or len(complete) < 2:
        return []
    scaled: dict[str, list[np.ndarray]] = {group: [] for group in complete}
    for environment in environments:
        ended = {
            group: _scores([run for run in strata.get(environment, []) if run.greedy is not None], window)
            for group, strata in groups.items()
        }
        compared = np.concatenate(list(ended.values()), axis=1)
        low = np.min(compared, axis=1, keepdims=True, initial=np.inf)
        high = np.max(compared, axis=1, keepdims=True, initial=-np.inf)
        for group in complete:
            scaled[group].append((ended[group] - low) / np.where(high > low, high - low, np.nan))
    rows = []
    for group, strata in complete.items():
        seeds = sum(scores.shape[1] for scores in scaled[group])
        training, greedy = ([scores[measure] for scores in scaled[group]] for measure in (0, 1))
        unfinished = sum(map(len, strata.values())) - seeds
        rows.append(Row(group, ALL, seeds, unfinished, estimate(training), estimate(greedy)))
    return rows


def _scores(ended: Iterable[FoundRun], window: int) -> np.ndarray:
    """``[2, seeds]``: the training return at the end and the mean greedy return of each run."""
    at_the_end = [training_returns(np.array(np.inf), run.returns, run.ended_at, window) for run in ended]
    return np.array([at_the_end, [run.greedy for run in ended]], np.float64)


def _curve(group: str, environment: str, runs: list[FoundRun], window: int) -> Curve | None:
    runs = [run for run in runs if len(run.returns)]
    first = max((run.ended_at[0] for run in runs), default=math.inf)
    last = min((run.step for run in runs), default=0)
    if first > last:
        return None
    steps = np.linspace(first, last, POINTS)
    returns = np.stack([training_returns(steps, run.returns, run.ended_at, window) for run in runs])
    training = estimate([returns], resamples=CURVE_RESAMPLES)
    evaluated_at = functools.reduce(np.intersect1d, [run.evaluated_at for run in runs])
    evaluations = np.stack([run.evaluations[np.isin(run.evaluated_at, evaluated_at)] for run in runs])
    greedy = estimate([evaluations], resamples=CURVE_RESAMPLES) if len(evaluated_at) else Estimate(*np.empty((3, 0)))
    return Curve(group, environment, len(runs), steps, training, evaluated_at, greedy)


def _notes(runs: Sequence[FoundRun], threshold: float | None, window: int) -> list[str]:
    notes = []
    for run in runs:
        if run.greedy is None:
            way = f"at step {run.step} of {run.fields['steps']}"
            notes.append(
                f"{run.folder} is unfinished, {way}: its curve is compared, and no number of the table has it."
            )
        if not len(run.returns):
            notes.append(f"{run.folder} has no curve: no training episode has ended by step {run.step}.")
    few = sum(len(run.returns) < window for run in runs if run.greedy is not None)
    if threshold is not None and few:
        notes.append(
            f"{few} of {len(runs)} runs have fewer than {window} training episodes, and so reach no threshold; "
            "a smaller window would do."
        )
    return notes
