"""Torsos: modules that take a batch of observations, ``[B, ...]``, to features, ``[B, D]``.

A torso knows nothing of what is read from its features; the heads do. Applied twice in one transform, a torso uses its
parameters twice.
"""

import math
from collections.abc import Callable, Sequence
from typing import Literal, get_args

import haiku as hk
import jax
import jax.numpy as jnp

from ._checks import check_choice, check_sizes
from .conv import Conv2D, Lowering

TorsoName = Literal["mlp", "nature"]
Activation = Literal["relu", "elu", "gelu", "silu", "tanh"]

_ACTIVATIONS: dict[str, Callable[[jax.Array], jax.Array]] = {
    "relu": jax.nn.relu,
    "elu": jax.nn.elu,
    "gelu": jax.nn.gelu,
    "silu": jax.nn.silu,
    "tanh": jnp.tanh,
}
# Filters, kernel and stride of each layer.
_NATURE_LAYERS = ((32, 8, 4), (64, 4, 2), (64, 3, 1))
# The smallest side that leaves one pixel after them: 36 -> 8 -> 3 -> 1.
_NATURE_MIN_SIDE = 36


def scale_images(observation: jax.Array) -> jax.Array:
    """Casts observations to float32, and bytes to the unit interval.

    Replay keeps images as bytes; this is the one place where they are scaled, on the device.

    Args:
        observation: an array of any shape and any real dtype.

    Returns:
        float32 of the same shape: divided by 255 where ``observation`` is uint8, else with its values unchanged.

    Example:
        >>> import jax.numpy as jnp
        >>> from polyak import networks
        >>> networks.scale_images(jnp.asarray([0, 255], dtype=jnp.uint8)).tolist()
        [0.0, 1.0]
        >>> networks.scale_images(jnp.asarray([0.0, 255.0])).tolist()
        [0.0, 255.0]
    """
    observation = jnp.asarray(observation)
    values = observation.astype(jnp.float32)
    return values / 255.0 if observation.dtype == jnp.uint8 else values


def activation_fn(activation: Activation) -> Callable[[jax.Array], jax.Array]:
    """Returns the elementwise function of that name.

    Args:
        activation: ``"relu"``, ``"elu"``, ``"gelu"``, ``"silu"`` or ``"tanh"``.

    Returns:
        A function of an array to an array of the same shape and dtype.

    Raises:
        ValueError: if the name is unknown.

    Example:
        >>> import jax.numpy as jnp
        >>> from polyak import networks
        >>> networks.activation_fn("relu")(jnp.asarray([-1.0, 2.0])).tolist()
        [0.0, 2.0]
    """
    check_choice("activation", activation, _ACTIVATIONS)
    return _ACTIVATIONS[activation]


class MLPTorso(hk.Module):  # type: ignore[misc]  # Haiku's types are not followed.
    """Dense layers over the flattened observation, each followed by the activation.

    Args:
        hidden_sizes: units of each layer; none of them leaves the flattened observation.
        activation: name of the activation, see ``activation_fn``.
        name: name of the module.

    Raises:
        TypeError: if ``hidden_sizes`` is no sequence of integers.
        ValueError: if a size is below 1, or the activation is unknown.

    Example:
        >>> import haiku as hk, jax, jax.numpy as jnp
        >>> from polyak import networks
        >>> torso = hk.without_apply_rng(hk.transform(lambda x: networks.MLPTorso((32, 16))(x)))
        >>> params = torso.init(jax.random.key(0), jnp.ones([1, 2, 3]))
        >>> torso.apply(params, jnp.ones([8, 2, 3])).shape
        (8, 16)
    """

    def __init__(
        self, hidden_sizes: Sequence[int], activation: Activation = "relu", name: str | None = "torso"
    ) -> None:
        super().__init__(name=name)
        check_sizes("hidden_sizes", hidden_sizes)
        self.hidden_sizes = tuple(hidden_sizes)
        self.activation = activation_fn(activation)

    def __call__(self, observation: jax.Array) -> jax.Array:
        """Takes float32 observations ``[B, ...]`` to features ``[B, hidden_sizes[-1]]``.

        Raises:
            ValueError: if ``observation`` has no batch dimension.
        """
        if observation.ndim == 0:
            raise ValueError("observation: got a scalar; expected [B, ...]. Add a batch dimension.")
        return _dense(_flatten(observation), self.hidden_sizes, self.activation)


class NatureTorso(hk.Module):  # type: ignore[misc]  # Haiku's types are not followed.
    """The convolutions of the DQN: 32 of 8x8 by 4, 64 of 4x4 by 2, 64 of 3x3 by 1, each followed by a ReLU.

    The last output is flattened (3136 features for images of 84x84) and goes through the dense layers that stand
    between it and the head; the DQN has one, of 512.

    Reference:
        Mnih et al., "Human-level control through deep reinforcement learning", Nature 518, 2015.

    Args:
        hidden_sizes: units of each dense layer after the convolutions; may be empty.
        activation: name of the activation of the dense layers, see ``activation_fn``.
        lowering: how the convolutions are computed, see ``Conv2D``.
        name: name of the module.

    Raises:
        TypeError: if ``hidden_sizes`` is no sequence of integers.
        ValueError: if a size is below 1, or the activation or the lowering is unknown.

    Example:
        >>> import haiku as hk, jax, jax.numpy as jnp
        >>> from polyak import networks
        >>> torso = hk.without_apply_rng(hk.transform(lambda x: networks.NatureTorso()(x)))
        >>> params = torso.init(jax.random.key(0), jnp.ones([1, 84, 84, 4]))
        >>> torso.apply(params, jnp.ones([2, 84, 84, 4])).shape
        (2, 3136)
    """

    def __init__(
        self,
        hidden_sizes: Sequence[int] = (),
        activation: Activation = "relu",
        lowering: Lowering = "convolution",
        name: str | None = "torso",
    ) -> None:
        super().__init__(name=name)
        check_sizes("hidden_sizes", hidden_sizes)
        check_choice("lowering", lowering, get_args(Lowering))
        self.hidden_sizes = tuple(hidden_sizes)
        self.activation = activation_fn(activation)
        self.lowering = lowering

    def __call__(self, observation: jax.Array) -> jax.Array:
        """Takes float32 images ``[B, H, W, C]``, of at least 36x36, to features ``[B, D]``.

        Raises:
            ValueError: if ``observation`` is no batch of images, or they are too small for the three kernels.
        """
        if observation.ndim != 4:
            raise ValueError(
                f"observation: got shape {observation.shape}; the nature torso takes images, [B, H, W, C]. Use "
                "torso='mlp' for vectors, and add a batch dimension to a single image."
            )
        if min(observation.shape[1:3]) < _NATURE_MIN_SIDE:
            way_out = "Enlarge the images, or use torso='mlp'."
            if observation.shape[1] < _NATURE_MIN_SIDE <= observation.shape[3]:
                way_out = (
                    "If their channels come first, move them last, with numpy.moveaxis(image, 0, -1) in "
                    "gymnasium.wrappers.TransformObservation."
                )
            raise ValueError(
                f"observation: got images of {observation.shape[1]}x{observation.shape[2]}; the nature torso takes "
                f"{_NATURE_MIN_SIDE}x{_NATURE_MIN_SIDE} at least. {way_out}"
            )
        features = observation
        for channels, kernel, stride in _NATURE_LAYERS:
            features = jax.nn.relu(Conv2D(channels, kernel, stride, lowering=self.lowering)(features))
        return _dense(_flatten(features), self.hidden_sizes, self.activation)


def make_torso(
    torso: TorsoName,
    *,
    hidden_sizes: Sequence[int],
    activation: Activation = "relu",
    lowering: Lowering = "convolution",
) -> Callable[[jax.Array], jax.Array]:
    """Builds the torso of that name; called inside ``hk.transform``, as every module of Haiku is.

    Args:
        torso: ``"mlp"`` for ``MLPTorso``, ``"nature"`` for ``NatureTorso``.
        hidden_sizes: units of each dense layer of the torso.
        activation: name of the activation of the dense layers, see ``activation_fn``.
        lowering: how convolutions are computed, see ``Conv2D``; of no effect on a torso without any.

    Returns:
        A module named ``torso``, which takes float32 observations ``[B, ...]`` to features ``[B, D]``.

    Raises:
        TypeError: if ``hidden_sizes`` is no sequence of integers.
        ValueError: if a name is unknown or a size is below 1.

    Example:
        >>> import haiku as hk, jax, jax.numpy as jnp
        >>> from polyak import networks
        >>> net = hk.without_apply_rng(hk.transform(lambda x: networks.make_torso("mlp", hidden_sizes=(16,))(x)))
        >>> jax.tree.map(jnp.shape, net.init(jax.random.key(0), jnp.ones([1, 4])))
        {'torso/mlp/~/linear_0': {'b': (16,), 'w': (4, 16)}}
    """
    check_choice("torso", torso, get_args(TorsoName))
    if torso == "mlp":
        return MLPTorso(hidden_sizes, activation)
    return NatureTorso(hidden_sizes, activation, lowering)


def _flatten(features: jax.Array) -> jax.Array:
    """Takes ``[B, ...]`` to ``[B, D]``; a vector ``[B]`` to ``[B, 1]``."""
    return features.reshape(features.shape[0], math.prod(features.shape[1:]))


def _dense(features: jax.Array, sizes: tuple[int, ...], activation: Callable[[jax.Array], jax.Array]) -> jax.Array:
    """Applies the activation after each layer, the last one included: what follows is a head."""
    out: jax.Array = hk.nets.MLP(sizes, activation=activation, activate_final=True)(features)
    return out
