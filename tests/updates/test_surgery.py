"""Surgery: the declared leaves of parameters, targets and optimizer state are new, and nothing else changes."""

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from polyak import updates
from polyak.updates import LossOutput, Periodic, Target, learner, reset, shift_heads, shrink_and_perturb

RULES = {"q": updates.incremental(0.1), "encoder": updates.periodic(3), "free": updates.none()}


def begin(seed, optimizer, *, dtype=jnp.float32, separate=False):
    """State of a learner after three steps, and the learner; the leaf ``w`` of the root ends as others' paths do."""

    def loss(key, params, state, targets, batch):
        slow = sum(jnp.sum(leaf) for target in targets.values() for leaf in jax.tree.leaves(target.params))
        return sum(jnp.sum((leaf - 0.1 * slow) ** 2) for leaf in jax.tree.leaves(params)), LossOutput(state)

    def select(params):
        return {name: params[name] for name in ("torso/linear", "torso2") if name in params}

    targets = {name: Target(rule) for name, rule in RULES.items()}
    targets["encoder"] = targets["encoder"]._replace(select=select)
    made = learner(loss, optimizer, targets)
    keys = iter(jax.random.split(jax.random.key(seed), 20))
    shapes = {"torso/linear": {"w": (2, 3), "b": (3,)}, "torso2": {"w": (2,)}, "head/linear": {"w": (3, 1)}, "w": (2,)}
    params = jax.tree.map(
        lambda shape: jax.random.normal(next(keys), shape, dtype), shapes, is_leaf=lambda x: isinstance(x, tuple)
    )
    state = made.init(params, {"norm": {"mean": jax.random.normal(next(keys), (2,))}})
    return made, state


def trained(made, state):
    for key in jax.random.split(jax.random.key(9), 3):
        state, _ = made.step(key, state, None)
    return state


OPTIMIZERS = {
    "adam": optax.adam(0.01),
    "clipped adamw": optax.chain(optax.clip_by_global_norm(1.0), optax.adamw(0.01)),
    "momentum": optax.sgd(0.01, momentum=0.9),
    "two rates": optax.partition(
        {"fast": optax.adam(0.1), "slow": optax.adam(0.01)},
        lambda params: jax.tree_util.tree_map_with_path(
            lambda path, _: "fast" if "head" in jax.tree_util.keystr(path) else "slow", params
        ),
    ),
}


def changed(before, after):
    """Paths of the leaves that differ, over parameters, targets, module state and optimizer state."""
    entries, others = (jax.tree_util.tree_flatten_with_path(state)[0] for state in (before, after))
    assert [path for path, _ in entries] == [path for path, _ in others]
    pairs = [
        (jax.tree_util.keystr(path, simple=True, separator="/"), x, y)
        for (path, x), (_, y) in zip(entries, others, strict=True)
    ]
    assert all(x.dtype == y.dtype for _, x, y in pairs)
    return {path for path, x, y in pairs if not np.array_equal(x, y)}


def paths(state, *parts):
    """Paths of all leaves below the given parts of the parameters, read off without our own functions."""
    every = [jax.tree_util.keystr(path, simple=True, separator="/") for path, _ in jax.tree.leaves_with_path(state)]
    return {path for path in every if any(f"/{part}/" in f"/{path}/" for part in parts)}


@pytest.mark.parametrize("optimizer", OPTIMIZERS.values(), ids=OPTIMIZERS)
def test_a_reset_touches_the_declared_leaves_and_nothing_else(optimizer):
    made, state = begin(0, optimizer)
    state, fresh = trained(made, state), begin(1, optimizer)[1]
    after = reset(state, fresh, ["torso/linear", "head"])
    declared = paths(state, "torso/linear", "head")
    assert changed(state, after) == declared
    assert changed(fresh, after).isdisjoint(declared)
    assert any(path.startswith("optimizer_state") for path in declared)
    assert {"targets/q/params/head/linear/w", "targets/encoder/params/torso/linear/w"} <= declared


def test_a_leaf_whose_path_is_the_end_of_others_is_reset_alone():
    made, state = begin(0, optax.adam(0.01))
    state, fresh = trained(made, state), begin(1, optax.adam(0.01))[1]
    wanted = {"params/w", "targets/q/params/w", "optimizer_state/0/mu/w", "optimizer_state/0/nu/w"}
    assert changed(state, reset(state, fresh, ["w"])) == wanted


def test_shrinking_by_hand_in_parameters_and_targets_alone():
    made, state = begin(0, optax.adam(0.01))
    state, fresh = trained(made, state), begin(1, optax.adam(0.01))[1]
    after = shrink_and_perturb(state, fresh, ["torso"], 0.8)
    wanted = {path for path in paths(state, "torso/linear") if not path.startswith("optimizer_state")}
    assert changed(state, after) == wanted
    for read in (lambda s: s.params, lambda s: s.targets["q"].params, lambda s: s.targets["encoder"].params):
        old, new, found = (np.asarray(read(s)["torso/linear"]["w"], np.float64) for s in (state, fresh, after))
        np.testing.assert_allclose(found, 0.8 * old + 0.2 * new, rtol=1e-6)
    assert changed(state, shrink_and_perturb(state, fresh, ["torso"], 1.0)) == set()


def test_sixteen_bits_are_mixed_in_float32_and_integers_are_kept():
    optimizer = optax.sgd(0.01)
    _, state = begin(0, optimizer, dtype=jnp.bfloat16)
    _, fresh = begin(1, optimizer, dtype=jnp.bfloat16)
    state, fresh = (
        s._replace(params=s.params | {"torso2": {"w": jnp.arange(2) + i}}) for i, s in enumerate((state, fresh))
    )
    state, fresh = (s._replace(targets={}) for s in (state, fresh))
    after = shrink_and_perturb(state, fresh, ["torso", "torso2"], 0.5)
    old, new, found = (s.params["torso/linear"]["w"] for s in (state, fresh, after))
    wanted = (0.5 * old.astype(jnp.float32) + 0.5 * new.astype(jnp.float32)).astype(jnp.bfloat16)
    assert found.dtype == jnp.bfloat16
    assert found.tolist() == wanted.tolist()
    assert after.params["torso2"]["w"].tolist() == [0, 1]
    assert reset(state, fresh, ["torso2"]).params["torso2"]["w"].tolist() == [1, 2]


def test_nothing_is_shared_with_the_fresh_state_and_both_can_be_donated():
    made, state = begin(0, optax.adam(0.01))
    fresh = begin(1, optax.adam(0.01))[1]
    after = reset(state, fresh, ["head"])
    jax.tree.map(lambda leaf: leaf.delete(), fresh)
    after, _ = jax.jit(made.step, donate_argnums=1)(jax.random.key(0), after, None)
    assert np.isfinite(after.params["head/linear"]["w"]).all()


def test_under_jit_it_is_what_it_is_outside():
    made, state = begin(0, optax.adam(0.01))
    state, fresh = trained(made, state), begin(1, optax.adam(0.01))[1]
    inside = jax.jit(lambda state, fresh: reset(state, fresh, ["head"]))(state, fresh)
    assert changed(inside, reset(state, fresh, ["head"])) == set()


@pytest.mark.parametrize(
    ("parts", "message"),
    [
        ([], r"parts: got \[\]; expected a list"),
        ("head", "parts: got 'head'; expected a list"),
        (["heat"], "no parameter matches 'heat'; the modules are .*torso2.* Did you mean 'head'"),
        (["tor"], "no parameter matches 'tor'; the modules are"),
    ],
)
def test_parts_that_are_none(parts, message):
    _, state = begin(0, optax.adam(0.01))
    with pytest.raises(ValueError, match=message):
        reset(state, state, parts)


def test_a_weight_out_of_range_and_states_that_do_not_line_up():
    _, state = begin(0, optax.adam(0.01))
    with pytest.raises(ValueError, match=r"shrink: got 1.5; expected a number in \[0, 1\]"):
        shrink_and_perturb(state, state, ["head"], 1.5)
    other = state._replace(params=state.params | {"torso2": {"w": jnp.ones(3)}})
    with pytest.raises(ValueError, match=r"torso2/w: state has shape \(2,\) and fresh has shape \(3,\)"):
        reset(state, other, ["head"])


@pytest.mark.parametrize(("period", "last", "calls"), [(50, None, 1), (50, 149, 7), (3, 20, 8)])
def test_an_operation_fires_at_every_crossing_as_a_target_rule_does(period, last, calls):
    operation, rule, steps = Periodic(period, lambda key, state: state, last), updates.periodic(period), 0
    target = updates.target.init(rule, {"w": jnp.zeros(())})
    for call in range(1, 1 + 200 // calls):
        before, steps = steps, steps + calls
        moved = updates.target.update(rule, {"w": jnp.float32(call)}, target, calls)
        fired = bool(moved.params["w"] != target.params["w"])
        target = moved
        multiples = [step for step in range(before + 1, steps + 1) if step % period == 0]
        assert fired == bool(multiples)
        due = any(last is None or multiple <= last for multiple in multiples)
        assert (operation.count(steps) > operation.count(before)) == due, steps


# --- Shift of heads ---------------------------------------------------------------------------------------------------


def chain(optimizer):
    """State of a learner of two heads of two outputs behind head 0, after three steps; only these two have a loss."""

    def loss(key, params, state, targets, batch):
        values = params["torso"]["w"] @ params["head/q_values"]["w"] + params["head/q_values"]["b"][None]
        return jnp.sum((values[..., 2:] - jnp.arange(1.0, 5.0)[None]) ** 2), LossOutput(state)

    made = learner(loss, optimizer, {"q": Target(updates.periodic(2)), "free": Target(updates.none())})
    w = jnp.arange(18.0).reshape(3, 6) / 10
    params = {"torso": {"w": jnp.ones((2, 3))}, "head/q_values": {"w": w, "b": jnp.zeros(6)}, "head/mlp": {"b": w[0]}}
    return trained(made, made.init(params))


@pytest.mark.parametrize("optimizer", OPTIMIZERS.values(), ids=OPTIMIZERS)
@pytest.mark.parametrize("shift_moments", [False, True])
def test_blocks_move_down_by_one_place_in_parameters_and_targets(optimizer, shift_moments):
    before = chain(optimizer)
    after = jax.jit(lambda state: shift_heads(state, ["head/q_values"], 3, shift_moments=shift_moments))(before)
    read = (lambda s: s.params, lambda s: s.targets["q"].params)
    for tree in read:
        for name in ("w", "b"):
            old, new = (np.asarray(tree(state)["head/q_values"][name]) for state in (before, after))
            assert np.array_equal(new, np.concatenate([old[..., 2:4], old[..., 4:6], old[..., 4:6]], axis=-1))
    found = changed(before, after)
    moments = {path for path in found if path.startswith("optimizer_state")}
    assert found - moments == {path for path in paths(before, "head/q_values") if not path.startswith("optimizer")}
    # The moments of head 0 are 0 before and after, and those of the last head are kept.
    declared = {path for path in paths(before, "head/q_values") if path.startswith("optimizer_state")}
    assert moments == (declared if shift_moments else set())
    entries = [jax.tree.leaves_with_path(state.optimizer_state) for state in (before, after)]
    for (path, old), (_, new) in zip(*entries, strict=True):
        if shift_moments and "q_values" in jax.tree_util.keystr(path):
            assert not old[..., :2].any()
            assert np.array_equal(new, np.concatenate([old[..., :2], old[..., 4:6], old[..., 4:6]], axis=-1))


def test_two_heads_are_a_copy_of_the_last_one_and_a_factored_moment_is_kept():
    optimizer = optax.scale_by_factored_rms(min_dim_size_to_factor=2)
    state = learner(lambda *_: (0.0, LossOutput()), optimizer, {}).init({"head": {"w": jnp.arange(8.0).reshape(2, 4)}})
    after = shift_heads(state, ["head"], 2, shift_moments=True)
    assert after.params["head"]["w"].tolist() == [[2, 3, 2, 3], [6, 7, 6, 7]]
    assert changed(state, after) == {"params/head/w"}


@pytest.mark.parametrize(
    ("parts", "num_heads", "message"),
    [
        (["head/q_values"], 1, r"num_heads: got 1; expected an integer >= 2"),
        (["head/q_values"], True, r"num_heads: got True; expected an integer >= 2"),
        (["head/q_values"], 4, r"head/q_values/b: got shape \(6,\), whose last axis does not have 4 blocks"),
        (
            ["torso"],
            2,
            r"torso/w: got shape \(2, 3\), whose last axis does not have 2 blocks .*Name only the last layer",
        ),
        (["heads"], 3, r"no parameter matches 'heads'; the modules are .*Did you mean 'head'"),
        ([], 3, r"parts: got \[\]; expected a list"),
    ],
)
def test_heads_that_cannot_be_shifted(parts, num_heads, message):
    with pytest.raises(ValueError, match=message):
        shift_heads(chain(optax.adam(0.1)), parts, num_heads)
