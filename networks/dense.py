"""Dense layers: activation functions by name, linear layers with and without noisy weights, and stacks of layers."""

import math
from collections.abc import Callable, Sequence
from typing import Literal

import haiku as hk
import jax
import jax.numpy as jnp

from ._checks import check_choice, check_nonnegative, check_positive

Activation = Literal["relu", "elu", "gelu", "silu", "tanh"]

_ACTIVATIONS: dict[str, Callable[[jax.Array], jax.Array]] = {
    "relu": jax.nn.relu,
    "elu": jax.nn.elu,
    "gelu": jax.nn.gelu,
    "silu": jax.nn.silu,
    "tanh": jnp.tanh,
}


def activation_fn(activation: Activation) -> Callable[[jax.Array], jax.Array]:
    """Elementwise activation function of a name.

    Args:
        activation: Name, one of ``"relu"``, ``"elu"``, ``"gelu"``, ``"silu"`` or ``"tanh"``.

    Returns:
        Function from an array to an array of equal shape and dtype.

    Raises:
        ValueError: If the name is unknown.

    Example:
        >>> import jax.numpy as jnp
        >>> from polyak import networks
        >>> networks.activation_fn("relu")(jnp.asarray([-1.0, 2.0])).tolist()
        [0.0, 2.0]
    """
    check_choice("activation", activation, _ACTIVATIONS)
    return _ACTIVATIONS[activation]


class NoisyLinear(hk.Module):  # type: ignore[misc]  # Haiku's types are not followed.
    """Linear layer with factorized Gaussian noise in its weights, sampled once for each batch.

    ``y = x @ (w + w_sigma * outer(f(e_in), f(e_out))) + b + b_sigma * f(e_out)``, where ``e_in`` and ``e_out`` are
    standard normal and ``f(e) = sign(e) * sqrt(abs(e))``. The means ``w`` and ``b`` and the scales ``w_sigma`` and
    ``b_sigma`` are learned. If the transform is applied with the key None, the layer has no noise and computes
    ``x @ w + b`` like ``hk.Linear``.

    The initial means are uniform in ``[-1 / sqrt(D), 1 / sqrt(D)]``; the initial scales are ``sigma / sqrt(D)``.

    Reference:
        Fortunato et al., "Noisy networks for exploration", ICLR 2018, equations 9 to 11 and section 3.2.

    Args:
        output_size: Number of outputs, at least 1.
        sigma: Initial scale of the noise before the division by ``sqrt(D)``, at least 0.
        name: Name of the module.

    Raises:
        TypeError: If ``output_size`` is not an integer, or ``sigma`` is not a number.
        ValueError: If ``output_size`` is below 1, or ``sigma`` is negative or not finite.

    Example:
        >>> import haiku as hk, jax, jax.numpy as jnp
        >>> from polyak import networks
        >>> layer = hk.transform(lambda x: networks.NoisyLinear(3)(x))
        >>> params = layer.init(jax.random.key(0), jnp.ones([1, 4]))
        >>> jax.tree.map(jnp.shape, params)
        {'noisy_linear': {'b': (3,), 'b_sigma': (3,), 'w': (4, 3), 'w_sigma': (4, 3)}}
        >>> drawn, mean = (layer.apply(params, key, jnp.ones([1, 4])) for key in (jax.random.key(1), None))
        >>> bool((drawn == mean).any())
        False
    """

    def __init__(self, output_size: int, sigma: float = 0.5, name: str | None = None) -> None:
        super().__init__(name=name)
        check_positive("output_size", output_size)
        check_nonnegative("sigma", sigma)
        self.output_size = output_size
        self.sigma = sigma

    def __call__(self, inputs: jax.Array) -> jax.Array:
        """Map ``[..., D]`` to ``[..., output_size]``, with one noise sample for all rows."""
        fan_in = inputs.shape[-1]
        mean = hk.initializers.RandomUniform(-(fan_in**-0.5), fan_in**-0.5)
        scale = hk.initializers.Constant(self.sigma * fan_in**-0.5)
        w = hk.get_parameter("w", (fan_in, self.output_size), inputs.dtype, init=mean)
        b = hk.get_parameter("b", (self.output_size,), inputs.dtype, init=mean)
        w_sigma = hk.get_parameter("w_sigma", w.shape, inputs.dtype, init=scale)
        b_sigma = hk.get_parameter("b_sigma", b.shape, inputs.dtype, init=scale)

        key = hk.maybe_next_rng_key()
        if key is not None:
            drawn = jax.random.normal(key, (fan_in + self.output_size,), inputs.dtype)
            noise_in, noise_out = jnp.split(jnp.sign(drawn) * jnp.sqrt(jnp.abs(drawn)), [fan_in])
            w = w + w_sigma * jnp.outer(noise_in, noise_out)
            b = b + b_sigma * noise_out
        out = jnp.dot(inputs, w)
        return out + jnp.broadcast_to(b, out.shape)


class DenseLayers(hk.Module):  # type: ignore[misc]
    """MLP with the parameter names of ``hk.nets.MLP``, whose layers may be noisy.

    Args:
        sizes: Number of units of each layer.
        activation: Activation function between the layers.
        sigmas: Initial scale of the noise of each layer, see ``NoisyLinear``; None for a layer without noise. None
            alone for no noise in any layer.
        activate_final: Whether the activation also follows the last layer.
        name: Name of the module.
    """

    def __init__(
        self,
        sizes: Sequence[int],
        activation: Callable[[jax.Array], jax.Array],
        sigmas: Sequence[float | None] | None = None,
        *,
        activate_final: bool = False,
        name: str | None = "mlp",
    ) -> None:
        super().__init__(name=name)
        sigmas = (None,) * len(sizes) if sigmas is None else sigmas
        self.layers = [
            linear(size, sigma, f"linear_{index}")
            for index, (size, sigma) in enumerate(zip(sizes, sigmas, strict=True))
        ]
        self.activation = activation
        self.activate_final = activate_final

    def __call__(self, features: jax.Array) -> jax.Array:
        """Map ``[..., D]`` to ``[..., sizes[-1]]``; without layers, return the input."""
        for index, layer in enumerate(self.layers):
            features = layer(features)
            if self.activate_final or index < len(self.layers) - 1:
                features = self.activation(features)
        return features


def hidden_layers(
    features: jax.Array,
    sizes: Sequence[int],
    activation: Callable[[jax.Array], jax.Array],
    noisy_sigma: float | None = None,
) -> jax.Array:
    """Flatten ``[B, ...]`` and apply the hidden layers before a head, each followed by the activation.

    The last layer is a ``NoisyLinear`` unless ``noisy_sigma`` is None. A vector ``[B]`` is treated as ``[B, 1]``.
    """
    flat = features.reshape(features.shape[0], math.prod(features.shape[1:]))
    sigmas = (*[None] * (len(sizes) - 1), noisy_sigma)[: len(sizes)]
    out: jax.Array = DenseLayers(sizes, activation, sigmas, activate_final=True)(flat)
    return out


def linear(size: int, sigma: float | None, name: str) -> hk.Module:
    """Make a layer: ``NoisyLinear`` with the initial noise scale ``sigma``, or ``hk.Linear`` if ``sigma`` is None."""
    return hk.Linear(size, name=name) if sigma is None else NoisyLinear(size, sigma, name)
