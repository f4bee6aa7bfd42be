"""Torsos: modules that take a batch of observations, ``[B, ...]``, to features, ``[B, D]``.

A torso knows nothing of what is read from its features; the heads do. Applied twice in one transform, a torso uses its
parameters twice.
"""

from collections.abc import Callable, Sequence
from typing import Literal, get_args

import haiku as hk
import jax
import jax.numpy as jnp

from ._checks import check_choice, check_sizes
from .conv import Lowering
from .dense import Activation, activation_fn, hidden_layers
from .image_torsos import ImpalaTorso, MinAtarTorso, NatureTorso, SmallTorso

TorsoName = Literal["mlp", "nature", "impala", "minatar", "small"]


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


class MLPTorso(hk.Module):  # type: ignore[misc]  # Haiku's types are not followed.
    """Dense layers over the flattened observation, each followed by the activation.

    Args:
        hidden_sizes: units of each layer; none of them leaves the flattened observation.
        activation: name of the activation, see ``activation_fn``.
        noisy_sigma: initial scale of the noise of the last dense layer, see ``NoisyLinear``; None for a plain one.
        name: Name of the module.

    Raises:
        TypeError: If ``hidden_sizes`` is no sequence of integers.
        ValueError: If a size is below 1, or the activation is unknown.

    Example:
        >>> import haiku as hk, jax, jax.numpy as jnp
        >>> from polyak import networks
        >>> torso = hk.without_apply_rng(hk.transform(lambda x: networks.MLPTorso((32, 16))(x)))
        >>> params = torso.init(jax.random.key(0), jnp.ones([1, 2, 3]))
        >>> torso.apply(params, jnp.ones([8, 2, 3])).shape
        (8, 16)
    """

    def __init__(
        self,
        hidden_sizes: Sequence[int],
        activation: Activation = "relu",
        noisy_sigma: float | None = None,
        name: str | None = "torso",
    ) -> None:
        super().__init__(name=name)
        check_sizes("hidden_sizes", hidden_sizes)
        self.hidden_sizes = tuple(hidden_sizes)
        self.activation = activation_fn(activation)
        self.noisy_sigma = noisy_sigma

    def __call__(self, observation: jax.Array) -> jax.Array:
        """Map float32 observations ``[B, ...]`` to features ``[B, hidden_sizes[-1]]``.

        Raises:
            ValueError: If ``observation`` has no batch dimension.
        """
        if observation.ndim == 0:
            raise ValueError("observation: got a scalar; expected [B, ...]. Add a batch dimension.")
        return hidden_layers(observation, self.hidden_sizes, self.activation, self.noisy_sigma)


def make_torso(
    torso: TorsoName,
    *,
    hidden_sizes: Sequence[int],
    activation: Activation = "relu",
    noisy_sigma: float | None = None,
    lowering: Lowering = "convolution",
    width: int = 1,
) -> Callable[[jax.Array], jax.Array]:
    """Builds the torso of that name; called inside ``hk.transform``, as every module of Haiku is.

    Args:
        torso: ``"mlp"`` for ``MLPTorso``, ``"nature"`` for ``NatureTorso``, ``"impala"`` for ``ImpalaTorso``,
            ``"minatar"`` for ``MinAtarTorso``, ``"small"`` for ``SmallTorso``.
        hidden_sizes: units of each dense layer of the torso.
        activation: name of the activation of the dense layers, see ``activation_fn``.
        noisy_sigma: initial scale of the noise of the last dense layer, see ``NoisyLinear``; None for a plain one.
        lowering: how convolutions are computed, see ``Conv2D``; of no effect on a torso without any.
        width: Factor of the number of filters of each convolution, at least 1; 1 for a torso without any.

    Returns:
        A module named ``torso``, which takes float32 observations ``[B, ...]`` to features ``[B, D]``.

    Raises:
        TypeError: If ``hidden_sizes`` is no sequence of integers.
        ValueError: If a name is unknown, a size is below 1, or ``width`` is given for a torso without convolutions.

    Example:
        >>> import haiku as hk, jax, jax.numpy as jnp
        >>> from polyak import networks
        >>> net = hk.without_apply_rng(hk.transform(lambda x: networks.make_torso("mlp", hidden_sizes=(16,))(x)))
        >>> jax.tree.map(jnp.shape, net.init(jax.random.key(0), jnp.ones([1, 4])))
        {'torso/mlp/~/linear_0': {'b': (16,), 'w': (4, 16)}}
    """
    check_choice("torso", torso, get_args(TorsoName))
    if torso == "mlp":
        if width != 1:
            raise ValueError(
                f"width: got {width} with torso='mlp', which has no convolutions; expected 1. Use hidden_sizes instead."
            )
        return MLPTorso(hidden_sizes, activation, noisy_sigma)
    of_images = {"nature": NatureTorso, "impala": ImpalaTorso, "minatar": MinAtarTorso, "small": SmallTorso}[torso]
    return of_images(hidden_sizes, activation, noisy_sigma, lowering, width)
