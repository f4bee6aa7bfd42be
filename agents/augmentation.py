"""Image augmentation of sampled observations (DrQ)."""

from collections.abc import Callable

import jax
import jax.numpy as jnp

from ..networks import scale_images

_PAD = 4
_INTENSITY = 0.05

Augment = Callable[[jax.Array, jax.Array], jax.Array]  # (key, [B, H, W, C]) -> [B, H, W, C]


def make_augmentation(name: str, shape: tuple[int, ...]) -> Augment | None:
    """Make the augmentation of a name for observations of a shape; None for no augmentation.

    Args:
        name: Name in the config: none, auto, shift or shift_and_intensity.
        shape: Shape of one observation.

    Raises:
        ValueError: if observations are not images, ``[H, W, C]``.

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
    """Shift each image by up to 4 pixels along each axis, with its border repeated.

    Yarats et al., 2021, section 3.1.

    Args:
        key: Random key, consumed.
        images: ``[B, H, W, C]`` of any dtype.

    Returns:
        Images of the same shape and dtype.

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
    """Shift each image, and scale its intensity by ``1 + 0.05 * clip(N(0, 1), -2, 2)``.

    Yarats et al., 2021, appendix E.

    Args:
        key: Random key, consumed.
        images: ``[B, H, W, C]`` of any dtype.

    Returns:
        float32 images of the same shape; bytes are divided by 255, and the networks do not scale them again.

    >>> shift_and_intensity(jax.random.key(0), jnp.full((1, 9, 9, 1), 255, jnp.uint8)).dtype
    dtype('float32')
    """
    shift_key, intensity_key = jax.random.split(key)
    noise = jnp.clip(jax.random.normal(intensity_key, (images.shape[0], 1, 1, 1)), -2.0, 2.0)
    moved = scale_images(shift(shift_key, images))
    return moved * jnp.broadcast_to(1.0 + _INTENSITY * noise, moved.shape)
