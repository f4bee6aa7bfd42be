"""Comparison of runs over seeds: statistics with bootstrap intervals, steps to a threshold, learning curves.

A *training return* at an environment step is the mean of the last 100 training episodes that have ended by then, as in
the records. The *greedy return* is the mean return of a run's final evaluation. Statistics and intervals are those of
:mod:`polyak.experiments.reports.statistics` (Agarwal et al., 2021, https://arxiv.org/abs/2108.13264).
"""

import functools
import math
import pathlib
from collections.abc import Iterable, Mapping, Sequence
from typing import TYPE_CHECKING, NamedTuple

import numpy as np

from ...tables import TableFormat
from ..loops.episodes import RECENT
from ..runs.records import running_mean
from .found_runs import FoundRun, read_run, run_folders
from .run_groups import Settings, grouped, pooling_notes, renamed, run_notes, settings_of, without_repeats
from .scores import ALL, Improvement, Profile, Scores, ScoresByGroup, environments_of, improvements, profiles, scaled
from .statistics import STATISTICS, Estimate, Statistic, estimate

if TYPE_CHECKING:
    from matplotlib.figure import Figure

CURVE_RESAMPLES = 1_000
POINTS = 200  # of a curve


class Summary(NamedTuple):
    """Statistics of the scores of a group, as defined in :func:`~polyak.experiments.reports.statistics.estimate`.

    Attributes:
        iqm: Interquartile mean and its interval.
        mean: Mean and its interval.
        median: Median and its interval.
    """

    iqm: Estimate
    mean: Estimate
    median: Estimate


class Row(NamedTuple):
    """Row of the table: a group of runs in one environment, or over all environments.

    Attributes:
        group: Label of the group.
        environment: Environment id, or ``all``. For ``all`` the returns of each environment are scaled from 0, the
            lowest run compared, to 1, the highest, because returns of two environments have no common unit.
        seeds: Number of runs that have ended; the numbers of the row are over these runs.
        unfinished: Number of runs that have not ended, without diverged runs.
        training: Statistics of the training returns at the end.
        greedy: Statistics of the mean greedy returns of the final evaluations.
        steps_to_threshold: Median over seeds of :func:`steps_to`. It is infinite if half of the seeds or more did not
            reach the threshold, and NaN without a threshold.
        reached: Number of seeds that reached the threshold.
        evaluated: Number of seeds with evaluations before their end.
        greedy_steps_to_threshold: Median over these seeds of the environment step of the first evaluation whose mean
            return is at least the threshold; infinite and NaN as ``steps_to_threshold``.
        greedy_reached: Number of these seeds with such an evaluation.
        diverged: Number of runs that have diverged.
    """

    group: str
    environment: str
    seeds: int
    unfinished: int
    training: Summary
    greedy: Summary
    steps_to_threshold: float = math.nan
    reached: int = 0
    evaluated: int = 0
    greedy_steps_to_threshold: float = math.nan
    greedy_reached: int = 0
    diverged: int = 0


class Curve(NamedTuple):
    """Learning curve of a group of runs in one environment, with unfinished runs and without diverged runs.

    Attributes:
        group: Label of the group.
        environment: Environment id.
        seeds: Number of runs.
        steps: Environment steps, ``[P]`` float64, from the first at which every run has a training return to the last
            that every run has reached.
        training: Interquartile mean of the training returns at these steps, ``[P]``.
        evaluated_at: Environment steps at which every run was evaluated before its end, ``[K]`` float64.
        greedy: Interquartile mean of the mean greedy returns at these steps, ``[K]``.
    """

    group: str
    environment: str
    seeds: int
    steps: np.ndarray
    training: Estimate
    evaluated_at: np.ndarray
    greedy: Estimate


class Comparison(NamedTuple):
    """Result of :func:`compare`. A notebook shows it as its table.

    Attributes:
        rows: Rows of the table, by environment and group. Rows over all environments are at the end, if at least two
            groups have runs in all of at least two environments.
        curves: Learning curves, by environment and group.
        notes: Sentences on runs that are left out, unfinished, diverged or pooled.
        threshold: Return to reach, in training and by evaluations; None for no threshold.
        window: Number of training episodes whose mean is a training return.
        scores: Scores of the finished runs, by group and environment; groups are in the order of the folders given.
        settings: Values of the fields in which the groups differ, by group and field.
    """

    rows: list[Row]
    curves: list[Curve]
    notes: list[str]
    threshold: float | None
    window: int
    scores: ScoresByGroup
    settings: Settings

    def __repr__(self) -> str:
        runs = sum(len(scores.greedy) for strata in self.scores.values() for scores in strata.values())
        environments = environments_of(self.scores)
        return (
            f"Comparison(groups={list(self.scores)}, environments={environments}, finished_runs={runs}, "
            f"notes={len(self.notes)})"
        )

    def _repr_html_(self) -> str:
        from .comparison_table import html_table

        return html_table(self)

    def table(
        self, form: TableFormat = "text", *, statistics: Sequence[Statistic] = ("iqm",), caption: bool = True
    ) -> str:
        """Table of the rows; see :func:`~polyak.experiments.reports.comparison_table.comparison_table`."""
        from .comparison_table import comparison_table

        return comparison_table(self, form, statistics=statistics, caption=caption)

    def figure(self, *, size: tuple[float, float] | None = None) -> "Figure":
        """Figure of the learning curves; see :func:`~polyak.experiments.reports.figures.draw_comparison`."""
        from .figures import draw_comparison

        return draw_comparison(self, size=size)

    def final_score_figure(self, *, size: tuple[float, float] | None = None) -> "Figure":
        """Figure of the final scores; see :func:`~polyak.experiments.reports.sweep_figures.draw_final_score`."""
        from .sweep_figures import draw_final_score

        return draw_final_score(self, size=size)

    def heat_map_figure(self, *, size: tuple[float, float] | None = None) -> "Figure":
        """Heat map of the final scores; see :func:`~polyak.experiments.reports.heat_map.draw_heat_map`."""
        from .heat_map import draw_heat_map

        return draw_heat_map(self, size=size)

    def profiles(self) -> list[Profile]:
        """Performance profiles; see :func:`~polyak.experiments.reports.scores.profiles`."""
        return profiles(self.scores)

    def profile_figure(self, *, size: tuple[float, float] | None = None) -> "Figure":
        """Figure of the performance profiles; see :func:`~polyak.experiments.reports.figures.draw_profiles`."""
        from .figures import draw_profiles

        return draw_profiles(self, size=size)

    def improvements(self) -> list[Improvement]:
        """Probabilities of improvement; see :func:`~polyak.experiments.reports.scores.improvements`."""
        return improvements(self.scores)

    def improvement_table(self, form: TableFormat = "text", *, caption: bool = True) -> str:
        """Table of them; see :func:`~polyak.experiments.reports.comparison_table.improvement_table`."""
        from .comparison_table import improvement_table

        return improvement_table(self, form, caption=caption)


def compare(
    *folders: str | pathlib.Path,
    threshold: float | None = None,
    window: int = RECENT,
    group_by: Sequence[str] = (),
    labels: Mapping[str, str] | None = None,
) -> Comparison:
    """Compare runs over their seeds, in groups that are in the order of the folders given.

    Args:
        *folders: Folders of runs, and folders that hold runs.
        threshold: Return; with it, rows have the environment steps to reach it in training and by evaluations.
        window: Number of training episodes whose mean is a training return.
        group_by: Names of config fields, or ``agent``. Runs with equal values of these fields are one group; a note
            names the other fields in which they differ. If empty, runs whose configs differ only in seed and
            environment are one group.
        labels: Name of a group to its new name. A group is named by its label, or by a field in its label
            (``target=none``) or the value of the field (``none``) that no other group has.

    Returns:
        Comparison with the table's rows, the curves and the scores; ``.table()``, ``.figure()``, ``.profile_figure()``
        and ``.improvement_table()`` show it.

    Raises:
        ValueError: if a folder holds no run, a file of a run cannot be read, an option is out of range, no run has a
            field of ``group_by``, or ``labels`` does not fit the groups.
        TypeError: if a folder is not a path, ``window`` is not an integer, ``group_by`` is a text, or ``labels`` is not
            a mapping of texts.

    >>> import polyak, tempfile
    >>> fields = {"steps": 300, "learning_starts": 100, "hidden_sizes": (8,), "evaluation_episodes": 2}
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     for target in ("none", "periodic:50"):
    ...         run = polyak.train(target=target, out=f"{folder}/{target[:4]}", **fields)
    ...     comparison = compare(folder, labels={"none": "stop-gradient"})
    >>> comparison
    Comparison(groups=['stop-gradient', 'target=periodic:50'], environments=['CartPole-v1'], finished_runs=2,
    notes=0)
    >>> comparison.scores["stop-gradient"]["CartPole-v1"].greedy.shape, len(comparison.improvements())
    ((1,), 1)
    >>> figure = comparison.figure(size=(6, 4))  # figure.savefig("curves.pdf")
    """
    if not isinstance(window, int | np.integer):
        raise TypeError(f"window: got {window!r} ({type(window).__name__}); expected an integer >= 1.")
    if window < 1:
        raise ValueError(f"window: got {window}; expected an integer >= 1.")
    if threshold is not None and not math.isfinite(threshold):
        raise ValueError(f"threshold: got {threshold}; expected a finite number.")
    if isinstance(group_by, str):
        raise TypeError(f"group_by: got the text {group_by!r}; expected a sequence of names, such as [{group_by!r}].")
    if labels is not None and not (
        isinstance(labels, Mapping) and all(isinstance(one, str) for one in labels.values())
    ):
        raise TypeError(f"labels: got {labels!r}; expected names of groups to texts, such as {{'none': 'no target'}}.")
    runs, notes = without_repeats(read_run(folder) for folder in run_folders(folders))
    groups = renamed(grouped(runs, group_by), labels or {})
    scores = {
        group: {environment: _scores(found, window) for environment, found in strata.items()}
        for group, strata in groups.items()
    }
    by_environment = [
        (group, environment, strata[environment])
        for environment in environments_of(scores)
        for group, strata in groups.items()
        if environment in strata
    ]
    rows = [_row(*one, scores[one[0]][one[1]], threshold, window) for one in by_environment]
    rows += [_row_over_all(group, strata, rows) for group, strata in scaled(scores).items()]
    curves = [curve for one in by_environment if (curve := _curve(*one, window))]
    notes = [*notes, *pooling_notes(groups), *run_notes(runs, threshold, window)]
    return Comparison(rows, curves, notes, threshold, window, scores, settings_of(groups, group_by))


def training_returns(steps: np.ndarray, returns: np.ndarray, ended_at: np.ndarray, window: int = RECENT) -> np.ndarray:
    """Training return at each of ``steps``: mean of the last ``window`` episodes that have ended by then.

    Args:
        steps: Environment steps, ``[P]``.
        returns: Returns of the episodes in the order in which they ended, ``[E]``.
        ended_at: Environment steps at which they ended, ``[E]``.
        window: Number of episodes.

    Returns:
        Means, ``[P]`` float64. If fewer than ``window`` episodes have ended, the mean is over these; if no episode has
        ended, it is NaN.

    >>> training_returns(np.array([0, 10, 25, 40]), np.array([1.0, 3.0, 8.0]), np.array([10, 20, 30]), window=2)
    array([nan, 1. , 2. , 5.5])
    """
    means = np.concatenate([[np.nan], running_mean(returns, window)])
    return means[np.searchsorted(ended_at, steps, side="right")]


def steps_to(threshold: float, returns: np.ndarray, ended_at: np.ndarray, window: int = RECENT) -> float:
    """First environment step at which the mean of the last ``window`` episodes is at least ``threshold``.

    The threshold cannot be reached before ``window`` episodes have ended, because a mean of few episodes is noisy.

    Args:
        threshold: Return.
        returns: Returns of the episodes in the order in which they ended, ``[E]``.
        ended_at: Environment steps at which they ended, ``[E]``.
        window: Number of episodes.

    Returns:
        Environment step; infinite if the threshold is not reached.

    >>> steps_to(5.0, np.array([9.0, 1.0, 3.0, 8.0, 0.0]), np.array([10, 20, 30, 40, 50]), window=2)
    20.0
    """
    reached = np.flatnonzero(running_mean(returns, window)[window - 1 :] >= threshold)
    return float(ended_at[window - 1 + reached[0]]) if len(reached) else math.inf


def _row(
    group: str, environment: str, runs: list[FoundRun], scores: Scores, threshold: float | None, window: int
) -> Row:
    ended = _ended(runs)
    evaluated = [run for run in ended if len(run.evaluated_at)]
    steps, greedy_steps = [], []
    if threshold is not None:
        steps = [steps_to(threshold, run.returns, run.ended_at, window) for run in ended]
        greedy_steps = [steps_to(threshold, run.evaluations, run.evaluated_at, window=1) for run in evaluated]
    return Row(
        group,
        environment,
        seeds=len(ended),
        unfinished=len(runs) - len(ended) - _diverged(runs),
        training=_summary([scores.training]),
        greedy=_summary([scores.greedy]),
        steps_to_threshold=float(np.median(steps)) if steps else math.nan,
        reached=sum(map(math.isfinite, steps)),
        evaluated=len(evaluated),
        greedy_steps_to_threshold=float(np.median(greedy_steps)) if greedy_steps else math.nan,
        greedy_reached=sum(map(math.isfinite, greedy_steps)),
        diverged=_diverged(runs),
    )


def _row_over_all(group: str, strata: Mapping[str, Scores], rows: Sequence[Row]) -> Row:
    of_group = [row for row in rows if row.group == group]
    return Row(
        group,
        ALL,
        seeds=sum(row.seeds for row in of_group),
        unfinished=sum(row.unfinished for row in of_group),
        training=_summary([scores.training for scores in strata.values()]),
        greedy=_summary([scores.greedy for scores in strata.values()]),
        diverged=sum(row.diverged for row in of_group),
    )


def _summary(strata: Sequence[np.ndarray]) -> Summary:
    return Summary(*(estimate(strata, statistic) for statistic in STATISTICS))


def _scores(runs: Iterable[FoundRun], window: int) -> Scores:
    ended = _ended(runs)
    at_the_end = [training_returns(np.array(np.inf), run.returns, run.ended_at, window) for run in ended]
    return Scores(np.array(at_the_end, np.float64), np.array([run.greedy for run in ended], np.float64))


def _ended(runs: Iterable[FoundRun]) -> list[FoundRun]:
    return [run for run in runs if run.greedy is not None]


def _diverged(runs: Iterable[FoundRun]) -> int:
    return sum(run.diverged is not None for run in runs)


def _curve(group: str, environment: str, runs: list[FoundRun], window: int) -> Curve | None:
    runs = [run for run in runs if len(run.returns) and run.diverged is None]
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
