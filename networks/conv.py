"""Two-dimensional convolution with two lowerings over the same parameters.

XLA's CPU backend computes a convolution several times slower inside a loop (``lax.scan``) than outside. The product of
patches and a matrix, which computes the same sums, is as fast inside a loop as outside. The author of the loop chooses
the lowering.
"""

from collections.abc import Sequence
from typing import Literal, get_args

import haiku as hk
import jax
import jax.numpy as jnp

from ._checks import check_choice, check_positive

Lowering = Literal["convolution", "patches"]
Padding = Literal["VALID", "SAME"]
_Pads = tuple[tuple[int, int], tuple[int, int]]


class Conv2D(hk.Module):  # type: ignore[misc]  # Haiku's types are not followed.
    """Convolution over ``[B, H, W, C]`` with the parameters of ``hk.Conv2D`` and two lowerings.

    The parameters are ``w``, ``[kernel height, kernel width, in, out]``, and ``b``, ``[out]``. Names and initializers
    match ``hk.Conv2D`` (truncated normal with ``stddev = 1 / sqrt(fan_in)``, and zeros), so both lowerings and
    ``hk.Conv2D`` can use the same parameters.

    Args:
        output_channels: Number of filters, at least 1.
        kernel_shape: Height and width of the kernel, or one integer for both, at least 1.
        stride: Stride over height and width, or one integer for both, at least 1.
        padding: Padding, ``"VALID"`` for none, ``"SAME"`` for zeros that make the output size ``ceil(size / stride)``.
        lowering: Lowering, ``"convolution"`` for XLA's convolution, or ``"patches"`` for slices of the input that are
            concatenated and multiplied with ``w`` once, which is faster inside ``lax.scan`` on CPU.
        name: Name of the module.

    Raises:
        TypeError: If a size is not an integer.
        ValueError: If a size is below 1, or ``padding`` or ``lowering`` is unknown.

    Example:
        >>> import haiku as hk, jax, jax.numpy as jnp
        >>> from polyak import networks
        >>> conv = hk.without_apply_rng(hk.transform(lambda x: networks.Conv2D(2, 3, lowering="patches")(x)))
        >>> params = conv.init(jax.random.key(0), jnp.ones([1, 5, 5, 4]))
        >>> jax.tree.map(jnp.shape, params)
        {'conv2_d': {'b': (2,), 'w': (3, 3, 4, 2)}}
        >>> conv.apply(params, jnp.ones([8, 5, 5, 4])).shape
        (8, 3, 3, 2)
    """

    def __init__(
        self,
        output_channels: int,
        kernel_shape: int | Sequence[int],
        stride: int | Sequence[int] = 1,
        padding: Padding = "VALID",
        lowering: Lowering = "convolution",
        name: str | None = None,
    ) -> None:
        super().__init__(name=name)
        check_positive("output_channels", output_channels)
        check_choice("padding", padding, get_args(Padding))
        check_choice("lowering", lowering, get_args(Lowering))
        self.output_channels = output_channels
        self.kernel_shape = _pair("kernel_shape", kernel_shape)
        self.stride = _pair("stride", stride)
        self.padding = padding
        self.lowering = lowering

    def __call__(self, inputs: jax.Array) -> jax.Array:
        """Convolve ``inputs``.

        Args:
            inputs: Floating-point images, ``[B, H, W, C]`` or ``[H, W, C]``.

        Returns:
            ``[B, H', W', output_channels]``, or ``[H', W', output_channels]``, in the dtype of ``inputs``.

        Raises:
            TypeError: If ``inputs`` are not floating point.
            ValueError: If the rank is not 3 or 4, or the kernel is larger than the (padded) image.
        """
        if not jnp.issubdtype(inputs.dtype, jnp.floating):
            raise TypeError(
                f"inputs: got dtype {inputs.dtype}; expected a floating one. Pass images through `scale_images` first."
            )
        if inputs.ndim not in (3, 4):
            raise ValueError(
                f"inputs: got shape {inputs.shape}; expected [H, W, C] or [B, H, W, C]. Reshape further batch "
                "dimensions into one, or use jax.vmap."
            )
        images = inputs if inputs.ndim == 4 else inputs[None]
        pads = _pads(images.shape[1:3], self.kernel_shape, self.stride, self.padding)

        fan_in = self.kernel_shape[0] * self.kernel_shape[1] * images.shape[-1]
        w_shape = (*self.kernel_shape, images.shape[-1], self.output_channels)
        w_init = hk.initializers.TruncatedNormal(stddev=fan_in**-0.5)
        w = hk.get_parameter("w", w_shape, images.dtype, init=w_init)
        b = hk.get_parameter("b", (self.output_channels,), images.dtype, init=jnp.zeros)

        lower = _convolution if self.lowering == "convolution" else _patches
        out = lower(images, w, self.stride, pads)
        out = out + jnp.broadcast_to(b, out.shape)
        return out if inputs.ndim == 4 else out[0]


def _pair(field: str, got: int | Sequence[int]) -> tuple[int, int]:
    """Expand one integer to two equal ones, and check both."""
    pair = tuple(got) if isinstance(got, Sequence) else (got, got)
    if len(pair) != 2:
        raise ValueError(f"{field}: got {got!r}; expected an integer or two of them, for height and width.")
    for size in pair:
        check_positive(field, size)
    return pair


def _pads(size: tuple[int, ...], kernel: tuple[int, int], stride: tuple[int, int], padding: Padding) -> _Pads:
    """Padding before and after for rows and columns; for ``SAME`` an odd remainder goes after, as in XLA."""
    pads = []
    for n, k, s in zip(size, kernel, stride, strict=True):
        total = max((-(-n // s) - 1) * s + k - n, 0) if padding == "SAME" else 0
        if n + total < k:
            raise ValueError(
                f"inputs: got images of {size[0]}x{size[1]}; expected at least the kernel's {kernel[0]}x{kernel[1]} "
                "without padding. Give larger images, a smaller kernel_shape or padding='SAME'."
            )
        pads.append((total // 2, total - total // 2))
    return pads[0], pads[1]


def _convolution(images: jax.Array, w: jax.Array, stride: tuple[int, int], pads: _Pads) -> jax.Array:
    """Lower to XLA's convolution."""
    layout = ("NHWC", "HWIO", "NHWC")
    return jax.lax.conv_general_dilated(images, w, window_strides=stride, padding=pads, dimension_numbers=layout)


def _patches(images: jax.Array, w: jax.Array, stride: tuple[int, int], pads: _Pads) -> jax.Array:
    """Lower to one slice per kernel position, concatenated as channels and multiplied with ``w`` as a matrix."""
    images = jnp.pad(images, ((0, 0), *pads, (0, 0)))
    batch, height, width, channels = images.shape
    kernel_height, kernel_width = w.shape[:2]
    # The first rows and columns of all windows lie in a span of this size, which is sliced with the stride.
    span_height, span_width = height - kernel_height + 1, width - kernel_width + 1
    slices = [
        jax.lax.slice(images, (0, i, j, 0), (batch, i + span_height, j + span_width, channels), (1, *stride, 1))
        for i in range(kernel_height)
        for j in range(kernel_width)
    ]
    return jnp.concatenate(slices, axis=-1) @ w.reshape(-1, w.shape[-1])
