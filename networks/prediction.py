"""Prediction of later features from features and actions: the latent transition model of self-prediction."""

from collections.abc import Callable, Mapping, Sequence
from typing import Any, Literal, NamedTuple, get_args

import haiku as hk
import jax
import jax.numpy as jnp

from ._checks import check_choice, check_positive
from .conv import Conv2D
from .dense import Activation, DenseLayers, activation_fn

TransitionName = Literal["linear", "mlp", "conv"]
ProjectionName = Literal["none", "streams", "shared"]
Step = Callable[[jax.Array, jax.Array], jax.Array]

_LEAST_RANGE = 1e-5  # of the features of an observation that are scaled
_KERNEL = 3
# Layers of a head that features are projected by.
_PROJECTED_BY: Mapping[str, tuple[str, ...]] = {
    "none": (),
    "streams": ("head/value/~/linear_0", "head/advantage/~/linear_0"),
    "shared": ("head/mlp/~/linear_0",),
}


class LatentTransition(hk.Module):  # type: ignore[misc]
    """Model of one step in the space of features: from ``z_tm1`` and ``a_tm1`` to ``z_t``.

    - ``linear``: a matrix without a bias; one for each action where ``action_conditional`` (Khetarpal et al., 2025,
      equations of BYOL-Pi and BYOL-AC).
    - ``mlp``: dense layers on the features and, where ``action_conditional``, the action as a one-hot vector (Ni et
      al., 2024).
    - ``conv``: two convolutions of 3x3 on the map of features and, where ``action_conditional``, a plane of ones or
      zeros for each action, each followed by a ReLU (Schwarzer et al., 2021, without their batch normalization).

    Args:
        num_actions: Number of actions ``A``, at least 1.
        transition: Name of the model.
        hidden_sizes: Units of each hidden layer of the mlp.
        activation: Name of the activation after each of them, see ``activation_fn``.
        action_conditional: Whether the model sees the action.
        feature_map: Shape ``(H, W, C)`` that the features of ``conv`` are a flat map of, see
            :func:`feature_map_shape`.
        normalize: Whether the predicted features are scaled to [0, 1], see :func:`normalize_features`.
        name: Name of the module.

    Raises:
        TypeError: If a number is of another type.
        ValueError: If a number is out of its range, a name is unknown, or ``conv`` has no map; when it is applied, if
            the features are no map of that shape.

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
        feature_map: tuple[int, int, int] | None = None,
        normalize: bool = False,
        name: str | None = "transition",
    ) -> None:
        super().__init__(name=name)
        check_positive("num_actions", num_actions)
        check_choice("transition", transition, get_args(TransitionName))
        if transition == "conv" and feature_map is None:
            raise ValueError("feature_map: got None with transition='conv'; expected (H, W, C). See feature_map_shape.")
        self.num_actions = num_actions
        self.transition = transition
        self.hidden_sizes = tuple(hidden_sizes)
        self.activation = activation_fn(activation)
        self.action_conditional = action_conditional
        self.feature_map = feature_map
        self.normalize = normalize

    def __call__(self, features: jax.Array, action: jax.Array) -> jax.Array:
        """Map features ``[B, D]`` and actions ``[B]`` to features ``[B, D]``."""
        model = {"linear": self._linear, "mlp": self._mlp, "conv": self._conv}[self.transition]
        predicted = model(features, action)
        return normalize_features(predicted) if self.normalize else predicted

    @hk.transparent  # type: ignore[untyped-decorator]
    def _linear(self, features: jax.Array, action: jax.Array) -> jax.Array:
        size = features.shape[-1]
        initial = hk.initializers.TruncatedNormal(size**-0.5)
        w = hk.get_parameter("w", (self.num_actions if self.action_conditional else 1, size, size), init=initial)
        every = jnp.einsum("bd,ade->bae", features, w)
        chosen = action if self.action_conditional else jnp.zeros_like(action)
        return jnp.take_along_axis(every, chosen[:, None, None], axis=1)[:, 0]

    @hk.transparent  # type: ignore[untyped-decorator]
    def _mlp(self, features: jax.Array, action: jax.Array) -> jax.Array:
        layers = DenseLayers((*self.hidden_sizes, features.shape[-1]), self.activation)
        out: jax.Array = layers(jnp.concatenate([features, *self._one_hot(action)], axis=-1))
        return out

    @hk.transparent  # type: ignore[untyped-decorator]
    def _conv(self, features: jax.Array, action: jax.Array) -> jax.Array:
        assert self.feature_map is not None
        height, width, channels = self.feature_map
        if features.shape[-1] != height * width * channels:
            raise ValueError(
                f"features: got {features.shape[-1]} of an observation; expected a map of {self.feature_map}, which "
                f"has {height * width * channels}. Leave no dense layer between the convolutions and the head."
            )
        maps = features.reshape(-1, height, width, channels)
        planes = [
            jnp.broadcast_to(hot[:, None, None], (*maps.shape[:3], self.num_actions)) for hot in self._one_hot(action)
        ]
        for number in range(2):
            # A convolution of XLA is several times slower in a loop on CPU; the model is applied in one.
            layer = Conv2D(channels, _KERNEL, padding="SAME", lowering="patches", name=f"conv_{number}")
            maps = jax.nn.relu(layer(jnp.concatenate([maps, *planes], axis=-1) if number == 0 else maps))
        return maps.reshape(features.shape)

    @hk.transparent  # type: ignore[untyped-decorator]
    def _one_hot(self, action: jax.Array) -> list[jax.Array]:
        return [jax.nn.one_hot(action, self.num_actions)] if self.action_conditional else []


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


def normalize_features(features: jax.Array) -> jax.Array:
    """Scale the features ``[B, D]`` of each observation to [0, 1], by their smallest and their largest.

    Schwarzer et al., 2021; the small number that keeps a constant map finite is ours.

    Example:
        >>> import jax.numpy as jnp
        >>> from polyak import networks
        >>> networks.normalize_features(jnp.array([[2.0, 4.0, 3.0], [1.0, 1.0, 1.0]])).round(3).tolist()
        [[0.0, 1.0, 0.5], [0.0, 0.0, 0.0]]
    """
    lowest = jnp.min(features, axis=-1, keepdims=True)
    highest = jnp.max(features, axis=-1, keepdims=True)
    return (features - lowest) / (highest - lowest + _LEAST_RANGE)


class Projection(NamedTuple):
    """Projection of features by layers of the head, and the predictor of projections.

    Attributes:
        size: Number of units ``P``.
        project: ``(params, features [..., D]) -> [..., P]``; the layers' noise is left out.
        predictor: ``projections [..., P] -> [..., P]``, a linear layer; called inside ``hk.transform``.
    """

    size: int
    project: Callable[[Any, jax.Array], jax.Array]
    predictor: Callable[[jax.Array], jax.Array]


def make_projection(projection: ProjectionName, size: int) -> Projection | None:
    """Make the projection of a name; None for ``none``.

    Args:
        projection: ``streams`` for the first layers of both streams of a dueling head, side by side (Schwarzer et al.,
            2021), ``shared`` for the hidden layer of the head (Schwarzer et al., 2023), before their activations.
        size: Number of units of a layer.

    >>> make_projection("streams", 8).size
    16
    """
    names = projected_by(projection)
    if not names:
        return None

    def project(params: Any, features: jax.Array) -> jax.Array:
        layers = [params[name] for name in names]
        projected = [features @ layer["w"] for layer in layers]
        biases = [jnp.broadcast_to(layer["b"], out.shape) for layer, out in zip(layers, projected, strict=True)]
        return jnp.concatenate([out + bias for out, bias in zip(projected, biases, strict=True)], axis=-1)

    def predictor(projections: jax.Array) -> jax.Array:
        out: jax.Array = hk.Linear(projections.shape[-1], name="predictor")(projections)
        return out

    return Projection(size * len(names), project, predictor)


def projected_by(projection: ProjectionName) -> tuple[str, ...]:
    """Names of the modules of a head that features are projected by; none for ``none``.

    >>> projected_by("shared")
    ('head/mlp/~/linear_0',)
    """
    check_choice("projection", projection, _PROJECTED_BY)
    return _PROJECTED_BY[projection]
