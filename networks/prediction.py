"""Latent transition models of self-prediction: prediction of later features from features and actions."""

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

_LEAST_RANGE = 1e-5  # added to the range of the features in normalize_features
_KERNEL = 3
# Layers of a head that project features.
_PROJECTED_BY: Mapping[str, tuple[str, ...]] = {
    "none": (),
    "streams": ("head/value/~/linear_0", "head/advantage/~/linear_0"),
    "shared": ("head/mlp/~/linear_0",),
}


class LatentTransition(hk.Module):  # type: ignore[misc]
    """Latent transition model: from features ``z_tm1`` and action ``a_tm1`` to features ``z_t``.

    - ``linear``: matrix without a bias. If ``action_conditional``, one matrix for each action (Khetarpal et al., 2025,
      equations of BYOL-Pi and BYOL-AC).
    - ``mlp``: dense layers. If ``action_conditional``, the one-hot action is concatenated to the features (Ni et al.,
      2024).
    - ``conv``: two 3x3 convolutions over the feature map, each followed by a ReLU. If ``action_conditional``, a plane
      of ones or zeros for each action is concatenated to the feature map (Schwarzer et al., 2021, without their batch
      normalization).

    Args:
        num_actions: Number of actions ``A``, at least 1.
        transition: Name of the model.
        hidden_sizes: Number of units of each hidden layer of ``mlp``.
        activation: Name of the activation function after each hidden layer, see ``activation_fn``.
        action_conditional: Whether the model reads the action.
        feature_map: Shape ``(H, W, C)`` of the feature map of ``conv``, see :func:`feature_map_shape`; the features are
            the flattened map.
        normalize: Whether to scale the predicted features to [0, 1], see :func:`normalize_features`.
        name: Name of the module.

    Raises:
        TypeError: If a number has the wrong type.
        ValueError: If a number is out of range, a name is unknown, or ``conv`` has no ``feature_map``. When the module
            is applied, if the size of the features differs from that of ``feature_map``.

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
        """Map features ``[B, D]`` and actions ``[B]`` to the next features ``[B, D]``."""
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
                f"features: got {features.shape[-1]} features; expected {height * width * channels}, a map of shape "
                f"{self.feature_map}. Remove the dense layers between the convolutions and the head."
            )
        maps = features.reshape(-1, height, width, channels)
        planes = [
            jnp.broadcast_to(hot[:, None, None], (*maps.shape[:3], self.num_actions)) for hot in self._one_hot(action)
        ]
        for number in range(2):
            # The model is applied in a loop, where XLA's convolution is several times slower on CPU.
            layer = Conv2D(channels, _KERNEL, padding="SAME", lowering="patches", name=f"conv_{number}")
            maps = jax.nn.relu(layer(jnp.concatenate([maps, *planes], axis=-1) if number == 0 else maps))
        return maps.reshape(features.shape)

    @hk.transparent  # type: ignore[untyped-decorator]
    def _one_hot(self, action: jax.Array) -> list[jax.Array]:
        return [jax.nn.one_hot(action, self.num_actions)] if self.action_conditional else []


def unroll_transition(step: Step, features: jax.Array, actions: jax.Array) -> jax.Array:
    """Apply a one-step model ``K`` times; called inside ``hk.transform``.

    Args:
        step: Function ``(features [B, D], action [B]) -> features [B, D]``.
        features: Features ``[B, D]``.
        actions: Actions ``[B, K]`` int32.

    Returns:
        Features after each action, ``[B, K, D]``.

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
    """Scale the features ``[B, D]`` of each observation to [0, 1] by their minimum and maximum.

    As in Schwarzer et al., 2021; in addition, 1e-5 is added to the range, which keeps constant features finite.

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
    """Projection of features by layers of the head, and a predictor of projections.

    Attributes:
        size: Size ``P`` of a projection.
        project: Function ``(params, features [..., D]) -> projections [..., P]``, without the noise of noisy layers.
        predictor: Linear layer ``projections [..., P] -> predictions [..., P]``; called inside ``hk.transform``.
    """

    size: int
    project: Callable[[Any, jax.Array], jax.Array]
    predictor: Callable[[jax.Array], jax.Array]


def make_projection(projection: ProjectionName, size: int) -> Projection | None:
    """Make a projection by name; return None for ``none``.

    Args:
        projection: Name of the projection. ``streams``: the concatenated first layers of both streams of a dueling
            head (Schwarzer et al., 2021). ``shared``: the hidden layer of the head (Schwarzer et al., 2023). Both
            without the activation function.
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
    """Names of the modules of a head that project features; empty for ``none``.

    >>> projected_by("shared")
    ('head/mlp/~/linear_0',)
    """
    check_choice("projection", projection, _PROJECTED_BY)
    return _PROJECTED_BY[projection]
