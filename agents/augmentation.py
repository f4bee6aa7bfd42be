"""Image augmentation of sampled observations (DrQ)."""

from collections.abc import Callable, Sequence

import jax
import jax.numpy as jnp

from ..networks import scale_images
from ..replay.types import Sample
from ..replay.types import Sequence as Steps

_PAD = 4
_INTENSITY = 0.05

Augment = Callable[[jax.Array, jax.Array], jax.Array]  # (key, [B, H, W, C]) -> [B, H, W, C]


def make_augmentation(name: str, shape: tuple[int, ...]) -> Augment | None:
    """Make the augmentation with a name for observations of a shape; None means no augmentation.

    Args:
        name: Name of the augmentation: none, auto, shift or shift_and_intensity.
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
    """Shift each image by up to 4 pixels along each axis and repeat its border pixels.

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
        float32 images of the same shape; uint8 images are divided by 255, and the networks do not scale them again.

    >>> shift_and_intensity(jax.random.key(0), jnp.full((1, 9, 9, 1), 255, jnp.uint8)).dtype
    dtype('float32')
    """
    shift_key, intensity_key = jax.random.split(key)
    noise = jnp.clip(jax.random.normal(intensity_key, (images.shape[0], 1, 1, 1)), -2.0, 2.0)
    moved = scale_images(shift(shift_key, images))
    return moved * jnp.broadcast_to(1.0 + _INTENSITY * noise, moved.shape)


def augment_sample(augment: Augment | None, keys: Sequence[jax.Array], sample: Sample) -> Sample:
    """Augment the images of a sample, with independent draws for the two observations of a transition.

    Args:
        augment: Augmentation; None returns the sample unchanged.
        keys: Two random keys, consumed.
        sample: Transitions, with or without a future, or sequences.

    >>> from polyak.replay import Transition
    >>> images = jnp.zeros((1, 8, 8, 1))
    >>> sample = Sample(Transition(images, 0, 0.0, 0.9, images + 1), 1.0, 0)
    >>> keys = jax.random.split(jax.random.key(0))
    >>> augment_sample(lambda key, images: images + 0.5, keys, sample).transition.obs_t.max().item()
    1.5
    """
    if augment is None:
        return sample
    drawn, future = sample.transition, sample.future
    if isinstance(drawn, Steps):
        return sample._replace(transition=_augment_steps(augment, keys[0], drawn))
    if isinstance(future, Steps):
        future = _augment_steps(augment, jax.random.fold_in(keys[1], 2**32 - 1), future)
    obs_tm1, obs_t = augment(keys[0], drawn.obs_tm1), augment(keys[1], drawn.obs_t)
    return sample._replace(transition=drawn._replace(obs_tm1=obs_tm1, obs_t=obs_t), future=future)


def _augment_steps(augment: Augment, key: jax.Array, steps: Steps) -> Steps:
    images = steps.obs.reshape(-1, *steps.obs.shape[2:])
    return steps._replace(obs=augment(key, images).reshape(steps.obs.shape))
