"""Image torsos: convolutional modules from images ``[B, H, W, C]`` to features ``[B, D]``."""

from collections.abc import Callable, Sequence
from typing import get_args

import haiku as hk
import jax
import jax.numpy as jnp

from ._checks import check_choice, check_positive, check_sizes
from .conv import Conv2D, Lowering
from .dense import Activation, activation_fn, hidden_layers

# Filters, kernel and stride of each layer.
_NATURE_LAYERS = ((32, 8, 4), (64, 4, 2), (64, 3, 1))
# Smallest side that leaves one pixel after these layers: 36 -> 8 -> 3 -> 1.
_NATURE_MIN_SIDE = 36
# Number of filters of each layer; kernels are 3x3 with stride 2.
_SMALL_LAYERS = (32, 64, 64)
_MINATAR_FILTERS = 16
_MINATAR_KERNEL = 3
# Number of filters of each section.
_IMPALA_SECTIONS = (16, 32, 32)


class _ImageTorso(hk.Module):  # type: ignore[misc]  # Haiku's types are not followed.
    """Base class of the image torsos; ``_CONVOLUTIONS`` maps ``kind`` to the convolutions."""

    kind: str

    def __init__(
        self,
        hidden_sizes: Sequence[int] = (),
        activation: Activation = "relu",
        noisy_sigma: float | None = None,
        lowering: Lowering = "convolution",
        width: int = 1,
        name: str | None = "torso",
    ) -> None:
        super().__init__(name=name)
        check_sizes("hidden_sizes", hidden_sizes)
        check_positive("width", width)
        check_choice("lowering", lowering, get_args(Lowering))
        self.hidden_sizes = tuple(hidden_sizes)
        self.activation = activation_fn(activation)
        self.noisy_sigma = noisy_sigma
        self.lowering = lowering
        self.width = width

    def __call__(self, observation: jax.Array) -> jax.Array:
        """Map float32 images ``[B, H, W, C]`` to features ``[B, D]``.

        Raises:
            ValueError: If ``observation`` is not a batch of images, or the images are too small for the kernels.
        """
        convolutions, min_side = _CONVOLUTIONS[self.kind]
        _check_images(observation, self.kind, min_side)
        features = convolutions(observation, self.lowering, self.width)
        return hidden_layers(features, self.hidden_sizes, self.activation, self.noisy_sigma)


def _nature(images: jax.Array, lowering: Lowering, width: int) -> jax.Array:
    for channels, kernel, stride in _NATURE_LAYERS:
        images = jax.nn.relu(Conv2D(width * channels, kernel, stride, lowering=lowering)(images))
    return images


def _minatar(images: jax.Array, lowering: Lowering, width: int) -> jax.Array:
    return jax.nn.relu(Conv2D(width * _MINATAR_FILTERS, _MINATAR_KERNEL, lowering=lowering)(images))


def _small(images: jax.Array, lowering: Lowering, width: int) -> jax.Array:
    for channels in _SMALL_LAYERS:
        images = Conv2D(width * channels, 3, 2, padding="SAME", lowering=lowering)(images)
        normalized = hk.LayerNorm(axis=(-3, -2, -1), param_axis=-1, create_scale=True, create_offset=True)(images)
        images = jax.nn.relu(normalized)
    return images


def _impala(images: jax.Array, lowering: Lowering, width: int) -> jax.Array:
    def convolve(images: jax.Array, channels: int, name: str) -> jax.Array:
        out: jax.Array = Conv2D(channels, 3, padding="SAME", lowering=lowering, name=name)(images)
        return out

    for section, channels in enumerate(width * size for size in _IMPALA_SECTIONS):
        with hk.name_scope(f"section_{section}"):
            images = max_pool(convolve(images, channels, "conv"))
            for block in range(2):
                residual = convolve(jax.nn.relu(images), channels, f"block_{block}_conv_0")
                images += convolve(jax.nn.relu(residual), channels, f"block_{block}_conv_1")
    return jax.nn.relu(images)


# Convolutions of each torso, and the smallest side of its images.
_CONVOLUTIONS: dict[str, tuple[Callable[[jax.Array, Lowering, int], jax.Array], int]] = {
    "nature": (_nature, _NATURE_MIN_SIDE),
    "impala": (_impala, 1),
    "minatar": (_minatar, _MINATAR_KERNEL),
    "small": (_small, 1),
}


class NatureTorso(_ImageTorso):
    """Torso of DQN: three convolutions, each followed by a ReLU, and dense layers.

    The convolutions have 32 filters of 8x8 with stride 4, 64 of 4x4 with stride 2 and 64 of 3x3 with stride 1. Their
    output is flattened (3136 features for images of 84x84) before the dense layers; DQN has one dense layer of 512
    units. Images must have at least 36x36 pixels.

    Reference:
        Mnih et al., "Human-level control through deep reinforcement learning", Nature 518, 2015.

    Args:
        hidden_sizes: Number of units of each dense layer after the convolutions; may be empty.
        activation: Name of the activation function of the dense layers, see ``activation_fn``.
        noisy_sigma: Initial scale of the noise of the last dense layer, see ``NoisyLinear``; None for no noise.
        lowering: Lowering of the convolutions, see ``Conv2D``.
        width: Multiplier of the number of filters of each convolution, at least 1.
        name: Name of the module.

    Raises:
        TypeError: If ``hidden_sizes`` is not a sequence of integers.
        ValueError: If a size is below 1, or the activation or the lowering is unknown.

    Example:
        >>> import haiku as hk, jax, jax.numpy as jnp
        >>> from polyak import networks
        >>> torso = hk.without_apply_rng(hk.transform(lambda x: networks.NatureTorso()(x)))
        >>> params = jax.eval_shape(torso.init, jax.random.key(0), jnp.ones([1, 84, 84, 4]))
        >>> jax.eval_shape(torso.apply, params, jnp.ones([2, 84, 84, 4])).shape
        (2, 3136)
    """

    kind = "nature"


class ImpalaTorso(_ImageTorso):
    """Torso of IMPALA's large network: three residual sections with 16, 32 and 32 channels.

    A section has a 3x3 convolution, 3x3 max pooling with stride 2, and two residual blocks of ReLU, 3x3 convolution,
    ReLU and 3x3 convolution; all with ``SAME`` padding. A ReLU follows the last section. Images of 84x84 give 11 * 11 *
    32 = 3872 features; IMPALA has one dense layer of 256 units.

    This torso has the arguments and errors of ``NatureTorso``. Images may have any size.

    Reference:
        Espeholt et al., "IMPALA: scalable distributed deep-RL with importance weighted actor-learner architectures",
        ICML 2018, figure 3, without its LSTM.

    Example:
        >>> import haiku as hk, jax, jax.numpy as jnp
        >>> from polyak import networks
        >>> torso = hk.without_apply_rng(hk.transform(lambda x: networks.ImpalaTorso((256,))(x)))
        >>> params = jax.eval_shape(torso.init, jax.random.key(0), jnp.ones([1, 10, 10, 4]))
        >>> list(params)[:3]
        ['torso/mlp/~/linear_0', 'torso/section_0/block_0_conv_0', 'torso/section_0/block_0_conv_1']
        >>> jax.eval_shape(torso.apply, params, jnp.ones([2, 10, 10, 4])).shape
        (2, 256)
    """

    kind = "impala"


class MinAtarTorso(_ImageTorso):
    """Torso of MinAtar's networks: one convolution with 16 filters of 3x3 and stride 1, followed by a ReLU.

    MinAtar's images of 10x10 give 8 * 8 * 16 = 1024 features; MinAtar's networks have one dense layer of 128 units.

    This torso has the arguments and errors of ``NatureTorso``. Images must have at least 3x3 pixels.

    Reference:
        Young and Tian, "MinAtar: an Atari-inspired testbed for thorough and reproducible reinforcement learning
        experiments", arXiv:1903.03176, 2019.

    Example:
        >>> import haiku as hk, jax, jax.numpy as jnp
        >>> from polyak import networks
        >>> torso = hk.without_apply_rng(hk.transform(lambda x: networks.MinAtarTorso()(x)))
        >>> params = torso.init(jax.random.key(0), jnp.ones([1, 10, 10, 4]))
        >>> torso.apply(params, jnp.ones([2, 10, 10, 4])).shape
        (2, 1024)
    """

    kind = "minatar"


class SmallTorso(_ImageTorso):
    """Torso for small images: three 3x3 convolutions with stride 2, each with layer normalization and a ReLU.

    The convolutions have 32, 64 and 64 filters and ``SAME`` padding; images of 28x28 give 4 * 4 * 64 = 1024 features.
    Layer normalization (Ba et al., 2016) is over height, width and channels of one image, with a scale and an offset
    for each channel. It has no module state, so the torso computes the same function in training and in acting.

    This torso has the arguments and errors of ``NatureTorso``. Images may have any size.

    Example:
        >>> import haiku as hk, jax, jax.numpy as jnp
        >>> from polyak import networks
        >>> torso = hk.without_apply_rng(hk.transform(lambda x: networks.SmallTorso()(x)))
        >>> params = torso.init(jax.random.key(0), jnp.ones([1, 28, 28, 1]))
        >>> torso.apply(params, jnp.ones([2, 28, 28, 1])).shape
        (2, 1024)
    """

    kind = "small"


def feature_map_shape(torso: str, shape: Sequence[int], width: int = 1) -> tuple[int, int, int]:
    """Shape ``(H, W, C)`` of the output of a torso's convolutions for one image.

    Args:
        torso: Name of the torso, one of ``"nature"``, ``"impala"``, ``"minatar"`` and ``"small"``.
        shape: Shape of one image, ``(H, W, C)``.
        width: Multiplier of the number of filters.

    Raises:
        ValueError: If the torso is not an image torso, or its kernels do not fit into ``shape``.

    Example:
        >>> from polyak import networks
        >>> networks.feature_map_shape("nature", (84, 84, 4)), networks.feature_map_shape("impala", (84, 84, 4), 4)
        ((7, 7, 64), (11, 11, 128))
    """
    check_choice("torso", torso, _CONVOLUTIONS)
    convolutions, min_side = _CONVOLUTIONS[torso]

    def convolve(image: jax.Array) -> jax.Array:
        _check_images(image, torso, min_side)
        return convolutions(image, "convolution", width)

    net = hk.without_apply_rng(hk.transform(convolve))
    image = jax.ShapeDtypeStruct((1, *shape), jnp.float32)
    out = jax.eval_shape(lambda image: net.apply(net.init(jax.random.key(0), image), image), image)
    height, width_out, channels = out.shape[1:]
    return height, width_out, channels


def max_pool(images: jax.Array) -> jax.Array:
    """Max pooling over 3x3 with stride 2 and ``SAME`` padding, to ``[B, ceil(H / 2), ceil(W / 2), C]``.

    The maximum is computed over slices, for rows and then for columns, because the gradient takes a fifth to a tenth of
    the time of ``reduce_window`` on CPU. Pixels that tie for the maximum share the gradient.

    >>> max_pool(jnp.arange(16.0).reshape(1, 4, 4, 1))[0, ..., 0].tolist()
    [[10.0, 11.0], [14.0, 15.0]]
    """
    for axis in (1, 2):
        size = -(-images.shape[axis] // 2)
        total = max(2 * (size - 1) + 3 - images.shape[axis], 0)
        pads = [(0, 0)] * 4
        pads[axis] = (total // 2, total - total // 2)
        padded = jnp.pad(images, pads, constant_values=-jnp.inf)
        first, second, third = (
            jax.lax.slice_in_dim(padded, start, start + 2 * size - 1, stride=2, axis=axis) for start in range(3)
        )
        images = jnp.maximum(jnp.maximum(first, second), third)
    return images


def _check_images(observation: jax.Array, kind: str, min_side: int) -> None:
    if observation.ndim != 4:
        raise ValueError(
            f"observation: got shape {observation.shape}; the {kind} torso takes images, [B, H, W, C]. Use "
            "torso='mlp' for vectors, and add a batch dimension to a single image."
        )
    if min(observation.shape[1:3]) < min_side:
        way_out = "Enlarge the images, or use torso='mlp'."
        if observation.shape[1] < min_side <= observation.shape[3]:
            way_out = (
                "If their channels come first, move them last, with numpy.moveaxis(image, 0, -1) in "
                "gymnasium.wrappers.TransformObservation."
            )
        raise ValueError(
            f"observation: got images of {observation.shape[1]}x{observation.shape[2]}; the {kind} torso takes "
            f"{min_side}x{min_side} at least. {way_out}"
        )
