"""Scores of finished runs by group and environment: scaled, as performance profiles, and pairwise improvements."""

import itertools
from collections.abc import Mapping
from typing import Literal, NamedTuple, get_args

import numpy as np

from .statistics import Estimate, performance_profile, probability_of_improvement

ALL = "all"  # in the place of an environment: over all of them
SCALED = f"{ALL}: each environment's returns scaled from 0, its lowest run here, to 1, its highest."
PROFILE_RESAMPLES = 1_000
PROFILE_POINTS = 200

Measure = Literal["training", "greedy"]
MEASURES: tuple[Measure, ...] = get_args(Measure)


class Scores(NamedTuple):
    """Scores of the finished runs of a group in one environment.

    Attributes:
        training: Training returns at the end, ``[runs]`` float64.
        greedy: Mean greedy returns of the final evaluations, ``[runs]`` float64.
    """

    training: np.ndarray
    greedy: np.ndarray


ScoresByGroup = Mapping[str, Mapping[str, Scores]]  # by group, by environment


class Profile(NamedTuple):
    """Performance profile of a group in one environment or over all.

    Attributes:
        group: Label of the group.
        environment: Environment id, or ``all`` for the scaled scores of :func:`scaled`.
        measure: Score, ``training`` or ``greedy``.
        seeds: Number of runs.
        thresholds: Thresholds τ in ascending order, ``[P]`` float64. They are the distinct scores of all groups in the
            environment and one threshold below them, or 200 evenly spaced thresholds if there are more.
        fraction: Fraction of runs with a score above each threshold, ``[P]``; a step function that is constant between
            two thresholds.
    """

    group: str
    environment: str
    measure: Measure
    seeds: int
    thresholds: np.ndarray
    fraction: Estimate


class Improvement(NamedTuple):
    """Probability that a run of one group has a higher score than a run of another.

    Attributes:
        group: Label of group X.
        over: Label of group Y.
        environment: Environment id, or ``all`` for the average over environments.
        training: Probability for the training returns at the end, scalar arrays.
        greedy: Probability for the mean greedy returns, scalar arrays.
    """

    group: str
    over: str
    environment: str
    training: Estimate
    greedy: Estimate


def environments_of(scores: ScoresByGroup) -> list[str]:
    """Environments of all groups, in the order of their first group."""
    return list(dict.fromkeys(environment for strata in scores.values() for environment in strata))


def complete_groups(scores: ScoresByGroup) -> list[str]:
    """Labels of the groups with runs in all environments; empty for fewer than two groups or environments."""
    environments = environments_of(scores)
    complete = [group for group, strata in scores.items() if set(strata) == set(environments)]
    return complete if len(environments) > 1 and len(complete) > 1 else []


def scaled(scores: ScoresByGroup) -> dict[str, dict[str, Scores]]:
    r"""Scores of the complete groups, scaled in each environment.

    A score :math:`x` becomes :math:`(x - l) / (h - l)`, where :math:`l` and :math:`h` are the lowest and the highest
    score of all groups in the environment. It is NaN if :math:`l = h`.

    >>> found = scaled({"a": {"e": Scores(np.array([1.0, 3.0]), np.array([5.0, 5.0])), "f": Scores(*np.ones((2, 1)))},
    ...                 "b": {"e": Scores(np.array([2.0]), np.array([6.0])), "f": Scores(*np.zeros((2, 1)))}})
    >>> found["a"]["e"].training, found["b"]["e"].greedy
    (array([0., 1.]), array([1.]))
    """
    complete = complete_groups(scores)
    found: dict[str, dict[str, Scores]] = {group: {} for group in complete}
    for environment in environments_of(scores) if complete else []:
        compared = np.concatenate(
            [np.stack(strata[environment]) for strata in scores.values() if environment in strata], axis=1
        )
        low = np.min(compared, axis=1, keepdims=True, initial=np.inf)
        high = np.max(compared, axis=1, keepdims=True, initial=-np.inf)
        spread = np.where(high > low, high - low, np.nan)
        for group in complete:
            found[group][environment] = Scores(*((np.stack(scores[group][environment]) - low) / spread))
    return found


def profiles(scores: ScoresByGroup) -> list[Profile]:
    """Performance profiles of each environment, and over all environments, for each measure and group."""
    found = []
    over_all = {group: list(strata.values()) for group, strata in scaled(scores).items()}
    strata_of = {
        environment: {group: [strata[environment]] for group, strata in scores.items() if environment in strata}
        for environment in environments_of(scores)
    }
    for environment, groups in [*strata_of.items(), *([(ALL, over_all)] if over_all else [])]:
        for measure in MEASURES:
            chosen = {group: [getattr(one, measure) for one in strata] for group, strata in groups.items()}
            chosen = {group: x for group, x in chosen.items() if all(len(one) and not np.isnan(one).any() for one in x)}
            if not chosen:
                continue
            thresholds = _thresholds(np.concatenate([one for x in chosen.values() for one in x]))
            for group, x in chosen.items():
                fraction = performance_profile(x, thresholds, resamples=PROFILE_RESAMPLES)
                found.append(Profile(group, environment, measure, sum(map(len, x)), thresholds, fraction))
    return found


def improvements(scores: ScoresByGroup) -> list[Improvement]:
    """Probability of improvement of each group over each later one, by environment and averaged over all.

    The average has the pairs whose groups both have runs in all environments.
    """
    found = []
    for environment in environments_of(scores):
        for x, y in itertools.combinations([group for group, strata in scores.items() if environment in strata], 2):
            found.append(_improvement(scores, x, y, environment, [environment]))
    for x, y in itertools.combinations(complete_groups(scores), 2):
        found.append(_improvement(scores, x, y, ALL, environments_of(scores)))
    return found


def _improvement(scores: ScoresByGroup, x: str, y: str, name: str, environments: list[str]) -> Improvement:
    training, greedy = (
        probability_of_improvement(
            *([getattr(scores[group][environment], measure) for environment in environments] for group in (x, y))
        )
        for measure in MEASURES
    )
    return Improvement(x, y, name, training, greedy)


def _thresholds(scores: np.ndarray) -> np.ndarray:
    distinct = np.unique(scores)
    margin = 0.05 * (distinct[-1] - distinct[0]) or 1.0
    if len(distinct) < PROFILE_POINTS:
        return np.array([distinct[0] - margin, *distinct])
    return np.linspace(distinct[0] - margin, distinct[-1], PROFILE_POINTS)
