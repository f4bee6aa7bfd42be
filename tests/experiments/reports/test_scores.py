"""Scores by group and environment: scaled, as profiles, in pairs."""

import math

import numpy as np
import pytest

from polyak.experiments.reports.scores import (
    PROFILE_POINTS,
    Scores,
    improvements,
    profiles,
    scaled,
)
from polyak.experiments.reports.statistics import performance_profile, probability_of_improvement


def scores_of(*returns):
    """Training returns, and the same doubled as greedy returns."""
    return Scores(np.array(returns, np.float64), 2 * np.array(returns, np.float64))


@pytest.fixture
def scores():
    """Groups x and y in two environments, z in one of them."""
    return {
        "y": {"e": scores_of(0.0, 10.0), "f": scores_of(-4.0, -4.0)},
        "x": {"e": scores_of(5.0, 20.0), "f": scores_of(-2.0, -3.0)},
        "z": {"f": scores_of(-6.0, -5.0)},
    }


def test_scaled_by_all_groups_for_those_that_are_complete(scores):
    found = scaled(scores)
    assert list(found) == ["y", "x"]
    assert found["x"]["e"].training.tolist() == [0.25, 1.0]
    assert found["y"]["f"].greedy.tolist() == [0.5, 0.5]  # z's -12 is 0
    assert scaled({"y": scores["y"], "z": scores["z"]}) == {}  # one complete group has none to be told from
    equal = scaled({"y": {"e": scores_of(3.0), "f": scores_of(1.0)}, "x": {"e": scores_of(3.0), "f": scores_of(2.0)}})
    assert (math.isnan(equal["x"]["e"].training[0]), equal["x"]["f"].training[0]) == (True, 1.0)


def test_profiles_of_each_environment_and_over_all(scores):
    found = {(profile.environment, profile.measure, profile.group): profile for profile in profiles(scores)}
    assert list(dict.fromkeys(environment for environment, _, _ in found)) == ["e", "f", "all"]
    assert [group for environment, measure, group in found if (environment, measure) == ("f", "greedy")] == [
        "y",
        "x",
        "z",
    ]
    x = found["e", "training", "x"]
    assert x.thresholds.tolist() == [-1.0, 0.0, 5.0, 10.0, 20.0]  # 5 % of the spread below the lowest
    assert x.fraction.value.tolist() == [1.0, 1.0, 0.5, 0.5, 0.0]
    assert x.seeds == 2
    over_all = found["all", "greedy", "x"]
    strata = [scaled(scores)["x"][environment].greedy for environment in ("e", "f")]
    assert over_all.fraction.value.tolist() == performance_profile(strata, over_all.thresholds).value.tolist()
    assert over_all.seeds == 4


def test_a_profile_has_no_more_thresholds_than_a_curve_has_points():
    many = {"x": {"e": scores_of(*range(300))}}
    training, _ = profiles(many)
    assert training.thresholds.shape == (PROFILE_POINTS,)
    assert np.array_equal(training.fraction.value, [np.mean(np.arange(300) > t) for t in training.thresholds])


def test_groups_without_a_finished_run_or_a_return_have_no_profile():
    found = profiles({"x": {"e": scores_of()}, "y": {"e": scores_of(1.0, math.nan)}, "z": {"e": scores_of(3.0)}})
    assert [profile.group for profile in found] == ["z", "z"]
    assert profiles({"x": {"e": scores_of()}}) == []


def test_each_pair_is_compared_once_and_the_average_has_complete_groups(scores):
    found = improvements(scores)
    assert [(row.group, row.over, row.environment) for row in found] == [
        ("y", "x", "e"),
        ("y", "x", "f"),
        ("y", "z", "f"),
        ("x", "z", "f"),
        ("y", "x", "all"),
    ]
    assert float(found[0].training.value) == 0.25
    assert float(found[2].greedy.value) == 1.0
    y, x = ([scores[group][environment].training for environment in ("e", "f")] for group in ("y", "x"))
    assert found[-1].training == probability_of_improvement(y, x)
    assert float(found[-1].training.value) == (0.25 + 0.0) / 2
