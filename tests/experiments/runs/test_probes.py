"""Probes: accuracies on data whose answer is known, and the same ones as a reference's."""

import numpy as np
import pytest

from polyak.experiments.runs import probes
from polyak.experiments.runs.probes import few_labels, probe


def clusters(count, width=5, classes=3, noise=0.3, seed=0):
    generator = np.random.default_rng(seed)
    labels = np.arange(count) % classes
    return np.eye(width)[labels] * 2 + generator.normal(0, noise, (count, width)), labels


def test_clusters_are_told_apart_and_noise_is_not():
    (train, labels), (test, test_labels) = clusters(120), clusters(60, seed=1)
    assert min(probe(train, labels, test, test_labels).values()) > 0.95
    shuffled = np.random.default_rng(0).permutation(labels)
    assert max(probe(train, shuffled, test, test_labels).values()) < 0.6


def test_scale_and_offset_of_all_features_change_nothing():
    (train, labels), (test, test_labels) = clusters(90, noise=1.2), clusters(60, noise=1.2, seed=1)
    found = probe(train, labels, test, test_labels)
    assert probe(100 * train + 7, labels, 100 * test + 7, test_labels) == found
    assert probe(train * 0, labels, test * 0, test_labels)["probe/linear"] == pytest.approx(1 / 3)


def test_the_regression_is_that_of_scikit_learn():
    linear = pytest.importorskip("sklearn.linear_model", reason='the extra images: pip install ".[images]"')
    (train, labels), (test, _) = clusters(30, 40, noise=2.0), clusters(200, 40, noise=2.0, seed=1)
    theirs = linear.LogisticRegression(C=1.0, max_iter=1000).fit(train, labels).predict(test)
    assert (probes._classify(train, labels, test) == theirs).mean() > 0.99


def test_the_nearest_are_the_nearest():
    train, labels = np.arange(12.0)[:, None], np.repeat([0, 1], 6)
    found = probes._nearest(train, labels, np.array([[0.0], [4.4], [6.6], [20.0]]))
    assert found.tolist() == [0, 0, 1, 1]


def test_few_labels_are_ten_of_each_class_and_differ_between_draws():
    labels = np.repeat([0, 1], [30, 40])
    draws = list(few_labels(labels))
    assert [np.bincount(labels[rows]).tolist() for rows in draws] == [[10, 10]] * 5
    assert len({tuple(rows) for rows in draws}) == 5
    np.testing.assert_array_equal(draws, list(few_labels(labels)))
