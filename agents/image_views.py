"""Random views of images, made on the device: rotate, scale, shift, and erase a rectangle."""

from collections.abc import Callable

import jax
import jax.numpy as jnp

from ..networks import scale_images
from .pretraining import ImageViews

Views = Callable[[jax.Array, jax.Array], jax.Array]  # (key, [B, H, W, C]) -> [B, H, W, C]


def make_views(config: ImageViews) -> Views:
    """Make the function from a key and images ``[B, H, W, C]`` to one random float32 view per image.

    uint8 images are scaled to [0, 1]. The key is consumed.

    >>> views = make_views(ImageViews())
    >>> views(jax.random.key(0), jnp.zeros((2, 8, 8, 1), jnp.uint8)).shape
    (2, 8, 8, 1)
    """

    def views(key: jax.Array, images: jax.Array) -> jax.Array:
        keys = jax.random.split(key, 4)
        batch, side = images.shape[0], jnp.array([images.shape[1:3]], jnp.float32)
        rotation = jnp.deg2rad(config.max_rotation) * jax.random.uniform(keys[0], (batch,), minval=-1.0)
        scaling = jnp.log1p(config.max_scaling) * jax.random.uniform(keys[1], (batch,), minval=-1.0)
        shift = config.max_shift * side * jax.random.uniform(keys[2], (batch, 2), minval=-1.0)
        moved = affine(scale_images(images), rotation, jnp.exp(scaling), shift)
        return erase(keys[3], moved, config.erase_probability, config.erase_side)

    return views


def affine(images: jax.Array, rotation: jax.Array, scaling: jax.Array, shift: jax.Array) -> jax.Array:
    """Rotate, scale and shift each image about its centre, with bilinear interpolation and repeated borders.

    Args:
        images: ``[B, H, W, C]`` float32.
        rotation: ``[B]``, angles in radians.
        scaling: ``[B]``, factors of the size.
        shift: ``[B, 2]``, pixels down and to the right.

    >>> image = jnp.zeros((1, 3, 3, 1)).at[0, 0, 1, 0].set(1.0)
    >>> nothing, one = jnp.zeros(1), jnp.ones(1)
    >>> affine(image, nothing, one, jnp.array([[1.0, 0.0]]))[0, ..., 0].tolist()
    [[0.0, 1.0, 0.0], [0.0, 1.0, 0.0], [0.0, 0.0, 0.0]]
    >>> jnp.abs(jnp.round(affine(image, one * jnp.pi / 2, one, jnp.zeros((1, 2)))[0, ..., 0], 4)).tolist()
    [[0.0, 0.0, 0.0], [1.0, 0.0, 0.0], [0.0, 0.0, 0.0]]
    """
    batch, height, width, channels = images.shape
    middle_row, middle_column = (height - 1) / 2, (width - 1) / 2
    rows, columns = jnp.meshgrid(jnp.arange(height), jnp.arange(width), indexing="ij")
    # Position in the image from which each pixel of the view is read.
    down = rows.reshape(1, -1) - middle_row - shift[:, :1]
    right = columns.reshape(1, -1) - middle_column - shift[:, 1:]
    cosine, sine = (jnp.cos(rotation) / scaling)[:, None], (jnp.sin(rotation) / scaling)[:, None]
    row = jnp.clip(cosine * down + sine * right + middle_row, 0, height - 1)
    column = jnp.clip(cosine * right - sine * down + middle_column, 0, width - 1)
    top, left = jnp.floor(row), jnp.floor(column)
    flat = images.reshape(batch, height * width, channels)

    def read(r: jax.Array, c: jax.Array) -> jax.Array:
        index = jnp.minimum(r, height - 1) * width + jnp.minimum(c, width - 1)
        return jnp.take_along_axis(flat, index.astype(jnp.int32)[..., None], axis=1)

    row_part, column_part = (row - top)[..., None], (column - left)[..., None]
    upper = (1 - column_part) * read(top, left) + column_part * read(top, left + 1)
    lower = (1 - column_part) * read(top + 1, left) + column_part * read(top + 1, left + 1)
    return ((1 - row_part) * upper + row_part * lower).reshape(images.shape)


def erase(key: jax.Array, images: jax.Array, probability: float, side: float) -> jax.Array:
    """Set a random rectangle of each image to 0, with a probability.

    Args:
        key: Random key, consumed.
        images: ``[B, H, W, C]``.
        probability: Probability for each image.
        side: Largest height and width of a rectangle, as fractions of the image's; its position is uniform.

    >>> erased = erase(jax.random.key(0), jnp.ones((1, 8, 8, 1)), 1.0, 0.5)
    >>> 64 - 16 <= float(erased.sum()) < 64
    True
    """
    batch, height, width, _ = images.shape
    drawn = jax.random.uniform(key, (5, batch))
    is_erased = drawn[0] < probability

    def within(size: int, part: jax.Array, place: jax.Array) -> jax.Array:
        length = jnp.ceil(part * side * size)
        first = jnp.floor(place * (size - length + 1))
        pixels = jnp.arange(size)[None]
        return (pixels >= first[:, None]) & (pixels < (first + length)[:, None])

    rows, columns = within(height, drawn[1], drawn[2]), within(width, drawn[3], drawn[4])
    covered = is_erased[:, None, None] & rows[:, :, None] & columns[:, None, :]
    return jnp.where(covered[..., None], 0.0, images)
