"""Heads: modules that read action values from features, ``[B, D]``; each returns a NamedTuple."""

from collections.abc import Sequence
from typing import NamedTuple

import haiku as hk
import jax
import jax.numpy as jnp

from ._checks import check_positive, check_sizes
from .torsos import Activation, activation_fn


class QOutput(NamedTuple):
    """What a head of plain action values returns.

    Attributes:
        q_values: ``[B, A]`` float32, the value of each of the ``A`` actions.

    Example:
        >>> import jax.numpy as jnp
        >>> from polyak import networks
        >>> networks.QOutput(q_values=jnp.asarray([[1.0, 3.0, 2.0]])).q_values.argmax(axis=-1).tolist()
        [1]
    """

    q_values: jax.Array


class QHead(hk.Module):  # type: ignore[misc]  # Haiku's types are not followed.
    """Action values linear in the features.

    Args:
        num_actions: number of actions ``A``, at least 1.
        name: name of the module.

    Raises:
        TypeError: if ``num_actions`` is no integer.
        ValueError: if it is below 1.

    Example:
        >>> import haiku as hk, jax, jax.numpy as jnp
        >>> from polyak import networks
        >>> head = hk.without_apply_rng(hk.transform(lambda x: networks.QHead(3)(x)))
        >>> params = head.init(jax.random.key(0), jnp.ones([1, 16]))
        >>> head.apply(params, jnp.ones([8, 16])).q_values.shape
        (8, 3)
    """

    def __init__(self, num_actions: int, name: str | None = "head") -> None:
        super().__init__(name=name)
        check_positive("num_actions", num_actions)
        self.num_actions = num_actions

    def __call__(self, features: jax.Array) -> QOutput:
        """Takes features ``[B, D]`` to values ``[B, A]``."""
        return QOutput(q_values=hk.Linear(self.num_actions, name="q_values")(features))


class DuelingHead(hk.Module):  # type: ignore[misc]
    """Action values as the value of the state and the advantage of each action, from a stream of layers each.

    ``q = value + advantage - mean(advantage)``: taking the mean off makes the two identifiable. The rescaling of
    gradients that the paper applies below the two streams is left out.

    Reference:
        Wang et al., "Dueling network architectures for deep reinforcement learning", ICML 2016, equation 9.

    Args:
        num_actions: number of actions ``A``, at least 1.
        hidden_sizes: units of each hidden layer of a stream; may be empty. The paper's have one, of 512.
        activation: name of the activation of the hidden layers, see ``activation_fn``.
        name: name of the module.

    Raises:
        TypeError: if ``num_actions`` or a hidden size is no integer.
        ValueError: if one of them is below 1, or the activation is unknown.

    Example:
        >>> import haiku as hk, jax, jax.numpy as jnp
        >>> from polyak import networks
        >>> head = hk.without_apply_rng(hk.transform(lambda x: networks.DuelingHead(3)(x)))
        >>> params = head.init(jax.random.key(0), jnp.ones([1, 16]))
        >>> params["head/value/~/linear_0"]["b"] = jnp.asarray([5.0])
        >>> params["head/advantage/~/linear_0"]["b"] = jnp.asarray([1.0, 2.0, 3.0])
        >>> head.apply(params, jnp.zeros([1, 16])).q_values.tolist()
        [[4.0, 5.0, 6.0]]
    """

    def __init__(
        self,
        num_actions: int,
        hidden_sizes: Sequence[int] = (),
        activation: Activation = "relu",
        name: str | None = "head",
    ) -> None:
        super().__init__(name=name)
        check_positive("num_actions", num_actions)
        check_sizes("hidden_sizes", hidden_sizes)
        self.num_actions = num_actions
        self.hidden_sizes = tuple(hidden_sizes)
        self.activation = activation_fn(activation)

    def __call__(self, features: jax.Array) -> QOutput:
        """Takes features ``[B, D]`` to values ``[B, A]``."""
        value = hk.nets.MLP((*self.hidden_sizes, 1), activation=self.activation, name="value")(features)
        sizes = (*self.hidden_sizes, self.num_actions)
        advantage = hk.nets.MLP(sizes, activation=self.activation, name="advantage")(features)
        return QOutput(q_values=value + advantage - jnp.mean(advantage, axis=-1, keepdims=True))
