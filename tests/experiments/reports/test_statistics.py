"""Statistics over runs: by hand, and against all resamples and loops over pairs."""

import itertools
import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.stats import mannwhitneyu

from polyak.experiments.reports import statistics
from polyak.experiments.reports.statistics import (
    STATISTICS,
    estimate,
    performance_profile,
    probability_of_improvement,
)


def numbers(found):
    return tuple(float(number) for number in found)


def by_definition(scores, statistic):
    """Trimmed mean in plain Python, the median as that of the middle one or two."""
    count = len(scores)
    out = {"iqm": count // 4, "mean": 0, "median": (count - 1) // 2}[statistic]
    kept = sorted(scores)[out : count - out]
    return sum(kept) / len(kept)


def resamples(strata):
    """Every draw with replacement within each stratum, pooled in order of the strata."""
    return itertools.product(*(itertools.product(scores, repeat=len(scores)) for scores in strata))


def assert_interval_of(found, values):
    """``found`` has the percentiles of ``values``; 1 % to either side is allowed, as one value has many draws."""
    around = np.percentile(values, [2.0, 3.0, 97.0, 98.0], method="inverted_cdf")
    assert around[0] <= found.low <= around[1]
    assert around[2] <= found.high <= around[3]


STRATA = pytest.mark.parametrize(
    "strata",
    [
        [[1.0, 2.0, 10.0]],
        [[3.0, 1.0, 10.0, 4.0]],
        [[3.0, 1.0, 10.0], [5.0, 7.0]],
        [[0.0, 1.0], [2.0, 5.0], [3.0, 9.0]],
    ],
    ids=["three seeds", "four", "two environments", "three environments"],
)


class TestEstimate:
    def test_by_hand(self):
        scores = np.array([70.0, 1.0, 5.0, 2.0, -90.0, 4.0, 3.0, 60.0])
        assert float(estimate([scores]).value) == (2 + 3 + 4 + 5) / 4
        assert float(estimate([scores], "mean").value) == 55 / 8
        assert float(estimate([scores], "median").value) == (3 + 4) / 2
        assert float(estimate([np.array([1.0, 2.0, 9.0])]).value) == 4.0  # a quarter of three is none
        assert float(estimate([np.array([1.0, 2.0, 9.0])], "median").value) == 2.0
        assert float(estimate([np.array([1.0, 2.0, 9.0, 2.5, 100.0])]).value) == 4.5  # and of five one

    @pytest.mark.parametrize("statistic", STATISTICS)
    @STRATA
    def test_the_interval_is_that_of_all_resamples(self, strata, statistic):
        found = estimate([np.array(scores) for scores in strata], statistic)
        assert float(found.value) == pytest.approx(by_definition(list(itertools.chain(*strata)), statistic))
        assert_interval_of(
            found, [by_definition(list(itertools.chain(*draw)), statistic) for draw in resamples(strata)]
        )

    def test_seeds_are_drawn_within_their_environment(self):
        strata = [np.zeros(5), np.full(5, 10.0)]
        assert numbers(estimate(strata)) == (5.0, 5.0, 5.0)
        _, low, high = estimate([np.concatenate(strata)])
        assert low < 5 < high

    def test_one_seed_has_no_interval_and_no_seed_no_number(self):
        assert np.array_equal(numbers(estimate([np.array([3.0])])), (3.0, math.nan, math.nan), equal_nan=True)
        assert np.isnan(estimate([np.array([3.0]), np.array([3.0, 5.0])]).low)
        assert np.isnan(numbers(estimate([np.array([])]))).all()
        assert np.isnan(numbers(estimate([np.array([1.0, math.nan, 2.0])]))).all()

    def test_the_same_scores_give_the_same_interval(self):
        scores = np.random.default_rng(0).normal(size=(7, 3))
        for ours, again in zip(estimate([scores], resamples=50), estimate([scores], resamples=50), strict=True):
            assert ours.shape == (3,)
            assert ours.tolist() == again.tolist()

    def test_many_scores_are_resampled_in_batches(self, monkeypatch):
        monkeypatch.setattr(statistics, "BATCH", 30)
        assert_interval_of(
            estimate([np.array([1.0, 2.0, 10.0])]), [sum(draw[0]) / 3 for draw in resamples([[1, 2, 10]])]
        )

    def test_an_unknown_statistic_is_an_error(self):
        with pytest.raises(ValueError, match="statistic: got 'mode'; expected one of iqm, mean, median"):
            estimate([np.ones(3)], "mode")


class TestPerformanceProfile:
    def test_by_hand(self):
        found = performance_profile([np.array([1.0, 3.0]), np.array([2.0, 2.0])], np.array([0.0, 1.0, 2.0, 2.5, 3.0]))
        assert found.value.tolist() == [1.0, 0.75, 0.25, 0.25, 0.0]  # above, and not equal
        assert (found.low[0], found.high[0], found.low[-1], found.high[-1]) == (1.0, 1.0, 0.0, 0.0)
        assert (found.low[2], found.high[2]) == (0.0, 0.5)  # of the first environment none, one or both are drawn

    @STRATA
    def test_the_band_is_that_of_all_resamples(self, strata):
        thresholds = np.array([1.5, 4.0])
        found = performance_profile([np.array(scores) for scores in strata], thresholds)
        for number, threshold in enumerate(thresholds):
            drawn = [np.mean([score > threshold for score in itertools.chain(*draw)]) for draw in resamples(strata)]
            assert_interval_of(type(found)(*(part[number] for part in found)), drawn)

    def test_undefined(self):
        assert np.isnan(performance_profile([np.array([1.0, math.nan])], np.zeros(2)).value).all()
        one = performance_profile([np.array([1.0])], np.array([0.0, 1.0]))
        assert (one.value.tolist(), np.isnan(one.low).all()) == ([1.0, 0.0], True)


SCORES = st.lists(st.integers(-3, 3).map(float), min_size=1, max_size=6).map(np.array)


class TestProbabilityOfImprovement:
    def test_by_hand(self):
        better = [np.array([3.0, 5.0]), np.array([1.0, 1.0])]
        worse = [np.array([1.0, 3.0]), np.array([2.0, 0.0, 1.0])]
        # 1, 1/2, 1, 1 and 0, 1, 1/2 twice: 7/8 and 1/2.
        assert float(probability_of_improvement(better, worse).value) == (7 / 8 + 1 / 2) / 2
        found = probability_of_improvement([np.array([5.0, 6.0])], [np.array([1.0, 2.0])])
        assert numbers(found) == (1.0, 1.0, 1.0)

    @pytest.mark.parametrize(
        ("x", "y"),
        [
            ([[1.0, 4.0]], [[2.0, 4.0, 0.0]]),
            ([[1.0, 4.0], [2.0, 3.0]], [[2.0, 4.0], [5.0, 2.5]]),
        ],
        ids=["one environment", "two"],
    )
    def test_the_interval_is_that_of_all_resamples(self, x, y):
        def probability(one, other):
            return np.mean([(a > b) + 0.5 * (a == b) for a in one for b in other])

        drawn = [
            np.mean([probability(*pair) for pair in zip(*both, strict=True)])
            for both in itertools.product(resamples(x), resamples(y))
        ]
        found = probability_of_improvement([np.array(one) for one in x], [np.array(one) for one in y])
        assert_interval_of(found, drawn)

    @given(SCORES, SCORES)
    @settings(deadline=None, max_examples=50)
    def test_it_is_the_u_statistic_and_that_of_the_other_is_its_complement(self, x, y):
        found, other = (probability_of_improvement([a], [b], resamples=20).value for a, b in ((x, y), (y, x)))
        assert float(found) == pytest.approx(mannwhitneyu(x, y, method="asymptotic").statistic / (len(x) * len(y)))
        assert float(found + other) == pytest.approx(1.0)

    def test_environments_have_the_same_weight_and_must_be_the_same(self):
        many, few = np.zeros(9), np.ones(1)
        assert float(probability_of_improvement([many, few], [many + 1, few - 1]).value) == 0.5
        with pytest.raises(ValueError, match="y: got 1 environments and 2 for x"):
            probability_of_improvement([many, few], [many])
        assert np.isnan(numbers(probability_of_improvement([few], [many[:0]]))).all()
        assert np.isnan(probability_of_improvement([few], [many]).low)
