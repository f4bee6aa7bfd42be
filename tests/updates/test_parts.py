"""Named targets and their parts: the text, the rules it becomes, and what each part of a tree then does."""

import functools
import re
from fractions import Fraction

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from polyak import updates
from polyak.updates import LossOutput, Target, TargetRule, diagnostics, learner, target

NAMES = ("q", "encoder")
COUNTS = st.integers(1, 10**7)
STEP_SIZES = st.floats(1e-6, 1.0, exclude_max=True)
RULES = st.one_of(
    st.builds(updates.periodic, COUNTS),
    st.builds(updates.incremental, STEP_SIZES, COUNTS),
    st.builds(updates.incremental_cosine, STEP_SIZES, COUNTS, COUNTS),
    st.just(updates.frozen()),
    st.just(updates.none()),
)
PREFIXES = st.lists(st.text("abz_~09-.é[]", min_size=1, max_size=5), min_size=1, max_size=4).map("/".join)
PARTITIONS = st.builds(updates.partition, RULES, st.dictionaries(PREFIXES, RULES, min_size=1, max_size=4))
NAMED = st.dictionaries(st.sampled_from(NAMES), st.one_of(RULES, PARTITIONS), min_size=1)


@settings(max_examples=200, deadline=None, derandomize=True)
@given(NAMED)
def test_the_text_of_named_targets_leads_back_to_them(rules):
    text = updates.text_named(rules)
    assert updates.parse_named(text, NAMES) == rules
    assert updates.text_named(updates.parse_named(text, NAMES)) == text


@settings(max_examples=100, deadline=None, derandomize=True)
@given(PARTITIONS)
def test_the_text_of_one_partition_leads_back_to_it(rule):
    assert updates.parse_named(str(rule), ("q",)) == {"q": rule}


@pytest.mark.parametrize(
    ("text", "rules"),
    [
        ("periodic:100 q/torso=none", {"q": 100, "q/torso": 0}),
        ("q/torso=none q=periodic:100", {"q": 100, "q/torso": 0}),
        ("periodic:100 /torso=none", {"q": 100, "q/torso": 0}),
        ("none q/head=periodic:100", {"q": 0, "q/head": 100}),
        ("periodic:5 q/torso/mlp=periodic:6 q/torso=periodic:7", {"q": 5, "q/torso": 7, "q/torso/mlp": 6}),
        (
            "q=periodic:500 encoder=periodic:3 encoder/projector = none",
            {"q": 500, "encoder": 3, "encoder/projector": 0},
        ),
    ],
)
def test_texts_by_hand(text, rules):
    flat = updates.rules_by_part(updates.parse_named(text, NAMES))
    assert {name: rule.period for name, rule in flat.items()} == rules


def test_parts_have_environment_steps_and_the_cosine_of_the_run():
    text = (
        "periodic:500env q/head=periodic:50env q/torso=incremental:cosine(0.1, 7)@5env q/gate=incremental:cosine(0.2)"
    )
    rules = updates.parse_named(text, ("q",), horizon=1000, environment_steps_per_learner_step=Fraction(5, 2))
    assert rules["q"] == updates.Partition(
        TargetRule(1.0, 200),
        {"head": TargetRule(1.0, 20), "torso": TargetRule(0.1, 2, 7), "gate": TargetRule(0.2, 1, 1000)},
    )
    with pytest.raises(ValueError, match=r"periodic:50env.*the ratio to learner steps is not known"):
        updates.parse_named("periodic:500 q/head=periodic:50env", ("q",))


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("periodic:5 q/torso=none q/torso=frozen", "'q/torso' has two rules in 'periodic:5 q/torso=none q/torso="),
        ("periodic:5 q/torso=none /torso=frozen", "'q/torso' has two rules"),
        ("periodic:5 p/torso=none", "got the name 'p'; this agent's targets are q, encoder"),
        ("q/torso=none", "has rules for parts of 'q' but no main rule for 'q'. Write 'q=RULE q/torso=none'"),
        ("periodic:5 encoder/torso=none", "has rules for parts of 'encoder' but no main rule for 'encoder'"),
        ("periodic:5 q/=none", "got 'q/'; expected NAME/PREFIX, as in 'q/torso'"),
        ("periodic:5 q/torso/=none", "got 'q/torso/'; expected NAME/PREFIX"),
        ("periodic:5 q//torso=none", "got 'q//torso'; expected NAME/PREFIX"),
        ("q/torso", "got 'q/torso'; expected one of periodic:K"),
        ("periodic:5 q/torso=", "got ''; expected one of periodic:K"),
        ("periodic:5 q/torso=hard:3", "Did you mean 'periodic:3'?"),
        ("=none", "got the name ''; this agent's targets are q, encoder"),
    ],
)
def test_texts_that_do_not_parse(text, message):
    with pytest.raises(ValueError, match=re.escape(message)):
        updates.parse_named(text, NAMES)


@pytest.mark.parametrize("prefix", ["", "/torso", "torso/", "a//b", "a b", "a=b", "a:b", "a@b", "a(b)"])
def test_prefixes_that_have_no_text(prefix):
    with pytest.raises(ValueError, match=re.escape(f"parts: got the prefix {prefix!r}")):
        updates.partition(updates.frozen(), {prefix: updates.none()})


PARAMS = {
    "head/~/linear": {"b": jnp.zeros(1), "w": jnp.zeros(2)},
    "torso/mlp/~/linear_0": {"w": jnp.zeros(2)},
    "torso/mlp/~/linear_1": {"w": jnp.zeros(2)},
    "torso2/linear": {"w": jnp.zeros(2)},
}


@pytest.mark.parametrize(
    ("text", "wanted"),
    [
        ("periodic:5", ["", "", "", "", ""]),
        ("periodic:5 q/torso=none", ["", "", "torso", "torso", ""]),
        ("periodic:5 q/torso=none q/torso/mlp/~/linear_1=frozen", ["", "", "torso", "torso/mlp/~/linear_1", ""]),
        ("periodic:5 q/torso/mlp/~/linear_1=frozen q/torso=none", ["", "", "torso", "torso/mlp/~/linear_1", ""]),
        ("periodic:5 q/head/~/linear/b=frozen", ["head/~/linear/b", "", "", "", ""]),
    ],
)
def test_a_prefix_matches_whole_components_and_the_longest_wins(text, wanted):
    assert updates.parts.parts_of_leaves(updates.parse_named(text, ("q",))["q"], PARAMS) == wanted


def test_a_part_that_matches_nothing_lists_the_modules():
    rule = updates.parse_named("periodic:5 q/tors=none", ("q",))["q"]
    modules = "head/~/linear, torso/mlp/~/linear_0, torso/mlp/~/linear_1, torso2/linear"
    message = re.escape(f"target: no parameter matches 'q/tors'; the modules are {modules}. Did you mean 'q/torso'?")
    with pytest.raises(ValueError, match=message):
        target.init(rule, PARAMS, name="q")
    made = learner(lambda *_: (jnp.zeros(()), LossOutput()), optax.sgd(0.1), {"q": Target(rule)})
    with pytest.raises(ValueError, match=message):
        made.init(PARAMS)
    covered = updates.parse_named("periodic:5 q/head=none q/head/~/linear=frozen", ("q",))["q"]
    with pytest.raises(ValueError, match="no parameter matches '/head'"):
        target.init(covered, PARAMS)


def test_leaves_under_none_are_not_stored_and_are_read_from_online_without_gradient():
    rule = updates.partition(updates.periodic(2), {"torso": updates.none()})
    online = {"head": jnp.ones(2), "torso": jnp.ones(3, jnp.bfloat16), "nothing": None}
    state = target.init(rule, online)
    assert [leaf.shape for leaf in jax.tree.leaves(state.params)] == [(2,)]
    changed = {"head": jnp.full(2, 5.0), "torso": jnp.full(3, 7, jnp.bfloat16), "nothing": None}
    read, _ = target.read(rule, changed, state)
    assert (read["head"].tolist(), read["torso"].tolist(), read["nothing"]) == ([1, 1], [7, 7, 7], None)
    assert read["torso"].dtype == jnp.bfloat16

    def of_read(online):
        return sum(jnp.sum(leaf.astype(jnp.float32)) for leaf in jax.tree.leaves(target.read(rule, online, state)[0]))

    gradients = jax.grad(of_read)({"head": jnp.ones(2), "torso": jnp.ones(3), "nothing": None})
    assert all(not leaf.any() for leaf in jax.tree.leaves(gradients))


def test_the_module_state_follows_every_part():
    online, at_4 = {"head": jnp.ones(2), "torso": jnp.ones(2)}, {"mean": jnp.full(1, 4.0)}
    for text, wanted in (("frozen q/head=periodic:2", [0, 4]), ("frozen q/head=none", [4, 4])):
        rule = updates.parse_named(text, ("q",))["q"]
        state, seen = target.init(rule, online, {"mean": jnp.zeros(1)}), []
        for _ in range(2):
            state = target.update(rule, online, state, state=at_4)
            seen.append(float(target.read(rule, online, state, at_4)[1]["mean"][0]))
        assert seen == wanted


def network(params, x):
    return jnp.tanh(x @ params["torso/mlp"]["w"]) @ params["head/linear"]["w"]


def loss(key, params, state, targets, batch):
    x, y = batch
    bootstrap_target = y + 0.9 * network(targets["q"].params, x)
    return jnp.mean((network(params, x) - bootstrap_target) ** 2), LossOutput(metrics={"read": targets["q"].params})


def trained(rule, steps=9):
    """Online parameters and what the loss and a reader get of the target, at each step of a small regression."""
    made = learner(loss, optax.adam(0.05), {"q": Target(rule)})
    keys = jax.random.split(jax.random.key(0), 4)
    state = made.init(
        {"torso/mlp": {"w": jax.random.normal(keys[0], (3, 4))}, "head/linear": {"w": jax.random.normal(keys[1], (4,))}}
    )
    batch = (jax.random.normal(keys[2], (8, 3)), jax.random.normal(keys[3], (8,)))
    step, onlines, read_by_loss, read = jax.jit(made.step), [state.params], [], []
    for key in jax.random.split(jax.random.key(1), steps):
        state, output = step(key, state, batch)
        onlines.append(state.params)
        read_by_loss.append(output.metrics["read"])
        read.append(target.read(rule, state.params, state.targets["q"])[0])
    return onlines, read_by_loss, read


def same(x, y):
    return np.asarray(x).tobytes() == np.asarray(y).tobytes()


@pytest.mark.parametrize("text", ["periodic:3 q/torso=none", "none q/head=periodic:3"])
def test_a_target_of_the_head_alone_shares_the_torso(text):
    onlines, read_by_loss, read = trained(updates.parse_named(text, ("q",))["q"])
    for step in range(1, 10):
        before, after = read_by_loss[step - 1], read[step - 1]
        assert same(before["torso/mlp"]["w"], onlines[step - 1]["torso/mlp"]["w"])
        assert same(after["torso/mlp"]["w"], onlines[step]["torso/mlp"]["w"])
        assert same(before["head/linear"]["w"], onlines[(step - 1) // 3 * 3]["head/linear"]["w"])
        assert same(after["head/linear"]["w"], onlines[step // 3 * 3]["head/linear"]["w"])
        assert not same(onlines[step]["head/linear"]["w"], onlines[step - 1]["head/linear"]["w"])


def test_a_copy_at_every_step_equals_none_to_the_bit():
    onlines, read_by_loss, read = trained(updates.periodic(1))
    for text in ("none", "periodic:1 q/torso=none", "none q/head=periodic:1"):
        others = trained(updates.parse_named(text, ("q",))["q"])
        for x, y in zip(jax.tree.leaves((onlines, read_by_loss, read)), jax.tree.leaves(others), strict=True):
            assert same(x, y)


def test_a_part_moves_as_a_target_of_its_own_would():
    text = "incremental:cosine(0.3,8) q/a=none q/b=incremental:cosine(0.5,4)@2 q/c=incremental:0.1"
    rule = updates.parse_named(text, ("q",))["q"]
    single = {**rule.parts, "d": rule.main}
    online_at = functools.cache(lambda k: dict(zip("abcd", jax.random.normal(jax.random.key(k), (4, 2)), strict=True)))
    state = target.init(rule, online_at(0))
    alone = {name: target.init(single[name], online_at(0)[name]) for name in single}
    for k in range(1, 10):
        state = target.update(rule, online_at(k), state)
        alone = {name: target.update(single[name], online_at(k)[name], alone[name]) for name in single}
        read, _ = target.read(rule, online_at(k), state)
        for name in single:
            assert same(read[name], target.read(single[name], online_at(k)[name], alone[name])[0])


def test_traced_partitions_are_lanes_of_one_program():
    lanes = [
        updates.parse_named(text, ("q",))["q"]
        for text in (
            "periodic:3 q/head=none",
            "frozen q/head=incremental:0.1@2",
            "none q/head=incremental:cosine(0.2,6)",
        )
    ]
    stacked = jax.tree.map(lambda *fields: jnp.asarray(fields), *lanes)

    def run(rule):
        def at(k):
            return {"head": jax.random.normal(jax.random.key(k), (2,)), "torso": jnp.full(2, k, jnp.float32)}

        state = target.init(rule, at(0))
        for k in range(1, 8):
            state = target.update(rule, at(k), state)
        return target.read(rule, at(7), state)[0]

    together = jax.jit(jax.vmap(run))(stacked)
    for lane, rule in enumerate(lanes):
        for name, leaf in run(rule).items():
            np.testing.assert_allclose(together[name][lane], leaf, rtol=1e-6)


def test_a_call_outside_jit_is_one_program_and_a_donated_one_repeats():
    online = {"head": [jnp.ones(4) for _ in range(20)], "torso": [jnp.ones(4) for _ in range(20)]}
    rule = updates.partition(updates.periodic(2), {"torso": updates.none()})
    state = target.update(rule, online, target.init(rule, online), donate=True)
    with jax.log_compiles(), pytest.MonkeyPatch.context() as patch:
        compiled = []
        patch.setattr("logging.Logger.handle", lambda self, record: compiled.append(record.getMessage()))
        for period in (1, 3):
            rule = updates.partition(updates.periodic(period), {"torso": updates.none()})
            state = target.update(rule, online, state, donate=True)
    assert not compiled
    pointers = {leaf.unsafe_buffer_pointer() for leaf in jax.tree.leaves(online)}
    assert pointers.isdisjoint(leaf.unsafe_buffer_pointer() for leaf in jax.tree.leaves(state))


def test_a_target_made_under_another_partition_names_the_leaves():
    online = {"head": jnp.ones(2), "torso": jnp.ones(2)}
    state = target.init(updates.partition(updates.periodic(2), {"torso": updates.none()}), online)
    with pytest.raises(ValueError, match="only in params: torso; only in target: nothing"):
        target.update(updates.periodic(2), online, state)


def test_distances_and_ages_of_targets_and_parts():
    targets = {
        "q": Target(updates.parse_named("periodic:500 q/head=periodic:7 q/torso=none", ("q",))["q"]),
        "average": Target(updates.incremental(0.1), select=lambda params: params["head"]),
    }
    zeros = {"head": jnp.zeros(2), "rest": jnp.zeros(1), "torso": jnp.zeros(2), "n": jnp.array(0)}
    online = {"head": jnp.array([3.0, 4.0]), "rest": jnp.array([12.0]), "torso": jnp.ones(2), "n": jnp.array(5)}
    states = updates.init_targets(targets, zeros)
    measured = jax.jit(lambda online, states: diagnostics.distances(targets, online, states))(online, states)
    assert {name: float(value) for name, value in measured.items()} == {
        "q": 13.0,
        "q/head": 5.0,
        "q/torso": 0.0,
        "average": 5.0,
    }
    assert all(value.dtype == jnp.float32 for value in measured.values())
    counted = {name: state._replace(count=jnp.uint32(1203)) for name, state in states.items()}
    since = diagnostics.steps_since_updates(targets, counted)
    assert {name: int(value) for name, value in since.items()} == {"q": 203, "q/head": 6, "q/torso": 0, "average": 0}
    assert since.keys() == measured.keys()
