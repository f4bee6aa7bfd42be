"""The words suffice: what follows acts as each network does, and takes every name and number from them."""

import re
from typing import Any, get_args

import jax
import numpy as np
import pytest

from network_tools import KEY, random_floats, random_params, unroll
from polyak import networks

SMALL: Any = {"num_atoms": 5, "v_min": -1.5, "v_max": 4.0, "num_quantiles": 3, "num_members": 2, "prior_scale": 2.5}
SMALL["num_iterations"] = 2
NUMBER = r"(-?[\d.]+)"


def layers_in(words: str) -> dict[str, str]:
    """The layers that are named with their sizes, in their order."""
    return dict(re.findall(r"([\w/~]+) \((\d+(?: of \d+x\d+)?)", words))


def found(pattern: str, words: str) -> list[float]:
    match = re.search(pattern, words)
    assert match, (pattern, words)
    return [float(number.rstrip(".")) for number in match.groups()]


class Rebuilt:
    """The network in NumPy, float64, for one observation."""

    def __init__(self, words: str, arrays: Any) -> None:
        self.words, self.arrays = words, {name: jax.tree.map(np.float64, leaves) for name, leaves in arrays.items()}
        self.names = list(layers_in(words))
        self.between = np.tanh if "followed by tanh" in words or "with tanh between" in words else relu

    def linear(self, x: Any, name: str) -> Any:
        return x @ self.arrays[name]["w"] + self.arrays[name]["b"]

    def stack(self, x: Any, stem: str, prefix: str, last: bool) -> Any:
        names = [name for name in self.names if name.startswith(f"{stem}/~/")]
        for index, name in enumerate(names):
            x = self.linear(x, prefix + name)
            x = self.between(x) if last or index < len(names) - 1 else x
        return x

    def features(self, x: Any, prefix: str) -> Any:
        convolutions = [name for name in self.names if "conv" in name]
        if "Three sections" in self.words:
            for section in range(3):
                conv, *blocks = (prefix + name for name in convolutions if f"section_{section}" in name)
                x = maximum(self.convolve(around(x, 1, 1, 0.0), conv))
                for first, second in (blocks[:2], blocks[2:]):
                    inner = self.convolve(around(relu(x), 1, 1, 0.0), first)
                    x = x + self.convolve(around(relu(inner), 1, 1, 0.0), second)
            x = relu(x)
        else:
            for name in convolutions:
                (stride,) = found(rf"{name} \(\d+ of \dx\d, stride (\d)\)", self.words)
                if "zeros after the input" in self.words:
                    x = around(x, np.array(x.shape[:2]) % 2, 1, 0.0)
                x = self.convolve(x, prefix + name)[:: int(stride), :: int(stride)]
                if "layer normalization" in self.words:
                    (added,) = found(rf"sqrt\(v \+ {NUMBER}\)", self.words)
                    norm = self.arrays[(prefix + name).replace("conv2_d", "layer_norm")]
                    x = (x - x.mean()) / np.sqrt(x.var() + added) * norm["scale"] + norm["offset"]
                x = relu(x)
        x = self.stack(x.ravel(), "torso/mlp", prefix, last=True)
        if "min(x)" in self.words:
            (small,) = found(rf"max\(x\) - min\(x\) \+ {NUMBER}", self.words)
            x = (x - x.min()) / (x.max() - x.min() + small)
        return x

    def convolve(self, x: Any, name: str) -> Any:
        w, b = self.arrays[name]["w"], self.arrays[name]["b"]
        height, width = x.shape[0] - w.shape[0] + 1, x.shape[1] - w.shape[1] + 1
        return b + sum(x[i : i + height, j : j + width] @ w[i, j] for i in range(w.shape[0]) for j in range(w.shape[1]))

    def numbers(self, x: Any, prefix: str = "") -> Any:
        """What the head's layers give, [rows, columns] where the words say so."""
        shape = re.search(r"reshaped in C order to \[(\d+), (\d+)\]", self.words)
        if "Two streams" in self.words:
            x = self.stack(x, "head/mlp", prefix, last=True)
            value, advantage = (
                self.stack(x, f"head/{stream}", prefix, last=False) for stream in ("value", "advantage")
            )
            if shape:
                advantage = advantage.reshape([int(size) for size in shape.groups()])
            return value + advantage - advantage.mean(axis=0)
        out = self.linear(self.stack(x, "head/mlp", prefix, last=True), prefix + self.names[-1])
        return out.reshape([int(size) for size in shape.groups()]) if shape else out

    def q_values(self, observation: Any) -> Any:
        x = np.float64(observation) / (255 if observation.dtype == np.uint8 else 1)
        return self.values(self.features(x, ""), x)

    def values(self, features: Any, x: Any) -> Any:
        words = self.words
        if "fractions tau" in words:
            count, middle, slices = found(rf"each of (\d+) fractions tau, \(i \+ {NUMBER}\) / (\d+)", words)
            (last,) = found(r"cos\(pi \* j \* tau\), for j from 0 to (\d+)", words)
            quantiles = []
            for tau in (np.arange(count) + middle) / slices:
                embedded = relu(self.linear(np.cos(np.pi * np.arange(last + 1) * tau), "embedding/linear"))
                quantiles.append(self.numbers(features * embedded))
            return np.mean(quantiles, axis=0)
        numbers = self.numbers(features)
        if "the mean of its quantiles" in words:
            return numbers.mean(axis=1)
        if "softmax" in words:
            probabilities = np.exp(numbers) / np.exp(numbers).sum(axis=1, keepdims=True)
            if "centres" in words:
                count, low, high = found(rf"centres of (\d+) equal bins that divide {NUMBER} to {NUMBER}", words)
                atoms = low + (high - low) * (np.arange(count) + 0.5) / count
            else:
                count, low, high = found(rf"(\d+) evenly spaced returns from {NUMBER} to {NUMBER}", words)
                atoms = np.linspace(low, high, int(count))
            return probabilities @ atoms
        if "mean over the members" in words:
            if "prior/" in words:
                (scale,) = found(rf"added: {NUMBER} times", words)
                numbers = numbers + scale * self.numbers(self.features(x, "prior/"), "prior/")
            return numbers.mean(axis=0)
        if "mean over all heads but the first" in words:
            return numbers[1:].mean(axis=0)
        return numbers


def size_of(w: Any) -> str:
    *kernel, _, out = w.shape
    return f"{out} of {kernel[0]}x{kernel[1]}" if kernel else str(out)


def relu(x: Any) -> Any:
    return np.maximum(x, 0)


def around(x: Any, before: Any, after: Any, value: float) -> Any:
    before, after = np.broadcast_to(before, 2), np.broadcast_to(after, 2)
    return np.pad(x, [(before[0], after[0]), (before[1], after[1]), (0, 0)], constant_values=value)


def maximum(x: Any) -> Any:
    sides = np.array(x.shape[:2])
    padded = around(x, sides % 2, 1, -np.inf)
    height, width = -(-sides // 2)
    return np.array(
        [[padded[2 * i : 2 * i + 3, 2 * j : 2 * j + 3].max(axis=(0, 1)) for j in range(width)] for i in range(height)]
    )


def cases() -> list[Any]:
    given = []
    for head in get_args(networks.HeadName):
        for dueling, noisy in ((False, False), (True, False), (False, True), (True, True)):
            if head not in ("ensemble", "iterated") or not (dueling or noisy):
                given.append({"head": head, "dueling": dueling, "noisy": noisy})
    for torso in ("nature", "impala", "minatar", "small"):
        given.append({"torso": torso})
    given += [{"torso": "minatar", "head": "implicit_quantile"}, {"torso": "minatar", "head": "ensemble"}]
    given += [{"head": "ensemble", "prior_scale": 0.0}, {"hidden_sizes": (5,), "dueling": True}]
    given += [{"torso": torso, "torso_width": 2} for torso in ("nature", "impala", "minatar", "small")]
    given += [{"projection": "shared", "dueling": dueling, "normalize": True} for dueling in (False, True)]
    given += [{"projection": "shared", "head": "ensemble"}, {"projection": "streams", "dueling": True}]
    return [pytest.param(case, id="-".join(f"{key}={value}" for key, value in case.items() if value)) for case in given]


@pytest.mark.parametrize("case", cases())
def test_numpy_acts_by_the_words_alone(case: Any) -> None:
    arguments = {"torso": "mlp", "hidden_sizes": (6, 5), "activation": "tanh", **SMALL} | case
    words = networks.value_network_in_words(3, **arguments)
    net = networks.value_network(3, **arguments)
    sides = {"nature": (37, 41, 2), "impala": (6, 9, 2), "minatar": (4, 5, 2), "small": (5, 6, 2), "mlp": (2, 2)}[
        arguments["torso"]
    ]
    observations = random_floats(2, *sides)
    if arguments["torso"] != "mlp":
        observations = np.random.default_rng(0).integers(0, 256, size=(2, *sides)).astype(np.uint8)
    params = random_params(net, observations)
    assert layers_in(words) == {
        name: size_of(leaves["w"])
        for name, leaves in params.items()
        if not name.startswith(("prior/", "embedding/")) and "layer_norm" not in name
    }
    expected = jax.jit(net.apply)(params, None, observations).q_values
    rebuilt = Rebuilt(words, params)
    for observation, row in zip(observations, expected, strict=True):
        np.testing.assert_allclose(rebuilt.q_values(observation), row, rtol=1e-4, atol=1e-5)


def test_the_arguments_are_those_of_the_network() -> None:
    """Whoever has an export builds either from the same arguments: an unknown one is an error in both."""
    arguments = {"torso": "mlp", "hidden_sizes": [6], "noisy_sigma": 0.1, "activation": "gelu", **SMALL}
    assert "gelu (its tanh approximation)" in networks.value_network_in_words(3, **arguments)
    params = jax.eval_shape(networks.value_network(3, **arguments).init, KEY, np.zeros([1, 2], np.float32))
    assert params.keys() == {"torso/mlp/~/linear_0", "head/q_values"}


@pytest.mark.parametrize(("head", "dueling"), [("q", True), *((head, False) for head in get_args(networks.HeadName))])
def test_numpy_unrolls_by_the_words_alone(head: str, dueling: bool) -> None:
    arguments = {"torso": "mlp", "hidden_sizes": (6,), "activation": "tanh", "head": head, "dueling": dueling}
    arguments |= {"lstm_size": 4, **SMALL}
    words = networks.value_network_in_words(3, **arguments)
    net = networks.make_network(3, **arguments)
    rng = np.random.default_rng(0)
    observations, a_tm1, r_tm1 = rng.normal(size=(1, 5, 2)).astype(np.float32), [[2, 1, 0, 0, 2]], [[9.0, 1, -1, 0, 2]]
    first = np.array([[True, False, False, True, False]])
    shapes, _ = jax.eval_shape(net.init, KEY, observations[:, 0])
    params = jax.tree.map(lambda leaf: rng.normal(size=leaf.shape).astype(np.float32), shapes)
    inputs = (observations, np.int32(a_tm1), np.float32(r_tm1), first, net.initial_recurrent_state(1))
    expected = unroll(net, params, *inputs)[0].q_values[0]
    rebuilt = Rebuilt(words, params)
    (size,) = found(r"two vectors of (\d+)", words)
    h = c = np.zeros(int(size))
    for t in range(5):
        h, c = h * ~first[0, t], c * ~first[0, t]
        before = np.eye(3)[a_tm1[0][t]] * ~first[0, t]
        x = np.concatenate([rebuilt.features(np.float64(observations[0, t]), ""), before, [r_tm1[0][t] * ~first[0, t]]])
        i, g, f, o = np.split(rebuilt.linear(np.concatenate([x, h]), "lstm/linear"), 4)
        c = sigmoid(f + 1) * c + sigmoid(i) * np.tanh(g)
        h = sigmoid(o) * np.tanh(c)
        np.testing.assert_allclose(rebuilt.values(h, observations[0, t]), expected[t], rtol=1e-4, atol=1e-5)


def sigmoid(x: Any) -> Any:
    return 1 / (1 + np.exp(-x))
