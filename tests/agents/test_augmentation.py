"""What the learner sees of images: every shift there is, each image by itself, nothing where nothing is asked for."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from agent_samples import make_config, random_sample, random_state
from polyak.agents import make_agent
from polyak.agents.augmentation import make_augmentation, shift, shift_and_intensity
from polyak.replay import EnvironmentSpec

SIDE, PAD = 6, 4
PLACES = 2 * PAD + 1  # along one side
NUM_IMAGES = 2_000
IMAGE = np.random.default_rng(0).integers(0, 256, (SIDE, SIDE + 1, 2)).astype(np.uint8)


def crops(image):
    """All 81 of them, by hand: the pixel that is nearest where the crop lies beyond the border."""
    height, width, _ = image.shape
    found = np.empty((PLACES, PLACES, *image.shape), image.dtype)
    for down in range(PLACES):
        for right in range(PLACES):
            rows = np.clip(np.arange(height) + down - PAD, 0, height - 1)
            columns = np.clip(np.arange(width) + right - PAD, 0, width - 1)
            found[down, right] = image[rows][:, columns]
    return found.reshape(PLACES**2, *image.shape)


@pytest.fixture(scope="module")
def shifted():
    """Which of the crops each of many copies of one image became."""
    images = jnp.asarray(np.broadcast_to(IMAGE, (NUM_IMAGES, *IMAGE.shape)))
    moved = jax.jit(shift)(jax.random.key(0), images)
    assert moved.dtype == jnp.uint8
    assert moved.shape == images.shape
    equal = (np.asarray(moved)[:, None] == crops(IMAGE)[None]).all(axis=(2, 3, 4))
    assert (equal.sum(axis=1) == 1).all()  # the image is such that no two crops are alike
    return equal.argmax(axis=1)


def test_every_shift_is_a_crop_and_each_of_the_81_is_drawn_alike(shifted):
    counts = np.bincount(shifted, minlength=PLACES**2)
    expected = NUM_IMAGES / PLACES**2
    # Chi-square with 80 degrees of freedom: mean 80, standard deviation 12.6.
    assert ((counts - expected) ** 2 / expected).sum() < 80 + 4 * 12.65
    assert counts.min() > 0


def test_each_image_is_shifted_by_itself(shifted):
    down, right = shifted // PLACES, shifted % PLACES
    assert (np.diff(shifted) != 0).mean() > 0.95
    for one, other in ((down[:-1], down[1:]), (right[:-1], right[1:]), (down, right)):
        assert abs(np.corrcoef(one, other)[0, 1]) < 4 / np.sqrt(NUM_IMAGES)


@pytest.mark.parametrize("dtype", ["uint8", "float32", "bfloat16"])
def test_the_key_decides_and_shape_and_dtype_are_kept(dtype):
    images = jnp.asarray(IMAGE[None].repeat(8, axis=0), dtype)
    one, again, other = (shift(jax.random.key(seed), images) for seed in (0, 0, 1))
    assert one.dtype == images.dtype
    assert one.shape == images.shape
    assert (one == again).all()
    assert (one != other).any()


@pytest.mark.parametrize("dtype", ["uint8", "float32"])
def test_intensity_is_one_factor_for_an_image_within_a_tenth(dtype):
    levels = np.float32([51.0, 102.0])  # of bytes a fifth and two fifths
    images = jnp.asarray(np.broadcast_to(levels, (NUM_IMAGES, 3, 3, 2)), dtype)
    seen = np.asarray(jax.jit(shift_and_intensity)(jax.random.key(0), images))
    assert seen.dtype == np.float32
    factor = seen / (levels / 255 if dtype == "uint8" else levels)
    assert np.ptp(factor, axis=(1, 2, 3)).max() < 1e-5
    factor = factor[:, 0, 0, 0]
    assert factor.min() >= 0.9 - 1e-6
    assert factor.max() <= 1.1 + 1e-6
    assert len(np.unique(factor)) > 0.9 * NUM_IMAGES
    # 1 + 0.05 clip(N(0, 1), -2, 2): the clipped normal has a variance of 0.92, and a fortieth of it on either bound.
    assert abs(factor.mean() - 1) < 4 * 0.05 / np.sqrt(NUM_IMAGES)
    assert factor.std() == pytest.approx(0.05 * np.sqrt(0.9205), rel=0.06)
    assert np.isclose(factor, 1.1).mean() == pytest.approx(0.02275, abs=0.012)


def test_intensity_shifts_as_well():
    images = jnp.asarray(IMAGE[None].repeat(8, axis=0))
    seen = np.asarray(shift_and_intensity(jax.random.key(0), images))
    possible = crops(IMAGE).astype(np.float32) / 255
    places = []
    for image in seen:
        # Least squares: the factor that takes each crop nearest to the image, and what is left over.
        factor = (possible * image).sum(axis=(1, 2, 3)) / (possible**2).sum(axis=(1, 2, 3))
        left = np.abs(possible * factor[:, None, None, None] - image).max(axis=(1, 2, 3))
        places += np.flatnonzero(left < 1e-5).tolist()
    assert len(places) == len(seen)
    assert len(set(places)) > 4


@pytest.mark.parametrize(
    ("name", "shape", "expected"),
    [
        ("auto", (84, 84, 4), shift),
        ("auto", (4,), None),
        ("auto", (84, 84), None),
        ("none", (84, 84, 4), None),
        ("none", (4,), None),
        ("shift", (84, 84, 4), shift),
        ("shift_and_intensity", (84, 84, 4), shift_and_intensity),
    ],
)
def test_which_augmentation_there_is(name, shape, expected):
    assert make_augmentation(name, shape) is expected


@pytest.mark.parametrize("name", ["shift", "shift_and_intensity"])
@pytest.mark.parametrize("shape", [(), (4,), (84, 84)])
def test_what_is_no_image_is_refused(name, shape):
    with pytest.raises(
        ValueError, match=rf"augmentation: got '{name}' and observations of shape .*expected images.*none"
    ):
        make_augmentation(name, shape)


TINY = {"torso": "mlp", "hidden_sizes": (2,), "activation": "tanh", "optimizer": "sgd", "target": "none"}
FRAME = EnvironmentSpec(jax.ShapeDtypeStruct((6, 6, 1), np.dtype(np.uint8)), num_actions=1)


@functools.cache
def learner(augmentation, **fields):
    """State, compiled learner step, and the config, of an agent."""
    config = make_config(augmentation=augmentation, **TINY, **fields)
    agent = make_agent(config, FRAME)
    return random_state(agent), jax.jit(agent.learn), config


def learnt(augmentation, steps=None, fields=(), **replaced):
    """Output of two learner steps on the same images, each with a key of its own."""
    state, learn, config = learner(augmentation, **dict(fields))
    sample = random_sample(config, FRAME, steps=steps, seed=1)
    sample = sample._replace(transition=sample.transition._replace(**replaced))
    return [learn(jax.random.key(seed), state, sample)[1] for seed in (1, 2)]


def test_a_learner_step_augments_images_by_its_key_and_leaves_them_alone_without():
    plain, shifted = ([float(output.metrics["loss"]) for output in learnt(name)] for name in ("none", "shift"))
    assert plain[0] == plain[1]  # nothing is drawn
    assert len({*plain, *shifted}) == 3


def test_the_two_observations_of_a_transition_are_augmented_apart():
    """With one action, no copy, no reward and no discount lost, one shift of one image would leave no error."""
    images = np.random.default_rng(0).integers(0, 256, (4, 6, 6, 1)).astype(np.uint8)
    one = {"r_t": np.zeros(4, np.float32), "discount_t": np.ones(4, np.float32)}
    for output in learnt("shift", obs_tm1=images, obs_t=images, **one):
        assert (np.asarray(output.priorities) > 1e-6).all()
    for output in learnt("none", obs_tm1=images, obs_t=images, **one):
        np.testing.assert_allclose(output.priorities, 0, atol=1e-6)


@pytest.mark.parametrize("fields", [{}, {"core": "lstm", "lstm_size": 2}])
def test_sequences_are_augmented_too(fields):
    one, other = learnt("shift", steps=2, fields=fields)
    assert one.metrics["loss"] != other.metrics["loss"]  # nothing else of it is drawn
