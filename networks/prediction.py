"""Prediction of later features from features and actions: the latent transition model of self-prediction."""

from collections.abc import Callable, Sequence
from typing import Literal, get_args

import haiku as hk
import jax
import jax.numpy as jnp

from ._checks import check_choice, check_positive
from .dense import Activation, DenseLayers, activation_fn

TransitionName = Literal["linear", "mlp"]
Step = Callable[[jax.Array, jax.Array], jax.Array]


class LatentTransition(hk.Module):  # type: ignore[misc]
    """Model of one step in the space of features: from ``z_tm1`` and ``a_tm1`` to ``z_t``.

    - ``linear``: a matrix without a bias; one for each action where ``action_conditional`` (Khetarpal et al., 2025,
      equations of BYOL-Pi and BYOL-AC).
    - ``mlp``: dense layers on the features and, where ``action_conditional``, the action as a one-hot vector (Ni et
      al., 2024).

    Args:
        num_actions: Number of actions ``A``, at least 1.
        transition: Name of the model.
        hidden_sizes: Units of each hidden layer of the mlp.
        activation: Name of the activation after each of them, see ``activation_fn``.
        action_conditional: Whether the model sees the action.
        name: Name of the module.

    Raises:
        TypeError: if a number is of another type.
        ValueError: if a number is out of its range, or a name is unknown.

    Example:
        >>> import haiku as hk, jax, jax.numpy as jnp
        >>> from polyak import networks
        >>> step = hk.transform(lambda z, a: networks.LatentTransition(2, "linear")(z, a))
        >>> params = step.init(jax.random.key(0), jnp.ones([8, 4]), jnp.zeros([8], int))
        >>> jax.tree.map(jnp.shape, params)
        {'transition': {'w': (2, 4, 4)}}
    """

    def __init__(
        self,
        num_actions: int,
        transition: TransitionName,
        hidden_sizes: Sequence[int] = (),
        activation: Activation = "relu",
        action_conditional: bool = True,
        name: str | None = "transition",
    ) -> None:
        super().__init__(name=name)
        check_positive("num_actions", num_actions)
        check_choice("transition", transition, get_args(TransitionName))
        self.num_actions = num_actions
        self.transition = transition
        self.hidden_sizes = tuple(hidden_sizes)
        self.activation = activation_fn(activation)
        self.action_conditional = action_conditional

    def __call__(self, features: jax.Array, action: jax.Array) -> jax.Array:
        """Takes features ``[B, D]`` and actions ``[B]`` to features ``[B, D]``."""
        size = features.shape[-1]
        if self.transition == "mlp":
            one_hot = [jax.nn.one_hot(action, self.num_actions)] if self.action_conditional else []
            layers = DenseLayers((*self.hidden_sizes, size), self.activation)
            out: jax.Array = layers(jnp.concatenate([features, *one_hot], axis=-1))
            return out
        initial = hk.initializers.TruncatedNormal(size**-0.5)
        w = hk.get_parameter("w", (self.num_actions if self.action_conditional else 1, size, size), init=initial)
        every = jnp.einsum("bd,ade->bae", features, w)
        chosen = action if self.action_conditional else jnp.zeros_like(action)
        return jnp.take_along_axis(every, chosen[:, None, None], axis=1)[:, 0]


def unroll_transition(step: Step, features: jax.Array, actions: jax.Array) -> jax.Array:
    """Apply a model of one step again and again; called inside ``hk.transform``.

    Args:
        step: ``(features [B, D], action [B]) -> features [B, D]``.
        features: ``[B, D]``.
        actions: ``[B, K]`` int32.

    Returns:
        ``[B, K, D]``, the features after each action.

    Example:
        >>> import haiku as hk, jax.numpy as jnp
        >>> from polyak import networks
        >>> double = hk.transform(lambda z, a: networks.unroll_transition(lambda z, a: 2 * z, z, a))
        >>> double.apply({}, None, jnp.ones([1, 1]), jnp.zeros([1, 3], int)).tolist()
        [[[2.0], [4.0], [8.0]]]
    """
    first = step(features, actions[:, 0])
    if actions.shape[1] == 1:
        return first[:, None]
    _, later = hk.scan(lambda z, a: (step(z, a),) * 2, first, jnp.swapaxes(actions[:, 1:], 0, 1))
    return jnp.concatenate([first[:, None], jnp.swapaxes(later, 0, 1)], axis=1)
