"""One contract for agents of every head, on transitions and on sequences; targets by name, rule and part; presets."""

from collections.abc import Callable
from fractions import Fraction
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from agent_samples import (
    SIZES,
    SPEC,
    STEPS,
    copy,
    equal,
    learn,
    make,
    make_config,
    random_sample,
    random_state,
    timestep,
)
from polyak import updates
from polyak.agents import AGENTS, PRESETS, Agent, AgentConfig, evaluation_state, make_agent, make_configs
from polyak.agents.agent_network import torso_name
from polyak.agents.loop_config import Sequences
from polyak.agents.parts import leaves
from polyak.replay import EnvironmentSpec

MASKED = SPEC._replace(action_mask=True)
ATOMS, NOISY = {"num_atoms": 5, "v_min": -1.0, "v_max": 5.0}, {"noisy_sigma": 0.5}
# Fields of an agent, number of steps of its sequences (None: transitions), and whether learning and acting draw.
KINDS: dict[str, tuple[dict[str, Any], int | None, bool, bool]] = {
    "scalar": ({"double": True}, None, False, False),
    "scalar_lstm": (
        {"core": "lstm", "burn_in": 1, "dueling": True, "value_rescaling": True, "error": "squared"},
        3,
        False,
        False,
    ),
    "categorical": (
        {"head": "categorical", **ATOMS, "dueling": True, **NOISY, "double": True},
        None,
        True,
        True,
    ),
    "categorical_sequences": ({"head": "categorical", **ATOMS}, 3, False, False),
    "categorical_noisy_lstm": ({"head": "categorical", **ATOMS, "core": "lstm", **NOISY}, 2, True, True),
    "hl_gauss": ({"head": "hl_gauss", **ATOMS, "optimizer": "rmsprop"}, None, False, False),
    "quantile": ({"head": "quantile", "optimizer": "adamw"}, None, False, False),
    "quantile_lstm": ({"head": "quantile", "core": "lstm"}, 2, False, False),
    "implicit_quantile": ({"head": "implicit_quantile", "bootstrap": "munchausen"}, None, True, False),
    "implicit_quantile_sequences": ({"head": "implicit_quantile", "bootstrap": "munchausen"}, 4, True, False),
    "ensemble": ({"head": "ensemble", "double": True}, None, False, True),
    "iterated": ({"head": "iterated", "target": "none"}, None, False, True),
    "ensemble_lstm": ({"head": "ensemble", "core": "lstm", "bootstrap": "munchausen"}, 2, False, True),
}


class Kind(NamedTuple):
    """Agent of a kind, with its programs compiled once for all tests of it; ``learn`` donates the state."""

    config: AgentConfig
    steps: int | None
    learn_draws: bool
    act_draws: bool
    agent: Agent
    learn: Callable[..., Any]


# Their programs take longest to compile, and each has its parts in common with two others.
SLOW = ("categorical_noisy_lstm", "ensemble_lstm", "quantile_lstm", "implicit_quantile_sequences", "categorical")


@pytest.fixture(
    scope="module", params=[pytest.param(kind, marks=pytest.mark.slow if kind in SLOW else ()) for kind in KINDS]
)
def kind(request):
    fields, steps, learn_draws, act_draws = KINDS[request.param]
    present = leaves(make_config(**fields))
    config = make_config(**{name: size for name, size in SIZES.items() if name in present} | fields)
    agent = make_agent(config, MASKED, total_learner_steps=STEPS)
    return Kind(config, steps, learn_draws, act_draws, agent, jax.jit(agent.learn, donate_argnums=1))


def sample_of(kind, seed=0):
    return random_sample(kind.config, MASKED, steps=kind.steps, n_steps=3, seed=seed)


def shapes(tree):
    return jax.tree.map(lambda leaf: (leaf.shape, leaf.dtype), tree)


def test_learning(kind):
    start, sample = random_state(kind.agent), sample_of(kind)
    expected = jax.eval_shape(kind.agent.init, jax.random.key(0))
    assert {leaf.dtype.name for leaf in jax.tree.leaves(expected)} <= {"float32", "int32", "uint32"}
    after = copy(start)
    for key in jax.random.split(jax.random.key(2), 3):
        after, output = kind.learn(key, after, sample)
        assert shapes(after) == shapes(expected)
    assert not equal(start.params, after.params)
    assert output.priorities.shape == (4,)
    assert (np.asarray(output.priorities) >= 0).all()
    assert all(np.isfinite(leaf).all() for leaf in jax.tree.leaves((after, output)))
    assert all(value.shape == () for value in output.metrics.values())
    # It is a function of key, state and sample.
    key = jax.random.key(5)
    one, _ = kind.learn(key, copy(start), sample)
    again, _ = kind.learn(key, copy(start), sample)
    assert equal(one, again)
    assert not equal(kind.learn(key, copy(start), sample_of(kind, seed=1))[0].params, one.params)
    other_key, _ = kind.learn(jax.random.key(6), copy(start), sample)
    assert equal(other_key.params, one.params) != kind.learn_draws
    # A state that was written down and read is the state.
    resumed, _ = kind.learn(key, copy(jax.tree.map(np.asarray, again)), sample)
    assert equal(resumed, kind.learn(key, again, sample)[0])
    assert kind.learn._cache_size() == 1


def test_importance_weights_weight_the_loss(kind):
    state, sample = random_state(kind.agent), sample_of(kind)
    _, whole = kind.learn(jax.random.key(2), copy(state), sample)
    _, half = kind.learn(jax.random.key(2), copy(state), sample._replace(weights=sample.weights / 2))
    assert float(half.metrics["loss"]) == pytest.approx(float(whole.metrics["loss"]) / 2, rel=1e-4)


def test_acting(kind):
    state, sample, agent = random_state(kind.agent), sample_of(kind), kind.agent
    recurrent_state = jax.tree.map(np.asarray, agent.initial_recurrent_state(jax.random.key(3), 4))
    shown, drawn = timestep(kind.config, MASKED), sample.transition

    @jax.jit
    def program(key, state, recurrent_state, shown, sample):
        acted, evaluated = (act(key, state, recurrent_state, shown) for act in (agent.act, agent.evaluate_act))
        return acted, evaluated, agent.greedy_actions(updates.Variables(state.params, state.state), sample)

    actions, greedy = set(), set()
    for key in jax.random.split(jax.random.key(1), 12):
        acted, evaluated, _ = program(key, state, recurrent_state, shown, sample)
        for action in (acted.action, evaluated.action):
            assert action.shape == (4,)
            assert action.dtype == jnp.int32
            assert ((action >= 1) & (action < 3)).all()  # action 0 is illegal
        assert shapes(acted.recurrent_state) == shapes(evaluated.recurrent_state) == shapes(recurrent_state)
        actions.add(tuple(acted.action.tolist()))
        greedy.add(tuple(evaluated.action.tolist()))
    assert (len(actions) > 1) == kind.act_draws
    assert len(greedy) == 1  # evaluation draws nothing
    if kind.steps is None:
        shown = shown._replace(observation=drawn.obs_tm1, action_mask=drawn.action_mask_tm1)
    _, evaluated, on_sample = program(key, state, recurrent_state, shown, sample)
    assert on_sample.dtype == jnp.int32
    assert on_sample.shape == ((4,) if kind.steps is None else (4, kind.steps))
    if kind.steps is None:
        assert on_sample.tolist() == evaluated.action.tolist()
    assert program._cache_size() == 1


# --- Init and targets -------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def plain():
    """Agent, and its states of two seeds."""
    agent = make(average="incremental:0.5", target="periodic:2", learning_rate=0.1)
    return agent, [agent.init(jax.random.key(seed)) for seed in (0, 0, 1)]


def test_init_is_a_function_of_its_key(plain):
    agent, (first, again, other) = plain
    assert equal(first, again)
    differ = jax.tree.map(lambda x, y: bool((x != y).any()), first.params, other.params)
    assert differ["torso/mlp/~/linear_0"]["w"]
    assert equal(agent.init(jax.random.PRNGKey(0)), first)  # a key of the old kind is a key


def test_the_target_starts_as_a_copy_and_the_average_is_evaluated(plain):
    agent, (state, *_) = plain
    assert list(agent.targets) == ["q", "average"]
    assert all(equal(target.params, state.params) for target in state.targets.values())
    before = jax.tree.map(np.asarray, state.params)
    state, _ = learn(agent, random_sample(make_config()), steps=1, state=state)
    evaluated = evaluation_state(agent, state).params
    for first, online, average in zip(*map(jax.tree.leaves, (before, state.params, evaluated)), strict=True):
        np.testing.assert_allclose(average, (first + online) / 2, rtol=1e-5, atol=1e-7)
    assert list(make().targets) == ["q"]


@pytest.mark.parametrize(
    "rule", ["periodic:2", "incremental:0.1", "incremental:0.1@2", "incremental:cosine(0.1)", "frozen", "none"]
)
@pytest.mark.parametrize("fields", [{}, {"head": "quantile", "core": "lstm"}], ids=["scalar", "quantile_lstm"])
def test_every_kind_of_rule(rule, fields):
    agent = make(target=rule, average="incremental:0.1", **fields)
    sample = random_sample(make_config(**fields), steps=2 if fields else None)
    state = jax.eval_shape(agent.init, jax.random.key(0))
    after, _ = jax.eval_shape(agent.learn, jax.random.key(1), state, sample)
    assert shapes(after) == shapes(state)
    assert bool(jax.tree.leaves(state.targets["q"].params)) == (rule != "none")


def test_a_target_that_is_copied_at_every_step_is_none_to_the_bit():
    found = []
    for rule in ("periodic:1", "none"):
        agent = make(target=rule, learning_rate=0.05)
        found.append(learn(agent, random_sample(make_config()), steps=5))
    (one, output), (other, output_of_none) = found
    assert equal(one.params, other.params)
    assert equal(output, output_of_none)


def test_a_target_of_the_head_alone():
    agent = make(target="periodic:3 q/torso=none", learning_rate=0.05)
    state, step = random_state(agent), jax.jit(agent.learn)
    rule, sample, head = agent.targets["q"].rule, random_sample(make_config()), state.params["head/q_values"]
    heads = []
    for number in range(1, 8):
        state, _ = step(jax.random.key(number), state, sample)
        slow, _ = updates.target.read(rule, state.params, state.targets["q"])
        online = state.params
        assert equal(slow["torso/mlp/~/linear_0"], online["torso/mlp/~/linear_0"])
        head = online["head/q_values"] if number % 3 == 0 else head
        assert equal(slow["head/q_values"], head)
        heads.append(np.asarray(slow["head/q_values"]["w"]).tobytes())
    assert len(set(heads)) == 3  # of steps 1 and 2, 3 to 5, 6 and 7


def test_the_state_has_no_copy_of_a_part_without_a_target():
    agent = make(target="periodic:3 q/torso=none")
    kept = jax.eval_shape(agent.init, jax.random.key(0)).targets["q"].params
    assert sum(leaf.size for leaf in jax.tree.leaves(kept)) == 8 * 3 + 3


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"target": "periodic:0.005"}, r"Did you mean 'incremental:0.005'"),
        ({"target": "encoder=frozen"}, r"got the name 'encoder'; this agent's targets are q"),
        ({"average": "incremental:3"}, r"average: .*Did you mean 'periodic:3'"),
        ({"torso": "nature"}, r"torso: got 'nature' and observations of shape \(2,\).*Try --torso auto"),
        ({"augmentation": "shift"}, r"augmentation: got 'shift' and observations of shape \(2,\)"),
    ],
)
def test_bad_fields(fields, message):
    with pytest.raises(ValueError, match=message):
        make(**fields)


def test_a_part_of_a_target_that_matches_nothing():
    with pytest.raises(ValueError, match=r"encoder.*head/q_values"):
        jax.eval_shape(make(target="periodic:3 q/encoder=none").init, jax.random.key(0))


def test_a_period_in_environment_steps():
    options = {"environment_steps_per_learner_step": Fraction(2)}
    assert str(make(options=options, target="periodic:500env").targets["q"].rule) == "periodic:250"
    with pytest.raises(ValueError, match=r"The nearest valid periods: 2env or 4env"):
        make(options=options, target="periodic:3env")


def test_images_go_through_the_nature_torso():
    spec = EnvironmentSpec(jax.ShapeDtypeStruct((84, 84, 4), jnp.uint8), num_actions=3)
    for torso, is_convolutional in (("auto", True), ("nature", True), ("mlp", False)):
        params = jax.eval_shape(make(spec, torso=torso).init, jax.random.key(0)).params
        assert any("conv" in name for name in params) == is_convolutional
    assert torso_name(AgentConfig(), SPEC) == "mlp"


# --- Agents and presets -----------------------------------------------------------------------------------------------

SHAPES = {"classic": ((4,), np.float32), "minatar": ((10, 10, 4), np.float32), "atari": ((84, 84, 4), np.uint8)}


IN_THE_SUITE = ("dqn", "rainbow", "bootstrapped_dqn", "r2d2")  # of images; the other agents in .ci/run


@pytest.mark.parametrize(
    ("name", "preset"),
    [
        pytest.param(name, preset, marks=() if preset == "classic" or name in IN_THE_SUITE else pytest.mark.slow)
        for preset in PRESETS
        for name in AGENTS
    ],
)
def test_every_agent_of_every_preset(name, preset):
    configs = make_configs(name, preset)
    spec = EnvironmentSpec(jax.ShapeDtypeStruct(SHAPES[preset][0], np.dtype(SHAPES[preset][1])), num_actions=3)
    windows = configs.loop.draw.windows
    burn_in = configs.agent.network.core.burn_in if configs.agent.network.core else 0
    steps = burn_in + windows.sequence_length if isinstance(windows, Sequences) else None
    ratio = configs.loop.environment_steps_per_learner_step
    agent = make_agent(configs.agent, spec, total_learner_steps=STEPS, environment_steps_per_learner_step=ratio)
    state = jax.eval_shape(agent.init, jax.random.key(0))
    sample = jax.eval_shape(lambda: random_sample(configs.agent, spec, steps=steps, batch=2))
    after, output = jax.eval_shape(agent.learn, jax.random.key(0), state, sample)
    assert shapes(after) == shapes(state)
    assert output.priorities.shape == (2,)


def test_rainbow_with_all_parts_off_is_dqn():
    off = {
        "head": "scalar",
        "double": False,
        "dueling": False,
        "noisy_sigma": None,
        "n_steps": 1,
        "sampling": "uniform",
        "epsilon": make_configs("dqn").loop.exploration.epsilon,
        "target": make_configs("dqn").agent.target,
    }
    rainbow, dqn = make_configs("rainbow", fields=off), make_configs("dqn")
    assert rainbow == dqn
    small = {"hidden_sizes": (8,)}
    found = []
    for name, fields in (("rainbow", off), ("dqn", {})):
        config = make_configs(name, fields={**small, **fields}).agent
        agent = make_agent(config, SPEC, total_learner_steps=STEPS)
        found.append(learn(agent, random_sample(config), steps=4))
    assert equal(*found)
    # It is the parts that make the difference: with any of them on, the configs differ.
    for name in off:
        assert make_configs("rainbow", fields={key: value for key, value in off.items() if key != name}) != dqn


def test_steps_that_are_not_finite_are_undone():
    agent = make(skip_nonfinite=True)
    sample = random_sample(make_config())
    bad = sample._replace(transition=sample.transition._replace(r_t=np.full(4, np.nan, np.float32)))
    state = random_state(agent)
    after, output = learn(agent, bad, steps=1, state=state)
    assert equal(after, state)
    assert float(output.metrics["skipped"]) == 1
