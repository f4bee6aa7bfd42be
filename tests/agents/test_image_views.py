"""Views of images: what is drawn, and what each transformation does."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from polyak.agents.image_views import affine, erase, make_views
from polyak.agents.pretraining import ImageViews

KEY = jax.random.key(0)
AFFINE = jax.jit(affine)
NOTHING = {"max_rotation": 0.0, "max_scaling": 0.0, "max_shift": 0.0, "erase_probability": 0.0}


def images(count=3, side=6, channels=2):
    return np.random.default_rng(0).integers(0, 256, (count, side, side, channels)).astype(np.uint8)


def test_views_without_a_change_are_the_images():
    found = jax.jit(make_views(ImageViews(**NOTHING)))(KEY, images())
    np.testing.assert_allclose(found, np.float32(images()) / 255, atol=1e-6)


@pytest.mark.parametrize("name", NOTHING)
def test_each_number_changes_the_views_of_each_image_differently(name):
    of = jax.jit(make_views(ImageViews(**NOTHING | {name: getattr(ImageViews(), name) or 1.0} | {"erase_side": 1.0})))
    same = np.repeat(images(1), 8, axis=0)
    found = np.asarray(of(KEY, same))
    assert np.isfinite(found).all()
    assert found.min() >= 0
    assert found.max() <= 1
    assert len({view.tobytes() for view in found}) > 3
    np.testing.assert_array_equal(found, of(KEY, same))
    assert (found != np.asarray(of(jax.random.key(1), same))).any()


def test_a_quarter_turn_and_a_shift_are_exact():
    image = np.float32(images(1, 5))
    one, nothing = jnp.ones(1), jnp.zeros((1, 2))
    turned = AFFINE(image, one * jnp.pi / 2, one, nothing)
    np.testing.assert_allclose(turned[0], np.rot90(image[0]), atol=1e-3)
    moved = AFFINE(image, one * 0, one, jnp.array([[2.0, -1.0]]))
    np.testing.assert_allclose(moved[0, 2:, :-1], image[0, :-2, 1:], atol=1e-4)
    np.testing.assert_allclose(moved[0, :2, :-1], np.repeat(image[0, :1, 1:], 2, axis=0), atol=1e-4)


def test_scaling_by_two_shows_the_middle():
    ramp = jnp.broadcast_to(jnp.arange(9.0)[None, None, :, None], (1, 9, 9, 1))
    found = AFFINE(ramp, jnp.zeros(1), 2 * jnp.ones(1), jnp.zeros((1, 2)))
    np.testing.assert_allclose(found[0, 4, :, 0], np.linspace(2, 6, 9), atol=1e-5)


def test_erased_is_a_rectangle_of_at_most_that_side():
    erased = np.asarray(jax.jit(erase)(KEY, jnp.ones((64, 8, 8, 1)), 0.5, 0.5))[..., 0] == 0
    sizes = []
    for mask in erased[erased.any(axis=(1, 2))]:
        rows, columns = mask.any(axis=1), mask.any(axis=0)
        assert mask.sum() == rows.sum() * columns.sum()
        sizes.append((rows.sum(), columns.sum()))
    assert 16 < len(sizes) < 48
    assert np.max(sizes) == 4
