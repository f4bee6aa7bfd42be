"""Torsos of images: modules that take ``[B, H, W, C]`` through convolutions to features, ``[B, D]``."""

from collections.abc import Sequence
from typing import get_args

import haiku as hk
import jax

from ._checks import check_choice, check_sizes
from .conv import Conv2D, Lowering
from .dense import Activation, activation_fn, hidden_layers

# Filters, kernel and stride of each layer.
_NATURE_LAYERS = ((32, 8, 4), (64, 4, 2), (64, 3, 1))
# The smallest side that leaves one pixel after them: 36 -> 8 -> 3 -> 1.
_NATURE_MIN_SIDE = 36


class NatureTorso(hk.Module):  # type: ignore[misc]  # Haiku's types are not followed.
    """The convolutions of the DQN: 32 of 8x8 by 4, 64 of 4x4 by 2, 64 of 3x3 by 1, each followed by a ReLU.

    The last output is flattened (3136 features for images of 84x84) and goes through the dense layers that stand
    between it and the head; the DQN has one, of 512.

    Reference:
        Mnih et al., "Human-level control through deep reinforcement learning", Nature 518, 2015.

    Args:
        hidden_sizes: units of each dense layer after the convolutions; may be empty.
        activation: name of the activation of the dense layers, see ``activation_fn``.
        noisy_sigma: initial scale of the noise of the last dense layer, see ``NoisyLinear``; None for a plain one.
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
        noisy_sigma: float | None = None,
        lowering: Lowering = "convolution",
        name: str | None = "torso",
    ) -> None:
        super().__init__(name=name)
        check_sizes("hidden_sizes", hidden_sizes)
        check_choice("lowering", lowering, get_args(Lowering))
        self.hidden_sizes = tuple(hidden_sizes)
        self.activation = activation_fn(activation)
        self.noisy_sigma = noisy_sigma
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
        return hidden_layers(features, self.hidden_sizes, self.activation, self.noisy_sigma)
