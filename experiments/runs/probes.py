"""Probes of features: accuracy of simple classifiers on the features of a frozen encoder.

All probes use features that are centered by the mean and divided by one scale, computed on the training images. The
scale is one number for all features, so their relative sizes do not change.
"""

from collections.abc import Iterator

import numpy as np

LABELS = 10  # labels of each class, for the probe with few labels
DRAWS = 5  # random subsets over which the accuracy of this probe is averaged
NEIGHBOURS = 5
_PENALTY = 1.0  # weight of half the squared weights, added to the sum of the cross-entropies
_ITERATIONS = 200
_ROWS = 512  # rows compared with all training rows at a time


def probe(train: np.ndarray, train_labels: np.ndarray, test: np.ndarray, test_labels: np.ndarray) -> dict[str, float]:
    """Accuracy of each probe on the test images.

    Args:
        train: ``[N, D]``, features of the training images.
        train_labels: ``[N]``, labels counted from 0.
        test: ``[M, D]``, features of the test images.
        test_labels: ``[M]``, labels.

    Returns:
        ``probe/few_labels``: logistic regression on 10 images of each class, mean over 5 subsets; ``probe/linear``: on
        all training images; ``probe/knn``: majority label of the 5 nearest training images.

    >>> features, labels = np.array([[0.0, 1.0], [1.0, 0.0]] * 10), np.array([0, 1] * 10)
    >>> probe(features, labels, features, labels)
    {'probe/few_labels': 1.0, 'probe/linear': 1.0, 'probe/knn': 1.0}
    """
    train, test = _scaled(train, test)
    few = [
        _accuracy(_classify(train[rows], train_labels[rows], test), test_labels) for rows in few_labels(train_labels)
    ]
    return {
        "probe/few_labels": float(np.mean(few)),
        "probe/linear": _accuracy(_classify(train, train_labels, test), test_labels),
        "probe/knn": _accuracy(_nearest(train, train_labels, test), test_labels),
    }


def few_labels(labels: np.ndarray) -> Iterator[np.ndarray]:
    """Rows of 5 random subsets with 10 images of each class, or all if a class has fewer; deterministic.

    >>> [len(rows) for rows in few_labels(np.repeat([0, 1, 2], [4, 20, 20]))]
    [24, 24, 24, 24, 24]
    """
    for draw in range(DRAWS):
        generator = np.random.default_rng(draw)
        yield np.concatenate(
            [generator.permutation(np.flatnonzero(labels == label))[:LABELS] for label in np.unique(labels)]
        )


def _scaled(train: np.ndarray, test: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    train, test = train.astype(np.float64), test.astype(np.float64)
    mean = train.mean(axis=0)
    scale = np.sqrt(np.mean((train - mean) ** 2)) or 1.0
    return (train - mean) / scale, (test - mean) / scale


def _classify(features: np.ndarray, labels: np.ndarray, test: np.ndarray) -> np.ndarray:
    """Predict the labels of test images by multinomial logistic regression."""
    from scipy.optimize import minimize

    classes, width = int(labels.max()) + 1, features.shape[1]
    wanted = np.eye(classes)[labels]

    def loss(flat: np.ndarray) -> tuple[float, np.ndarray]:
        weights = flat.reshape(width + 1, classes)
        logits = features @ weights[:-1] + weights[-1]
        logits -= logits.max(axis=1, keepdims=True)
        log_sum = np.log(np.exp(logits).sum(axis=1, keepdims=True))
        error = np.exp(logits - log_sum) - wanted
        gradient = np.concatenate([features.T @ error + _PENALTY * weights[:-1], error.sum(axis=0, keepdims=True)])
        value = np.sum(wanted * (log_sum - logits)) + _PENALTY / 2 * np.sum(weights[:-1] ** 2)
        return float(value), gradient.reshape(-1)

    start = np.zeros((width + 1) * classes)
    found = minimize(loss, start, jac=True, method="L-BFGS-B", options={"maxiter": _ITERATIONS}).x
    weights = found.reshape(width + 1, classes)
    predicted: np.ndarray = np.argmax(test @ weights[:-1] + weights[-1], axis=1)
    return predicted


def _nearest(features: np.ndarray, labels: np.ndarray, test: np.ndarray) -> np.ndarray:
    """Majority label of the nearest neighbours by Euclidean distance; ties go to the smallest label."""
    squares, count = np.sum(features**2, axis=1), min(NEIGHBOURS, len(features))
    found = []
    for start in range(0, len(test), _ROWS):
        distances = squares - 2 * test[start : start + _ROWS] @ features.T
        nearest = labels[np.argpartition(distances, count - 1, axis=1)[:, :count]]
        found += [np.argmax(np.bincount(row)) for row in nearest]
    return np.array(found)


def _accuracy(predicted: np.ndarray, labels: np.ndarray) -> float:
    return float(np.mean(predicted == labels))
