"""The three verbs: equal to optax's where optax is defined and finite, and the table of where they go further."""

import os
import subprocess
import sys

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from polyak import updates

VALUES = st.floats(-1e3, 1e3, width=16)
ignore_stalls = pytest.mark.filterwarnings("ignore:step_size .* is below")


@st.composite
def pairs_of_trees(draw):
    """Two trees of one random structure, shapes and dtypes; None leaves and empty subtrees among them."""

    def array(shape, dtype):
        values = draw(st.lists(VALUES, min_size=int(np.prod(shape)), max_size=int(np.prod(shape))))
        return jnp.asarray(np.reshape(np.array(values, np.float32), shape), dtype)

    def build(depth):
        kind = draw(st.sampled_from(["leaf", "leaf", "none", "dict", "tuple"] if depth else ["leaf", "none"]))
        if kind == "leaf":
            shape = draw(st.sampled_from([(), (1,), (3,), (2, 3)]))
            dtype = draw(st.sampled_from([jnp.float32, jnp.bfloat16, jnp.float16]))
            return array(shape, dtype), array(shape, dtype)
        if kind == "none":
            return None, None
        parts = [build(depth - 1) for _ in range(draw(st.integers(0, 3)))]
        if kind == "tuple":
            return tuple(a for a, _ in parts), tuple(b for _, b in parts)
        return {str(i): a for i, (a, _) in enumerate(parts)}, {str(i): b for i, (_, b) in enumerate(parts)}

    return build(2)


def assert_trees_equal(got, wanted, ulps=0):
    """One structure, dtypes and shapes; values within ``ulps`` of the leaf's dtype at the scale of the values."""
    assert jax.tree.structure(got) == jax.tree.structure(wanted)
    for x, y in zip(jax.tree.leaves(got), jax.tree.leaves(wanted), strict=True):
        assert (x.dtype, x.shape) == (y.dtype, y.shape)
        tolerance = ulps * float(jnp.finfo(x.dtype).eps)
        x, y = np.asarray(x, np.float64), np.asarray(y, np.float64)
        np.testing.assert_allclose(x, y, rtol=tolerance, atol=tolerance * 1e3)


@ignore_stalls
@settings(max_examples=20, deadline=None, derandomize=True)
@given(pairs_of_trees(), st.floats(0, 1, width=32))
def test_incremental_update_equals_optax(pair, step_size):
    new, old = pair
    got = updates.incremental_update(new, old, step_size)
    # optax rounds a 16-bit leaf after each operation, polyak once at the end.
    assert_trees_equal(got, optax.incremental_update(new, old, step_size), ulps=3)
    jitted = jax.jit(lambda new, old: updates.incremental_update(new, old, step_size))(new, old)
    assert_trees_equal(jitted, got, ulps=1)


@settings(max_examples=20, deadline=None, derandomize=True)
@given(pairs_of_trees(), st.integers(0, 30), st.integers(1, 9))
def test_periodic_update_equals_optax(pair, steps, period):
    new, old = pair
    wanted = optax.periodic_update(new, old, jnp.asarray(steps), period)
    assert_trees_equal(updates.periodic_update(new, old, steps, period), wanted)
    assert_trees_equal(jax.jit(updates.periodic_update)(new, old, steps, period), wanted)


@settings(max_examples=20, deadline=None, derandomize=True)
@given(pairs_of_trees())
def test_apply_updates_equals_optax(pair):
    params, changes = pair
    assert_trees_equal(updates.apply_updates(params, changes), optax.apply_updates(params, changes))
    assert_trees_equal(jax.jit(updates.apply_updates)(params, changes), optax.apply_updates(params, changes))


def test_periodic_update_copies_at_step_zero_as_optax_does():
    new, old = jnp.ones(2), jnp.zeros(2)
    assert updates.periodic_update(new, old, 0, 7).tolist() == optax.periodic_update(new, old, 0, 7).tolist() == [1, 1]


def test_apply_updates_adds_float32_updates_to_bfloat16_parameters():
    params, changes = {"w": jnp.ones(3, jnp.bfloat16), "n": jnp.arange(3)}, {"w": jnp.ones(3), "n": jnp.ones(3, int)}
    got = updates.apply_updates(params, changes)
    assert got["w"].dtype == jnp.bfloat16
    assert got["n"].tolist() == optax.apply_updates(params, changes)["n"].tolist() == [1, 2, 3]


# The table of differences from optax in docs/updates.md, row by row.


def test_integers_booleans_and_keys_are_copied_not_averaged():
    new = {"n": jnp.array([7, 8]), "b": jnp.array(True), "k": jax.random.key(1)}
    old = {"n": jnp.array([0, 0]), "b": jnp.array(False), "k": jax.random.key(0)}
    moved = updates.incremental_update(new, old, 0.1)
    assert moved["n"].tolist() == [7, 8]
    assert moved["n"].dtype == new["n"].dtype
    assert bool(moved["b"])
    assert moved["b"].dtype == jnp.bool_
    assert jnp.array_equal(jax.random.key_data(moved["k"]), jax.random.key_data(new["k"]))
    kept = updates.incremental_update(new, old, 0.0)
    assert kept["n"].tolist() == [0, 0]
    assert optax.incremental_update(new["n"], old["n"], 0.1).dtype == jnp.float32  # what the row says of optax


def test_apply_updates_leaves_keys_and_float0_alone():
    params = {"k": jax.random.key(3), "n": jnp.array(2)}
    changes = {"k": np.zeros((), jax.dtypes.float0), "n": np.zeros((), jax.dtypes.float0)}
    got = updates.apply_updates(params, changes)
    assert int(got["n"]) == 2
    assert jnp.array_equal(jax.random.key_data(got["k"]), jax.random.key_data(params["k"]))


@pytest.mark.parametrize("step_size", [np.float64(0.5), np.float32(0.5), jnp.float32(0.5), 0.5])
def test_the_dtype_of_the_step_size_never_changes_that_of_a_leaf(step_size):
    new, old = jnp.ones(2, jnp.bfloat16), jnp.zeros(2, jnp.bfloat16)
    moved = updates.incremental_update(new, old, step_size)
    assert moved.dtype == jnp.bfloat16
    assert moved.tolist() == [0.5, 0.5]
    assert optax.incremental_update(new, old, jnp.float32(0.5)).dtype == jnp.float32  # what the row says of optax


@pytest.mark.parametrize("jit", [False, True])
def test_step_size_one_is_a_copy_and_zero_no_change_to_the_bit(jit):
    verb = jax.jit(updates.incremental_update) if jit else updates.incremental_update
    new = jnp.array([1.1, 2.2, -0.0, 3e-39])
    old = jnp.array([jnp.nan, jnp.inf, -jnp.inf, 1.0])
    assert np.asarray(verb(new, old, 1.0)).tobytes() == np.asarray(new).tobytes()
    assert np.asarray(verb(old, new, 0.0)).tobytes() == np.asarray(new).tobytes()
    assert not np.isfinite(optax.incremental_update(new, old, 1.0)[0])  # what the row says of optax


def test_a_dtype_is_kept_with_cast_target_and_an_error_without():
    new, old = {"w": jnp.ones(2, jnp.bfloat16)}, {"w": jnp.zeros(2, jnp.float32)}
    with pytest.raises(ValueError, match=r'w: new_tensors is bfloat16 and old_tensors is float32.*cast="target"'):
        updates.incremental_update(new, old, 0.5)
    assert updates.incremental_update(new, old, 0.5, cast="target")["w"].dtype == jnp.float32
    assert updates.periodic_update(new, old, 0, 5, cast="target")["w"].dtype == jnp.float32
    with pytest.raises(ValueError, match="cast: got 'online'"):
        updates.periodic_update(new, old, 0, 5, cast="online")


def test_a_step_too_small_for_sixteen_bits_is_warned_of():
    old = jnp.zeros(2, jnp.bfloat16)
    with pytest.warns(UserWarning, match=r"below 0.0078125, the resolution of bfloat16.*keeps them in float32"):
        updates.incremental_update(old, old, 0.005)
    updates.incremental_update(old, old, 0.01)  # warnings are errors


@pytest.mark.parametrize(
    ("step_size", "error", "message"),
    [
        (1.5, ValueError, r"step_size: got 1.5; expected 0 <= step_size <= 1"),
        (-0.1, ValueError, r"step_size: got -0.1"),
        (float("nan"), ValueError, r"step_size: got nan"),
        (float("inf"), ValueError, r"step_size: got inf"),
        (500, ValueError, r"Did you mean a period of 500"),
        (np.float32(2.0), ValueError, r"step_size: got 2.0"),
        (True, TypeError, r"step_size: got True \(bool\)"),
        ("0.1", TypeError, r"step_size: got '0.1' \(str\)"),
        (None, TypeError, r"step_size: got None"),
        (jnp.ones(2), ValueError, r"step_size: got an array of shape \(2,\)"),
    ],
)
def test_bad_step_sizes(step_size, error, message):
    with pytest.raises(error, match=message):
        updates.incremental_update(jnp.ones(1), jnp.ones(1), step_size)


@pytest.mark.parametrize(
    ("steps", "period", "error", "message"),
    [
        (1, 0, ValueError, r"update_period: got 0; expected an integer >= 1"),
        (1, -5, ValueError, r"update_period: got -5"),
        (1, 0.005, ValueError, r"update_period: got 0.005.*Did you mean incremental\(0.005\)"),
        (1, 5.0, TypeError, r"update_period: got 5.0 \(float\)"),
        (1, True, TypeError, r"update_period: got True \(bool\)"),
        (1, float("nan"), TypeError, r"update_period: got nan"),
        (1.0, 5, TypeError, r"steps: got 1.0 \(float\)"),
        (-1, 5, ValueError, r"steps: got -1"),
        (jnp.float32(1), 5, TypeError, r"steps: got dtype float32"),
        (jnp.arange(2), 5, ValueError, r"steps: got an array of shape \(2,\)"),
    ],
)
def test_bad_periods_and_counters(steps, period, error, message):
    with pytest.raises(error, match=message):
        updates.periodic_update(jnp.ones(1), jnp.ones(1), steps, period)


@pytest.mark.parametrize("verb", [updates.apply_updates, lambda n, o: updates.incremental_update(n, o, 0.5)])
@pytest.mark.parametrize(
    ("new", "old", "error", "message"),
    [
        ({"a": 1.0}, {"b": 1.0}, ValueError, r"only in \w+: a; only in \w+: b"),
        ({"m": {"w": 1.0, "b": 1.0}}, {"m": {"w": 1.0}}, ValueError, r"only in \w+: m/b; only in \w+: nothing"),
        ({"w": jnp.ones(3)}, {"w": jnp.ones(1)}, ValueError, r"w: \w+ has shape \(3,\) and \w+ has shape \(1,\)"),
        ({"w": jnp.ones(3)}, {"w": {"x": jnp.ones(3)}}, ValueError, r"only in \w+: w; only in \w+: w/x"),
        ((1.0, 2.0), [1.0, 2.0], ValueError, r"containers of different types"),
        ({"w": 1.0}, {"w": None}, ValueError, r"only in \w+: w; only in \w+: nothing"),
        ({"w": "relu"}, {"w": 1.0}, TypeError, r"w: got str; expected an array"),
        ({"w": jnp.tanh}, {"w": 1.0}, TypeError, r"w: got \w+; expected an array"),
        ({"w": jax.ShapeDtypeStruct((1,), "float32")}, {"w": 1.0}, TypeError, r"w: got ShapeDtypeStruct"),
    ],
)
def test_trees_that_do_not_line_up(verb, new, old, error, message):
    with pytest.raises(error, match=message):
        verb(new, old)


def test_errors_name_the_leaf_at_trace_time_too():
    with pytest.raises(ValueError, match=r"mlp/~/linear_0/w: .*\(3,\).*\(1,\)"):
        jax.jit(lambda n, o: updates.incremental_update(n, o, 0.5))(
            {"mlp/~/linear_0": {"w": jnp.ones(3)}}, {"mlp/~/linear_0": {"w": jnp.ones(1)}}
        )


def test_float_and_integer_leaves_do_not_mix():
    with pytest.raises(ValueError, match="one is averaged and the other is copied"):
        updates.incremental_update({"w": jnp.ones(1)}, {"w": jnp.ones(1, int)}, 0.5, cast="target")


def test_numpy_python_and_none_leaves_are_taken():
    new = {"a": np.ones(2, np.float32), "b": 3.0, "c": None, "d": {}}
    old = {"a": np.zeros(2, np.float32), "b": 1.0, "c": None, "d": {}}
    moved = updates.incremental_update(new, old, 0.5)
    assert moved["a"].tolist() == [0.5, 0.5]
    assert float(moved["b"]) == 2.0
    assert moved["c"] is None
    assert moved["d"] == {}


def test_donation_reuses_the_old_tree_and_says_so_when_it_is_used_again():
    new, old = {"w": jnp.ones(1024)}, {"w": jnp.zeros(1024)}
    address = old["w"].unsafe_buffer_pointer()
    moved = updates.incremental_update(new, old, 0.5, donate=True)
    assert moved["w"].unsafe_buffer_pointer() == address
    assert not new["w"].is_deleted()
    with pytest.raises(ValueError, match=r"w: the array was donated to an earlier call.*Use the tree"):
        updates.incremental_update(new, old, 0.5)
    with pytest.raises(ValueError, match=r"shares an array.*`target = online`"):
        updates.incremental_update(new, new, 0.5, donate=True)


def test_a_hard_update_never_returns_an_array_of_the_online_tree():
    new, old = jnp.ones(64), jnp.zeros(64)
    copied = updates.periodic_update(new, old, 5, 5)
    assert copied.unsafe_buffer_pointer() != new.unsafe_buffer_pointer()
    assert updates.incremental_update(new, old, 1.0).unsafe_buffer_pointer() != new.unsafe_buffer_pointer()


def test_donation_inside_a_trace_is_harmless():
    def body(old, new):
        return updates.incremental_update(new, old, 0.5, donate=True), old

    last, _ = jax.jit(lambda old, new: jax.lax.scan(body, old, new))(jnp.zeros(2), jnp.ones((3, 2)))
    assert last.tolist() == [0.875, 0.875]


def test_one_program_serves_every_step_size_and_counter():
    new, old = {"w": jnp.ones(5)}, {"w": jnp.zeros(5)}
    updates.incremental_update(new, old, 0.5)
    updates.periodic_update(new, old, 1, 5)
    with jax.log_compiles(), pytest.MonkeyPatch.context() as patch:
        compiled = []
        patch.setattr("logging.Logger.handle", lambda self, record: compiled.append(record.getMessage()))
        updates.incremental_update(new, old, 0.25)
        updates.incremental_update(old, new, 0.75)
        updates.periodic_update(new, old, 2, 7)
    assert not compiled


def test_step_sizes_and_counters_are_lanes_under_vmap():
    new, old = jnp.array([1.0, 2.0]), jnp.zeros(2)
    soft = jax.vmap(lambda s: updates.incremental_update(new, old, s))(jnp.array([0.0, 0.5, 1.0]))
    assert soft.tolist() == [[0, 0], [0.5, 1], [1, 2]]
    hard = jax.vmap(lambda k: updates.periodic_update(new, old, k, 2))(jnp.arange(3))
    assert hard.tolist() == [[1, 2], [0, 0], [1, 2]]


def test_sharded_trees_keep_the_sharding_of_the_old_one(tmp_path):
    code = """
import jax, jax.numpy as jnp, numpy as np
from jax.sharding import Mesh, NamedSharding, PartitionSpec
from polyak import updates

here, there = (Mesh(np.array(jax.devices()[i : i + 2]), ("devices",)) for i in (0, 2))
halves, whole = NamedSharding(here, PartitionSpec("devices")), NamedSharding(here, PartitionSpec())
old = {"w": jax.device_put(jnp.zeros(8), halves)}
for sharding in (halves, whole):
    new = {"w": jax.device_put(jnp.arange(8.0), sharding)}
    for moved in (updates.incremental_update(new, old, 1.0), updates.periodic_update(new, old, 5, 5)):
        assert moved["w"].sharding == halves, moved["w"].sharding
        assert moved["w"].tolist() == list(range(8))
    slow = updates.target.init(updates.periodic(1), old)
    slow = updates.target.update(updates.periodic(1), new, slow)
    assert slow.params["w"].sharding == halves
try:
    updates.incremental_update({"w": jax.device_put(jnp.ones(8), NamedSharding(there, PartitionSpec()))}, old, 0.5)
except ValueError as error:
    print(error)
"""
    environment = os.environ | {"XLA_FLAGS": "--xla_force_host_platform_device_count=4", "JAX_PLATFORMS": "cpu"}
    done = subprocess.run([sys.executable, "-c", code], env=environment, cwd=tmp_path, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert "incompatible devices" in done.stdout
    assert "['w']" in done.stdout


def test_gradients_flow_through_an_incremental_update():
    gradient = jax.grad(lambda new: updates.incremental_update(new, jnp.zeros(2), 0.25).sum())(jnp.ones(2))
    assert gradient.tolist() == [0.25, 0.25]
