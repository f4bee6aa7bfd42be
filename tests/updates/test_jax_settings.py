"""Verbs and targets under JAX's settings: without jit, strict promotion, 8-bit floats, explicit meshes."""

import contextlib

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from jax.sharding import AxisType
from jax.sharding import PartitionSpec as P

from polyak import updates
from polyak.updates import target

FLOAT8 = jnp.float8_e4m3fn
RULES = ["incremental:0.5", "periodic:2", "incremental:cosine(0.5,10)", "none", "frozen"]


def plain(dtype=jnp.float32):
    new = {"w": jnp.arange(4.0).astype(dtype), "n": jnp.int32(3)}
    return new, jax.tree.map(jnp.zeros_like, new)


@contextlib.contextmanager
def without_jit():
    with jax.disable_jit():
        yield plain()


@contextlib.contextmanager
def strict():
    with jax.numpy_dtype_promotion("strict"):
        yield plain()


@contextlib.contextmanager
def strict_16_bits():
    with jax.numpy_dtype_promotion("strict"):
        yield plain(jnp.bfloat16)


@contextlib.contextmanager
def eight_bits():
    yield plain(FLOAT8)


@contextlib.contextmanager
def explicit_mesh():
    """The target replicated, what it learns from split."""
    with jax.set_mesh(jax.make_mesh((1,), ("x",), axis_types=(AxisType.Explicit,))):
        new, old = plain()
        yield new | {"w": jax.device_put(new["w"], P("x"))}, old | {"w": jax.device_put(old["w"], P(None))}


@pytest.fixture(params=[without_jit, strict, strict_16_bits, eight_bits, explicit_mesh], ids=lambda f: f.__name__)
def trees(request):
    with request.param() as found:
        yield found


def values(tree):
    return [np.asarray(leaf, np.float32).tolist() for leaf in jax.tree.leaves(tree)]


def check_layout(found, like):
    for leaf, old in zip(jax.tree.leaves(found), jax.tree.leaves(like), strict=True):
        assert leaf.dtype == old.dtype
        assert jax.typeof(leaf).sharding == jax.typeof(old).sharding


def test_the_verbs(trees):
    new, old = trees
    for step_size in (0.5, jnp.float32(0.5)):
        moved = updates.incremental_update(new, old, step_size)
        assert values(moved) == [3.0, [0.0, 0.5, 1.0, 1.5]]
        check_layout(moved, old)
    for steps, expected in ((4, new), (5, old)):
        copied = updates.periodic_update(new, old, steps, 2)
        assert values(copied) == values(expected)
        check_layout(copied, old)
    added = updates.apply_updates(old, new)
    assert values(added) == values(new)
    check_layout(added, old)
    given = jax.tree.map(jnp.copy, old)
    assert values(updates.incremental_update(new, given, 0.5, donate=True)) == values(moved)


@pytest.mark.parametrize("text", RULES)
def test_targets(text, trees):
    new, old = trees
    rule = updates.parse(text)
    state = target.init(rule, old)
    for _ in range(2):
        state = target.update(rule, new, state)
    found = target.read(rule, new, state)[0]
    first = {"periodic:2": [0.0, 1.0, 2.0, 3.0], "none": [0.0, 1.0, 2.0, 3.0], "frozen": [0.0] * 4}
    if text in first:
        assert values(found)[1] == first[text]
    else:
        np.testing.assert_allclose(values(found)[1], [0.0, 0.75, 1.5, 2.25], rtol=0.05)
    assert {leaf.dtype for leaf in jax.tree.leaves(found)} == {leaf.dtype for leaf in jax.tree.leaves(new)}


def test_a_step_below_the_resolution_of_8_bits_is_warned_of():
    with pytest.warns(UserWarning, match=r"step_size 0.05 is below 0.125, the resolution of float8_e4m3fn"):
        updates.incremental_update(*plain(FLOAT8), 0.05)


def test_a_python_number_is_a_leaf_without_jit_too():
    with jax.disable_jit():
        assert float(updates.incremental_update({"w": 1.0}, {"w": 0.0}, 0.25)["w"]) == 0.25


def test_shrink_and_perturb_in_8_bits():
    follow = updates.learner(lambda *_: (0.0, updates.LossOutput()), optax.sgd(0.1), {})
    old, new = (follow.init({"torso": jnp.full(1, value, FLOAT8)}) for value in (1.0, 0.0))
    assert values(updates.shrink_and_perturb(old, new, ["torso"], 0.75).params) == [[0.75]]


@pytest.mark.parametrize(
    ("promotion", "dtype"), [("standard", FLOAT8), ("strict", jnp.bfloat16)], ids=["8 bits", "strict"]
)
def test_updates_that_jax_does_not_add_are_an_error_that_names_the_leaf(promotion, dtype):
    with (
        jax.numpy_dtype_promotion(promotion),
        pytest.raises(TypeError, match=rf"torso/w: params is {jnp.dtype(dtype)} and updates is float32, .*Convert the"),
    ):
        updates.apply_updates({"torso": {"w": jnp.zeros(2, dtype)}}, {"torso": {"w": jnp.ones(2)}})
