"""Image augmentation: what the learner sees of an observation, drawn anew at every look (DrQ)."""

from collections.abc import Callable

import jax
import jax.numpy as jnp

from ..networks import scale_images

_PAD = 4
_INTENSITY = 0.05

Augment = Callable[[jax.Array, jax.Array], jax.Array]  # (key, [B, H, W, C]) -> [B, H, W, C]


def make_augmentation(name: str, shape: tuple[int, ...]) -> Augment | None:
    """The augmentation of that name for observations of that shape; None where there is none.

    Raises:
        ValueError: an augmentation of what is no image, ``[H, W, C]``.

    >>> make_augmentation("auto", (4,)) is None, make_augmentation("auto", (84, 84, 4)) is None
    (True, False)
    """
    is_image = len(shape) == 3
    if name == "none" or (name == "auto" and not is_image):
        return None
    if not is_image:
        raise ValueError(
            f"augmentation: got {name!r} and observations of shape {shape}; expected images, [H, W, C]. "
            "Try --augmentation none, or auto, which is none for vectors."
        )
    return shift_and_intensity if name == "shift_and_intensity" else shift


def shift(key: jax.Array, images: jax.Array) -> jax.Array:
    """Each image moved by up to 4 pixels each way, its border repeated (Yarats et al., 2021, section 3.1).

    Args:
        key: consumed.
        images: ``[B, H, W, C]`` of any dtype.

    Returns:
        The same shape and dtype.

    >>> image = jnp.zeros((1, 9, 9, 1)).at[0, 4, 4, 0].set(1)
    >>> moved = shift(jax.random.key(0), image)
    >>> moved.shape, float(moved.sum())
    ((1, 9, 9, 1), 1.0)
    """
    padded = jnp.pad(images, ((0, 0), (_PAD, _PAD), (_PAD, _PAD), (0, 0)), mode="edge")
    corners = jax.random.randint(key, (images.shape[0], 2), 0, 2 * _PAD + 1)

    def crop(image: jax.Array, corner: jax.Array) -> jax.Array:
        return jax.lax.dynamic_slice(image, (corner[0], corner[1], 0), images.shape[1:])

    return jax.vmap(crop)(padded, corners)


def shift_and_intensity(key: jax.Array, images: jax.Array) -> jax.Array:
    """Shifted, and each image brighter or darker by a factor ``1 + 0.05 * clip(N(0, 1), -2, 2)`` (same, appendix E).

    Returns:
        float32 images of the same shape; bytes are divided by 255, which the networks then leave as they are.

    >>> shift_and_intensity(jax.random.key(0), jnp.full((1, 9, 9, 1), 255, jnp.uint8)).dtype
    dtype('float32')
    """
    shift_key, intensity_key = jax.random.split(key)
    noise = jnp.clip(jax.random.normal(intensity_key, (images.shape[0], 1, 1, 1)), -2.0, 2.0)
    moved = scale_images(shift(shift_key, images))
    return moved * jnp.broadcast_to(1.0 + _INTENSITY * noise, moved.shape)
