"""Heads: layers over features ``[B, D]``, and the action values of seven kinds of heads.

The layers of a head compute ``M`` outputs for each action, ``[B, A, M]``: directly from the features, or as the sum of
a value stream and an advantage stream (dueling). Functions convert these outputs to a ``ValueOutput``.
"""

from collections.abc import Sequence
from typing import Any, Literal, NamedTuple

import haiku as hk
import jax
import jax.numpy as jnp
import numpy as np

from ._checks import check_positive, check_sizes
from .dense import Activation, DenseLayers, activation_fn, linear

HeadName = Literal["q", "categorical", "hl_gauss", "quantile", "implicit_quantile", "ensemble", "iterated"]

_NUM_COSINES = 64


class ValueOutput(NamedTuple):
    """Output of an action-value network: the action values, and the distribution or ensemble behind them; all float32.

    A field that the head does not have is ``()``.

    Attributes:
        q_values: Action values ``[B, A]``.
        atoms: Returns ``[M]``, ascending, whose probabilities ``logits`` define: the atoms of a categorical head, or
            the bin centres of an hl_gauss head.
        logits: Unnormalized log-probabilities of the atoms, ``[B, A, M]``.
        quantiles: Quantiles of the return at the fractions ``taus``, ``[B, M, A]``.
        taus: Quantile fractions in [0, 1], ``[B, M]``.
        members: Action values of each ensemble member, ``[B, K, A]``; of heads 0 to ``K`` of an iterated head,
            ``[B, K + 1, A]``.

    Example:
        >>> import jax.numpy as jnp
        >>> from polyak import networks
        >>> networks.ValueOutput(q_values=jnp.asarray([[1.0, 3.0, 2.0]])).q_values.argmax(axis=-1).tolist()
        [1]
    """

    q_values: jax.Array
    atoms: Any = ()
    logits: Any = ()
    quantiles: Any = ()
    taus: Any = ()
    members: Any = ()


def _support(self: hk.Module) -> jax.Array:
    """Range of returns in the module state of a head, ``[2]``, initialized to zeros."""
    del self  # Only Haiku reads it, for the name scope of the head.
    bounds: jax.Array = hk.get_state("support", [2], jnp.float32, init=jnp.zeros)
    return bounds


class LinearHead(hk.Module):  # type: ignore[misc]  # Haiku's types are not followed.
    """Linear head: ``M`` outputs for each action, after optional hidden layers, each followed by the activation.

    Args:
        num_actions: Number of actions ``A``, at least 1.
        num_outputs: Number of outputs ``M`` for each action, at least 1.
        hidden_sizes: Number of units of each hidden layer.
        activation: Name of the activation function of the hidden layers, see ``activation_fn``.
        noisy_sigma: Initial scale of the noise of all layers, see ``NoisyLinear``; None for no noise.
        output_name: Name of the output layer.
        name: Name of the module.

    Raises:
        TypeError: If ``num_actions``, ``num_outputs`` or a hidden size is not an integer.
        ValueError: If one of these is below 1, or the activation is unknown.

    Example:
        >>> import haiku as hk, jax, jax.numpy as jnp
        >>> from polyak import networks
        >>> head = hk.without_apply_rng(hk.transform(lambda x: networks.LinearHead(3)(x)))
        >>> params = head.init(jax.random.key(0), jnp.ones([1, 16]))
        >>> head.apply(params, jnp.ones([8, 16])).shape
        (8, 3, 1)
    """

    def __init__(
        self,
        num_actions: int,
        num_outputs: int = 1,
        hidden_sizes: Sequence[int] = (),
        activation: Activation = "relu",
        noisy_sigma: float | None = None,
        output_name: str = "q_values",
        name: str | None = "head",
    ) -> None:
        super().__init__(name=name)
        _check_layers(num_actions, num_outputs, hidden_sizes)
        self.shape = (num_actions, num_outputs)
        self.hidden_sizes = tuple(hidden_sizes)
        self.activation = activation_fn(activation)
        self.noisy_sigma = noisy_sigma
        self.output_name = output_name

    def __call__(self, features: jax.Array) -> jax.Array:
        """Map features ``[..., D]`` to ``[..., A, M]``."""
        sigmas = [self.noisy_sigma] * len(self.hidden_sizes)
        hidden = DenseLayers(self.hidden_sizes, self.activation, sigmas, activate_final=True)(features)
        num_actions, num_outputs = self.shape
        out = linear(num_actions * num_outputs, self.noisy_sigma, self.output_name)(hidden)
        return jnp.reshape(out, (*features.shape[:-1], *self.shape))

    support = _support


class DuelingHead(hk.Module):  # type: ignore[misc]
    """Dueling head: the sum of a value stream and an advantage stream.

    The output is ``value + advantage - mean(advantage)``. The mean is over the actions and makes value and advantage
    identifiable. If there are several outputs for each action (logits of atoms), the formula applies to each of them.
    The rescaling of gradients below the two streams in the first paper is not implemented.

    Reference:
        Wang et al., "Dueling network architectures for deep reinforcement learning", ICML 2016, equation 9; Hessel et
        al., "Rainbow: combining improvements in deep reinforcement learning", AAAI 2018, for distributions.

    Args:
        num_actions: Number of actions ``A``, at least 1.
        num_outputs: Number of outputs ``M`` for each action, at least 1.
        hidden_sizes: Number of units of each hidden layer of a stream; may be empty. The paper uses one layer of 512.
        activation: Name of the activation function of the hidden layers, see ``activation_fn``.
        noisy_sigma: Initial scale of the noise of all layers, see ``NoisyLinear``; None for no noise.
        shared_sizes: Number of units of each hidden layer before the streams, shared by both.
        name: Name of the module.

    Raises:
        TypeError: If ``num_actions``, ``num_outputs`` or a hidden size is not an integer.
        ValueError: If one of these is below 1, or the activation is unknown.

    Example:
        >>> import haiku as hk, jax, jax.numpy as jnp
        >>> from polyak import networks
        >>> head = hk.without_apply_rng(hk.transform(lambda x: networks.DuelingHead(3)(x)))
        >>> params = head.init(jax.random.key(0), jnp.ones([1, 16]))
        >>> params["head/value/~/linear_0"]["b"] = jnp.asarray([5.0])
        >>> params["head/advantage/~/linear_0"]["b"] = jnp.asarray([1.0, 2.0, 3.0])
        >>> head.apply(params, jnp.zeros([1, 16])).tolist()
        [[[4.0], [5.0], [6.0]]]
    """

    def __init__(
        self,
        num_actions: int,
        num_outputs: int = 1,
        hidden_sizes: Sequence[int] = (),
        activation: Activation = "relu",
        noisy_sigma: float | None = None,
        shared_sizes: Sequence[int] = (),
        name: str | None = "head",
    ) -> None:
        super().__init__(name=name)
        _check_layers(num_actions, num_outputs, (*shared_sizes, *hidden_sizes))
        self.shape = (num_actions, num_outputs)
        self.hidden_sizes = tuple(hidden_sizes)
        self.shared_sizes = tuple(shared_sizes)
        self.activation = activation_fn(activation)
        self.noisy_sigma = noisy_sigma

    def __call__(self, features: jax.Array) -> jax.Array:
        """Map features ``[..., D]`` to ``[..., A, M]``."""
        num_actions, num_outputs = self.shape
        batch = features.shape[:-1]
        shared_sigmas = [self.noisy_sigma] * len(self.shared_sizes)
        sigmas = [self.noisy_sigma] * (len(self.hidden_sizes) + 1)
        features = DenseLayers(self.shared_sizes, self.activation, shared_sigmas, activate_final=True)(features)

        def stream(size: int, name: str) -> jax.Array:
            layers = DenseLayers((*self.hidden_sizes, size), self.activation, sigmas, name=name)
            return jnp.reshape(layers(features), (*batch, size // num_outputs, num_outputs))

        value = stream(num_outputs, "value")
        advantage = stream(num_actions * num_outputs, "advantage")
        return value + advantage - jnp.mean(advantage, axis=-2, keepdims=True)

    support = _support


class CosineEmbedding(hk.Module):  # type: ignore[misc]
    """Cosine embedding of quantile fractions: ``relu(linear(cos(pi * i * tau)))`` for ``i`` from 0 to 63.

    Reference:
        Dabney et al., "Implicit quantile networks for distributional reinforcement learning", ICML 2018, equation 4.

    Args:
        output_size: Number of features ``D``, at least 1.
        name: Name of the module.

    Raises:
        TypeError: If ``output_size`` is not an integer.
        ValueError: If ``output_size`` is below 1.

    Example:
        >>> import haiku as hk, jax, jax.numpy as jnp
        >>> from polyak import networks
        >>> embedding = hk.without_apply_rng(hk.transform(lambda taus: networks.CosineEmbedding(16)(taus)))
        >>> params = embedding.init(jax.random.key(0), jnp.ones([1, 2]))
        >>> embedding.apply(params, jnp.asarray([[0.25, 0.75]])).shape
        (1, 2, 16)
    """

    def __init__(self, output_size: int, name: str | None = "embedding") -> None:
        super().__init__(name=name)
        check_positive("output_size", output_size)
        self.output_size = output_size

    def __call__(self, taus: jax.Array) -> jax.Array:
        """Map fractions ``[B, M]`` to features ``[B, M, D]``."""
        frequencies = jnp.broadcast_to(np.pi * jnp.arange(_NUM_COSINES), (*taus.shape, _NUM_COSINES))
        cosines = jnp.cos(frequencies * taus[..., None])
        return jax.nn.relu(hk.Linear(self.output_size, name="linear")(cosines))


def midpoints(num_quantiles: int) -> jax.Array:
    """Midpoints of ``M`` equal intervals of [0, 1], ``[M]`` float32 (Dabney et al., 2018a, lemma 2).

    >>> midpoints(4).tolist()
    [0.125, 0.375, 0.625, 0.875]
    """
    return jnp.asarray((np.arange(num_quantiles) + 0.5) / num_quantiles, jnp.float32)


def make_atoms(head: HeadName, num_atoms: int, v_min: float, v_max: float) -> jax.Array:
    """Atoms of a categorical head from ``v_min`` to ``v_max``, or bin centres of an hl_gauss head; ``[M]`` float32.

    >>> make_atoms("categorical", 5, -1.0, 1.0).tolist()
    [-1.0, -0.5, 0.0, 0.5, 1.0]
    >>> make_atoms("hl_gauss", 4, -1.0, 1.0).tolist()
    [-0.75, -0.25, 0.25, 0.75]
    """
    edges = np.linspace(v_min, v_max, num_atoms + (head == "hl_gauss"))
    atoms = (edges[1:] + edges[:-1]) / 2 if head == "hl_gauss" else edges
    return jnp.asarray(atoms, jnp.float32)


def atoms_of_support(head: HeadName, num_atoms: int, support: jax.Array) -> jax.Array:
    """Atoms as in :func:`make_atoms`, for a support array ``[v_min, v_max]``.

    >>> atoms_of_support("categorical", 3, jnp.asarray([-1.0, 5.0])).tolist()
    [-1.0, 2.0, 5.0]
    """
    fractions = make_atoms(head, num_atoms, 0.0, 1.0)
    return support[0] * (1.0 - fractions) + support[1] * fractions


def plain_output(numbers: jax.Array) -> ValueOutput:
    """Value output of the action values ``[B, A, 1]``."""
    return ValueOutput(q_values=numbers[..., 0])


def categorical_output(logits: jax.Array, atoms: jax.Array) -> ValueOutput:
    """Value output of the logits ``[B, A, M]`` of the atoms; the action values are the expected returns.

    >>> categorical_output(jnp.zeros([1, 1, 2]), jnp.asarray([0.0, 4.0])).q_values.tolist()
    [[2.0]]
    """
    weighted = jax.nn.softmax(logits, axis=-1) * jnp.broadcast_to(atoms, logits.shape)
    return ValueOutput(q_values=jnp.sum(weighted, axis=-1), atoms=atoms, logits=logits)


def quantile_output(quantiles: jax.Array, taus: jax.Array) -> ValueOutput:
    """Value output of the quantiles ``[B, M, A]`` at the fractions ``[B, M]``; the action values are their means.

    >>> quantile_output(jnp.asarray([[[1.0], [2.0], [6.0]]]), midpoints(3)[None]).q_values.tolist()
    [[3.0]]
    """
    return ValueOutput(q_values=jnp.mean(quantiles, axis=-2), quantiles=quantiles, taus=taus)


def ensemble_output(members: jax.Array) -> ValueOutput:
    """Value output of the ensemble members' action values ``[B, K, A]``; the action values are their means.

    >>> ensemble_output(jnp.asarray([[[1.0, 0.0], [3.0, 0.0]]])).q_values.tolist()
    [[2.0, 0.0]]
    """
    return ValueOutput(q_values=jnp.mean(members, axis=-2), members=members)


def iterated_output(heads: jax.Array) -> ValueOutput:
    """Value output of the action values ``[B, K + 1, A]`` of a chain of heads; the action values are means of 1 to K.

    >>> iterated_output(jnp.asarray([[[9.0, 9.0], [1.0, 0.0], [3.0, 0.0]]])).q_values.tolist()
    [[2.0, 0.0]]
    """
    return ValueOutput(q_values=jnp.mean(heads[:, 1:], axis=-2), members=heads)


def _check_layers(num_actions: Any, num_outputs: Any, hidden_sizes: Any) -> None:
    check_positive("num_actions", num_actions)
    check_positive("num_outputs", num_outputs)
    check_sizes("hidden_sizes", hidden_sizes)
