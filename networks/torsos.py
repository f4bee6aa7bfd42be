"""Torsos: modules from observations ``[B, ...]`` to features ``[B, D]``.

A torso does not depend on the head. If a torso is applied twice in one transform, both calls share its parameters.
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
    """Cast observations to float32, and scale uint8 to [0, 1].

    A replay stores images as uint8; only this function scales them, on the device.

    Args:
        observation: Array of any shape and any real dtype.

    Returns:
        Array of equal shape in float32, divided by 255 if ``observation`` is uint8, else with unchanged values.

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
        hidden_sizes: Number of units of each layer; if empty, the features are the flattened observation.
        activation: Name of the activation function, see ``activation_fn``.
        noisy_sigma: Initial scale of the noise of the last dense layer, see ``NoisyLinear``; None for no noise.
        name: Name of the module.

    Raises:
        TypeError: If ``hidden_sizes`` is not a sequence of integers.
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
    """Build a torso by name; called inside ``hk.transform``, like every Haiku module.

    Args:
        torso: Name of the torso: ``"mlp"`` for ``MLPTorso``, ``"nature"`` for ``NatureTorso``, ``"impala"`` for
            ``ImpalaTorso``, ``"minatar"`` for ``MinAtarTorso``, ``"small"`` for ``SmallTorso``.
        hidden_sizes: Number of units of each dense layer of the torso.
        activation: Name of the activation function of the dense layers, see ``activation_fn``.
        noisy_sigma: Initial scale of the noise of the last dense layer, see ``NoisyLinear``; None for no noise.
        lowering: Lowering of the convolutions, see ``Conv2D``; not read by ``"mlp"``.
        width: Multiplier of the number of filters of each convolution, at least 1; must be 1 for ``"mlp"``.

    Returns:
        Module named ``torso`` from float32 observations ``[B, ...]`` to features ``[B, D]``.

    Raises:
        TypeError: If ``hidden_sizes`` is not a sequence of integers.
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
