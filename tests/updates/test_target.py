"""The slow copy: every promise of its state, each seen to fail when it is broken."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from polyak import updates
from polyak.updates import TargetRule, target

RULES = {
    "periodic:3": updates.periodic(3),
    "incremental:0.1": updates.incremental(0.1),
    "incremental:0.1@2": updates.incremental(0.1, 2),
    "incremental:cosine(0.1,6)": updates.incremental_cosine(0.1, 6),
    "frozen": updates.frozen(),
    "none": updates.none(),
}


def online_at(step):
    key = jax.random.key(step)
    return {
        "w": jax.random.normal(key, (3, 2)),
        "half": jax.random.normal(key, (4,)).astype(jnp.bfloat16),
        "n": jnp.array([step, step]),
        "flag": jnp.array(step % 2 == 0),
        "key": key,
        "nothing": None,
        "empty": {},
    }


def reference(rule, steps):
    """The float leaf under ``rule``, in NumPy, from the definition."""
    w = np.asarray(online_at(0)["w"])
    for k in range(1, steps + 1):
        if rule.period == 0:
            w = np.asarray(online_at(k)["w"])
        elif k % rule.period == 0:
            size = float(updates.step_size_at(rule, k - 1))
            w = size * np.asarray(online_at(k)["w"]) + (1 - size) * w
    return w


@pytest.mark.parametrize("rule", RULES.values(), ids=RULES)
def test_seven_steps_by_the_definition(rule):
    state = target.init(rule, online_at(0))
    for k in range(1, 8):
        state = target.update(rule, online_at(k), state)
        read, _ = target.read(rule, online_at(k), state)
        np.testing.assert_allclose(read["w"], reference(rule, k), rtol=1e-5)
    assert int(state.count) == 7
    assert state.count.dtype == jnp.uint32


def test_toy_by_hand():
    state = target.init(updates.incremental(0.1), jnp.zeros(()))
    seen = []
    for _ in range(3):
        state = target.update(updates.incremental(0.1), jnp.ones(()), state)
        seen.append(float(state.params))
    assert seen == pytest.approx([0.1, 0.19, 0.271])


def test_a_hard_update_is_a_copy_to_the_bit_whatever_the_target_held():
    online = {"w": jnp.array([1.1, jnp.nan, -0.0, 1e-40]), "half": jnp.array([1.1, jnp.inf], jnp.bfloat16)}
    state = target.init(updates.periodic(1), {"w": jnp.full(4, jnp.nan), "half": jnp.full(2, jnp.inf, jnp.bfloat16)})
    state = target.update(updates.periodic(1), online, state)
    read, _ = target.read(updates.periodic(1), online, state)
    for name in online:
        assert np.asarray(read[name]).tobytes() == np.asarray(online[name]).tobytes()


@pytest.mark.parametrize("rule", [updates.frozen(), TargetRule(0.0, 3)])
def test_step_size_zero_changes_nothing(rule):
    first = online_at(0)
    state = target.init(rule, first)
    for k in range(1, 8):
        state = target.update(rule, online_at(k), state, state=())
    read, _ = target.read(rule, online_at(7), state)
    assert np.asarray(read["w"]).tobytes() == np.asarray(first["w"]).tobytes()
    assert read["n"].tolist() == [0, 0]
    assert jnp.array_equal(jax.random.key_data(read["key"]), jax.random.key_data(first["key"]))


def test_integers_booleans_and_keys_are_copied_when_the_rule_fires_and_only_then():
    rule = updates.incremental(0.1, period=2)
    state = target.init(rule, online_at(0))
    for k, wanted in [(1, 0), (2, 2), (3, 2), (4, 4)]:
        state = target.update(rule, online_at(k), state)
        assert state.params["n"].tolist() == [wanted, wanted]
        assert bool(state.params["flag"]) == (wanted % 2 == 0)
        assert jnp.array_equal(jax.random.key_data(state.params["key"]), jax.random.key_data(jax.random.key(wanted)))


def test_a_bfloat16_target_converges_where_the_verb_stalls():
    online = {"w": jax.random.normal(jax.random.key(1), (512,)).astype(jnp.bfloat16)}
    start = jax.tree.map(lambda w: (w + 0.3).astype(w.dtype), online)
    rule = updates.incremental(0.005)
    state = target.init(rule, start)
    assert state.params["w"].dtype == jnp.float32
    state = jax.jit(
        lambda state: jax.lax.fori_loop(0, 3000, lambda _, state: target.update(rule, online, state), state)
    )(state)
    read, _ = target.read(rule, online, state)
    assert read["w"].dtype == jnp.bfloat16
    np.testing.assert_allclose(np.asarray(read["w"], np.float32), np.asarray(online["w"], np.float32), atol=1e-6)


def test_init_copies_every_leaf_and_the_second_donated_step_succeeds():
    online = {"w": jnp.ones(256), "half": jnp.ones(256, jnp.bfloat16), "n": jnp.arange(256)}
    rule = updates.periodic(1)
    state = target.init(rule, online)
    for name in online:
        assert state.params[name].unsafe_buffer_pointer() != online[name].unsafe_buffer_pointer()
    step = jax.jit(
        lambda online, state: (jax.tree.map(lambda x: x + 1, online), target.update(rule, online, state)),
        donate_argnums=(0, 1),
    )
    for _ in range(3):
        online, state = step(online, state)
        assert not any(leaf.is_deleted() for leaf in jax.tree.leaves((online, state)))
    # Eager and donated: the result may not be the online tree's memory either.
    state = target.update(rule, online, state, donate=True)
    assert state.params["w"].unsafe_buffer_pointer() != online["w"].unsafe_buffer_pointer()
    target.update(rule, online, state, donate=True)
    with pytest.raises(ValueError, match="donated to an earlier call"):
        target.update(rule, online, state)


def test_no_gradient_flows_through_what_is_read():
    for rule in RULES.values():
        state = target.init(rule, jnp.ones(2))
        gradient = jax.grad(lambda w, rule=rule, state=state: target.read(rule, w, state)[0].sum())(jnp.ones(2))
        assert gradient.tolist() == [0, 0]


def test_none_keeps_no_copy():
    state = target.init(updates.none(), online_at(0), state={"mean": jnp.ones(2)})
    assert jax.tree.leaves(state.params) == jax.tree.leaves(state.state) == []
    state = target.update(updates.none(), online_at(1), state)
    params, module_state = target.read(updates.none(), online_at(5), state, {"mean": jnp.zeros(2)})
    assert params["n"].tolist() == [5, 5]
    assert module_state["mean"].tolist() == [0, 0]
    assert int(state.count) == 1


@pytest.mark.slow
def test_every_rule_is_a_lane_of_one_compiled_program():
    lanes = list(RULES.values())
    stacked = TargetRule(
        *(jnp.array(field, dtype) for field, dtype in zip(zip(*lanes, strict=True), ("f4", "i4", "i4"), strict=True))
    )
    traces = []

    @jax.jit
    def run(rule):
        traces.append(rule)
        start = target.init(rule, {"w": online_at(0)["w"], "n": online_at(0)["n"]})
        for k in range(1, 8):
            start = target.update(rule, {"w": online_at(k)["w"], "n": online_at(k)["n"]}, start)
        return start.params

    batched = jax.jit(jax.vmap(run))(stacked)
    mapped = jax.jit(lambda rules: jax.lax.map(run, rules))(stacked)
    for lane, rule in enumerate(lanes):
        single = run(TargetRule(jnp.float32(rule.step_size), jnp.int32(rule.period), jnp.int32(rule.horizon)))
        for several in (batched, mapped):
            np.testing.assert_allclose(several["w"][lane], single["w"], rtol=1e-6)
            assert several["n"][lane].tolist() == single["n"].tolist()
        np.testing.assert_allclose(single["w"], reference(rule, 7), rtol=1e-5)
    assert len(traces) == 1  # whatever the rule, the one program


def test_module_state_is_copied_when_the_rule_fires():
    rule = updates.incremental(0.5, period=2)
    state = target.init(rule, jnp.zeros(1), state={"mean": jnp.zeros(1), "counter": jnp.array(0)})
    for k, wanted in [(1, 0), (2, 2), (3, 2), (4, 4)]:
        online_state = {"mean": jnp.full(1, k, jnp.float32), "counter": jnp.array(k)}
        state = target.update(rule, jnp.ones(1), state, state=online_state)
        assert float(state.state["mean"][0]) == int(state.state["counter"]) == wanted
    kept = target.update(rule, jnp.ones(1), target.update(rule, jnp.ones(1), state))
    assert int(kept.state["counter"]) == 4


def test_partition_gives_parts_rules_of_their_own():
    online = {"torso": {"w": jnp.ones(2)}, "head": {"w": jnp.ones(2)}, "gate": {"w": jnp.ones(2)}}
    rule = updates.partition(updates.incremental(0.25), {"head": updates.periodic(2), "gate/w": updates.frozen()})
    state = target.init(rule, jax.tree.map(jnp.zeros_like, online))
    state = target.update(rule, online, state)
    assert [float(state.params[name]["w"][0]) for name in ("torso", "head", "gate")] == [0.25, 0, 0]
    state = jax.jit(lambda state: target.update(rule, online, state))(state)
    assert [float(state.params[name]["w"][0]) for name in ("torso", "head", "gate")] == [0.4375, 1, 0]
    wrong = updates.partition(updates.frozen(), {"fast": updates.none()})
    with pytest.raises(ValueError, match="no parameter matches '/fast'; the modules are gate, head, torso"):
        target.init(wrong, online)


def test_mismatches_name_the_leaf():
    state = target.init(updates.periodic(2), {"m": {"w": jnp.ones(3)}})
    with pytest.raises(ValueError, match=r"m/w: params has shape \(1,\) and target has shape \(3,\)"):
        target.update(updates.periodic(2), {"m": {"w": jnp.ones(1)}}, state)
    with pytest.raises(ValueError, match="only in params: m/b; only in target: m/w"):
        target.update(updates.periodic(2), {"m": {"b": jnp.ones(3)}}, state)
    with pytest.raises(ValueError, match="increment: got -1"):
        target.update(updates.periodic(2), {"m": {"w": jnp.ones(3)}}, state, -1)


def test_a_call_outside_jit_is_one_compiled_program():
    online = [jnp.ones(4) for _ in range(50)]
    rule, state = updates.incremental(0.1), target.init(updates.incremental(0.1), online)
    state = target.update(rule, online, state)
    with jax.log_compiles(), pytest.MonkeyPatch.context() as patch:
        compiled = []
        patch.setattr("logging.Logger.handle", lambda self, record: compiled.append(record.getMessage()))
        for step_size in (0.2, 0.3):
            state = target.update(updates.incremental(step_size, 7), online, state)
    assert not compiled


def test_diagnostics():
    online = {"w": jnp.array([3.0, 4.0]), "n": jnp.array(7)}
    state = target.init(updates.periodic(500), {"w": jnp.zeros(2), "n": jnp.array(0)})
    measured = updates.diagnostics.target_distance(updates.periodic(500), online, state)
    assert float(measured) == 5.0
    none = target.init(updates.none(), online)
    assert float(updates.diagnostics.target_distance(updates.none(), online, none)) == 0.0
    state = state._replace(count=jnp.uint32(1203))
    assert int(updates.diagnostics.steps_since_update(updates.periodic(500), state)) == 203
    assert int(updates.diagnostics.steps_since_update(updates.incremental(0.1), state)) == 0
    assert int(updates.diagnostics.steps_since_update(updates.frozen(), state)) == 1203
    assert float(updates.diagnostics.gradient_norm({"a": jnp.array(3.0), "b": jnp.array(4.0)})) == 5.0
