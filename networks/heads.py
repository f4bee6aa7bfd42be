"""Heads: what is read from features, ``[B, D]``, and what the six kinds of action values make of it.

A head's layers give ``M`` numbers of each action, ``[B, A, M]``, straight from the features or as the sum of a stream
for the state and one for the advantages; functions then read a ``ValueOutput`` from the numbers.
"""

from collections.abc import Sequence
from typing import Any, Literal, NamedTuple

import haiku as hk
import jax
import jax.numpy as jnp
import numpy as np

from ._checks import check_positive, check_sizes
from .dense import Activation, DenseLayers, activation_fn, linear

HeadName = Literal["q", "categorical", "hl_gauss", "quantile", "implicit_quantile", "ensemble"]

_NUM_COSINES = 64


class ValueOutput(NamedTuple):
    """What a network of action values returns: the values, and what its head takes them from; all float32.

    Attributes:
        q_values: ``[B, A]``, the value of each of the ``A`` actions.
        atoms: ``[M]``, the returns that ``logits`` are of, ascending: those of a categorical head, or the centres of
            the bins of an hl_gauss one; else ``()``.
        logits: ``[B, A, M]``, the unnormalised log-probabilities of the atoms; else ``()``.
        quantiles: ``[B, M, A]``, the returns at the fractions ``taus`` of their distribution; else ``()``.
        taus: ``[B, M]``, those fractions, in [0, 1]; else ``()``.
        members: ``[B, K, A]``, the values of each member of an ensemble; else ``()``.

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
    """Range of returns in the module state of a head, ``[2]``; zeros at first."""
    del self  # Haiku enters the head's scope.
    bounds: jax.Array = hk.get_state("support", [2], jnp.float32, init=jnp.zeros)
    return bounds


class LinearHead(hk.Module):  # type: ignore[misc]  # Haiku's types are not followed.
    """Numbers of each action, linear in the features, or in those of hidden layers that each have an activation.

    Args:
        num_actions: number of actions ``A``, at least 1.
        num_outputs: numbers ``M`` of each action, at least 1.
        hidden_sizes: units of each hidden layer before the linear one.
        activation: name of the activation of the hidden layers, see ``activation_fn``.
        noisy_sigma: initial scale of the noise of all layers, see ``NoisyLinear``; None for plain ones.
        output_name: name of the linear layer.
        name: name of the module.

    Raises:
        TypeError: if ``num_actions``, ``num_outputs`` or a hidden size is no integer.
        ValueError: if one of them is below 1, or the activation is unknown.

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
        """Takes features ``[..., D]`` to ``[..., A, M]``."""
        sigmas = [self.noisy_sigma] * len(self.hidden_sizes)
        hidden = DenseLayers(self.hidden_sizes, self.activation, sigmas, activate_final=True)(features)
        num_actions, num_outputs = self.shape
        out = linear(num_actions * num_outputs, self.noisy_sigma, self.output_name)(hidden)
        return jnp.reshape(out, (*features.shape[:-1], *self.shape))

    support = _support


class DuelingHead(hk.Module):  # type: ignore[misc]
    """Numbers of each action as that of the state and the advantage of each action, from a stream of layers each.

    ``value + advantage - mean(advantage)``, the mean being over the actions: taking it off makes the two identifiable.
    Of several numbers, such as the logits of atoms, each is taken by itself. The rescaling of gradients that the first
    paper applies below the two streams is left out.

    Reference:
        Wang et al., "Dueling network architectures for deep reinforcement learning", ICML 2016, equation 9; Hessel et
        al., "Rainbow: combining improvements in deep reinforcement learning", AAAI 2018, for distributions.

    Args:
        num_actions: number of actions ``A``, at least 1.
        num_outputs: numbers ``M`` of each action, at least 1.
        hidden_sizes: units of each hidden layer of a stream; may be empty. The paper's have one, of 512.
        activation: name of the activation of the hidden layers, see ``activation_fn``.
        noisy_sigma: initial scale of the noise of all layers, see ``NoisyLinear``; None for plain ones.
        shared_sizes: Units of each hidden layer that both streams share, before their own; each has an activation.
        name: name of the module.

    Raises:
        TypeError: if ``num_actions``, ``num_outputs`` or a hidden size is no integer.
        ValueError: if one of them is below 1, or the activation is unknown.

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
        """Takes features ``[..., D]`` to ``[..., A, M]``."""
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
    """Features of fractions: ``relu(linear(cos(pi * i * tau)))``, for ``i`` of 0 to 63.

    Reference:
        Dabney et al., "Implicit quantile networks for distributional reinforcement learning", ICML 2018, equation 4.

    Args:
        output_size: number of features ``D``, at least 1.
        name: name of the module.

    Raises:
        TypeError: if ``output_size`` is no integer.
        ValueError: if it is below 1.

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
        """Takes fractions ``[B, M]`` to features ``[B, M, D]``."""
        frequencies = jnp.broadcast_to(np.pi * jnp.arange(_NUM_COSINES), (*taus.shape, _NUM_COSINES))
        cosines = jnp.cos(frequencies * taus[..., None])
        return jax.nn.relu(hk.Linear(self.output_size, name="linear")(cosines))


def midpoints(num_quantiles: int) -> jax.Array:
    """The middles of that many equal slices of [0, 1], ``[M]`` float32: the fractions of Dabney et al., 2018a, lemma 2.

    >>> midpoints(4).tolist()
    [0.125, 0.375, 0.625, 0.875]
    """
    return jnp.asarray((np.arange(num_quantiles) + 0.5) / num_quantiles, jnp.float32)


def make_atoms(head: HeadName, num_atoms: int, v_min: float, v_max: float) -> jax.Array:
    """The returns that logits are of, ``[M]`` float32: ``v_min`` to ``v_max``, or the centres of bins between them.

    >>> make_atoms("categorical", 5, -1.0, 1.0).tolist()
    [-1.0, -0.5, 0.0, 0.5, 1.0]
    >>> make_atoms("hl_gauss", 4, -1.0, 1.0).tolist()
    [-0.75, -0.25, 0.25, 0.75]
    """
    edges = np.linspace(v_min, v_max, num_atoms + (head == "hl_gauss"))
    atoms = (edges[1:] + edges[:-1]) / 2 if head == "hl_gauss" else edges
    return jnp.asarray(atoms, jnp.float32)


def atoms_of_support(head: HeadName, num_atoms: int, support: jax.Array) -> jax.Array:
    """Atoms as in :func:`make_atoms`, for bounds ``[v_min, v_max]`` in an array.

    >>> atoms_of_support("categorical", 3, jnp.asarray([-1.0, 5.0])).tolist()
    [-1.0, 2.0, 5.0]
    """
    fractions = make_atoms(head, num_atoms, 0.0, 1.0)
    return support[0] * (1.0 - fractions) + support[1] * fractions


def plain_output(numbers: jax.Array) -> ValueOutput:
    """Reads ``[B, A, 1]`` as the values themselves."""
    return ValueOutput(q_values=numbers[..., 0])


def categorical_output(logits: jax.Array, atoms: jax.Array) -> ValueOutput:
    """Reads ``[B, A, M]`` as logits of the atoms; the values are the means.

    >>> categorical_output(jnp.zeros([1, 1, 2]), jnp.asarray([0.0, 4.0])).q_values.tolist()
    [[2.0]]
    """
    weighted = jax.nn.softmax(logits, axis=-1) * jnp.broadcast_to(atoms, logits.shape)
    return ValueOutput(q_values=jnp.sum(weighted, axis=-1), atoms=atoms, logits=logits)


def quantile_output(quantiles: jax.Array, taus: jax.Array) -> ValueOutput:
    """Reads ``[B, M, A]`` as the quantiles at the fractions ``[B, M]``; the values are their means.

    >>> quantile_output(jnp.asarray([[[1.0], [2.0], [6.0]]]), midpoints(3)[None]).q_values.tolist()
    [[3.0]]
    """
    return ValueOutput(q_values=jnp.mean(quantiles, axis=-2), quantiles=quantiles, taus=taus)


def ensemble_output(members: jax.Array) -> ValueOutput:
    """Reads ``[B, K, A]`` as the values of the members of an ensemble; the values are their means.

    >>> ensemble_output(jnp.asarray([[[1.0, 0.0], [3.0, 0.0]]])).q_values.tolist()
    [[2.0, 0.0]]
    """
    return ValueOutput(q_values=jnp.mean(members, axis=-2), members=members)


def _check_layers(num_actions: Any, num_outputs: Any, hidden_sizes: Any) -> None:
    check_positive("num_actions", num_actions)
    check_positive("num_outputs", num_outputs)
    check_sizes("hidden_sizes", hidden_sizes)
