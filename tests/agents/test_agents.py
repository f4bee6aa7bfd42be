"""One contract for every agent there is: what holds of the table, row by row."""

import dataclasses
import signal
from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from polyak.agents import AGENTS, Agent, DQNConfig, dqn
from polyak.experiments.loops.carry import specs
from polyak.experiments.loops.learning import AGREEMENT, CHURN
from polyak.experiments.runs import train as runs
from polyak.experiments.runs.config import from_json
from polyak.replay import EnvironmentSpec, TimeStep
from polyak.updates import LearnerState
from small_runs import records

SPEC = EnvironmentSpec(jax.ShapeDtypeStruct((4,), np.dtype(np.float32)), num_actions=3, action_mask=True)
NUM_ENVS = 4
RULES = ["periodic:2", "incremental:0.1", "incremental:0.1@2", "incremental:cosine(0.1)", "frozen", "none"]
# Sizes of a test; what makes an agent what it is stays.
SMALL = {
    "hidden_sizes": (8, 8),
    "batch_size": 4,
    "num_atoms": 5,
    "num_quantiles": 3,
    "num_heads": 3,
    "lstm_size": 4,
    "learning_rate_schedule": "constant",
}


def small(name, **fields):
    config = dataclasses.replace(AGENTS[name], **{**SMALL, **fields})
    return (
        dataclasses.replace(config, burn_in=2, sequence_length=5, sequence_period=5)
        if config.sequence_length
        else config
    )


def make(config):
    return dqn(config, SPEC, total_learner_steps=100)


def drawn(agent, config, seed=0):
    """A sample of the shapes that the loop draws for this agent, of random numbers."""
    rng = np.random.default_rng(seed)

    def fill(leaf):
        dtype = np.dtype(leaf.dtype)
        if dtype == np.bool_:
            return np.ones(leaf.shape, dtype)
        if np.issubdtype(dtype, np.integer):
            return rng.integers(0, SPEC.num_actions, leaf.shape).astype(dtype)
        return rng.uniform(0, 1, leaf.shape).astype(dtype)

    return jax.tree.map(fill, specs(agent, SPEC, config, NUM_ENVS)[0])


def shown(agent):
    memory = agent.initial_memory(jax.random.key(3), NUM_ENVS)
    a_tm1 = jnp.zeros(NUM_ENVS, jnp.int32) if jax.tree.leaves(memory) else ()
    mask = jnp.ones((NUM_ENVS, 3), bool).at[:, 0].set(False)
    observation = jax.random.normal(jax.random.key(4), (NUM_ENVS, *SPEC.observation.shape))
    return memory, TimeStep(observation, jnp.zeros(NUM_ENVS), jnp.ones(NUM_ENVS, bool), mask, a_tm1)


def shapes(tree):
    return jax.tree.map(lambda leaf: (leaf.shape, leaf.dtype), tree)


def differ(one, other):
    return any((np.asarray(x) != np.asarray(y)).any() for x, y in zip(*map(jax.tree.leaves, (one, other)), strict=True))


class Row(NamedTuple):
    """A row of the table, small, with its programs compiled once for all tests of it."""

    name: str
    config: DQNConfig
    agent: Agent
    state: LearnerState
    learn: Callable[..., Any]


@pytest.fixture(scope="module", params=AGENTS)
def row(request):
    config = small(request.param)
    agent = make(config)
    return Row(request.param, config, agent, agent.init(jax.random.key(0)), jax.jit(agent.learn))


def test_init_is_a_function_of_its_key(row):
    assert not differ(row.state.params, row.agent.init(jax.random.key(0)).params)
    assert differ(row.state.params, row.agent.init(jax.random.key(1)).params)
    assert {leaf.dtype.name for leaf in jax.tree.leaves(row.state)} <= {"float32", "int32", "uint32"}


@pytest.mark.parametrize("how", ["act", "act_greedily"])
def test_actions_are_legal(row, how):
    act = jax.jit(getattr(row.agent, how) or row.agent.act)
    memory, timestep = shown(row.agent)
    for key in jax.random.split(jax.random.key(1), 8):
        acted = act(key, row.state, memory, timestep)
        assert acted.action.shape == (NUM_ENVS,)
        assert acted.action.dtype == jnp.int32
        assert ((acted.action >= 1) & (acted.action < 3)).all()  # action 0 is illegal
        assert shapes(acted.memory) == shapes(memory)
        memory, timestep = acted.memory, timestep._replace(first=jnp.zeros(NUM_ENVS, bool))
    assert act._cache_size() == 1


def test_learning(row):
    sample = drawn(row.agent, row.config)
    after = row.state
    for key in jax.random.split(jax.random.key(2), 3):
        after, output = row.learn(key, after, sample)
    assert differ(row.state.params, after.params)
    assert shapes(after) == shapes(row.state)
    assert output.priorities.shape == (row.config.batch_size,)
    assert np.isfinite(output.priorities).all()
    assert (np.asarray(output.priorities) >= 0).all()
    assert all(np.isfinite(value) and value.shape == () for value in output.metrics.values())
    # Another sample leads elsewhere, the same one to the same.
    other, _ = row.learn(jax.random.key(5), row.state, drawn(row.agent, row.config, seed=1))
    again, _ = row.learn(jax.random.key(5), row.state, drawn(row.agent, row.config, seed=1))
    assert differ(other.params, after.params)
    assert not differ(other, again)
    assert row.learn._cache_size() == 1


def test_importance_weights_weigh_the_loss(row):
    sample = drawn(row.agent, row.config)._replace(weights=np.ones(row.config.batch_size, np.float32))
    _, whole = row.learn(jax.random.key(2), row.state, sample)
    _, half = row.learn(jax.random.key(2), row.state, sample._replace(weights=sample.weights / 2))
    assert float(half.metrics["loss"]) == pytest.approx(float(whole.metrics["loss"]) / 2, rel=1e-4)


@pytest.mark.parametrize("rule", RULES)
def test_every_kind_of_rule(row, rule):
    agent = make(small(row.name, target=rule))
    state = jax.eval_shape(agent.init, jax.random.key(0))
    after, _ = jax.eval_shape(agent.learn, jax.random.key(1), state, drawn(agent, row.config))
    assert shapes(after) == shapes(state)
    assert bool(jax.tree.leaves(state.targets["q"].params)) == (rule != "none")


def test_greedy_actions_are_those_of_the_network(row):
    sample = drawn(row.agent, row.config)
    actions = row.agent.greedy_actions(row.state.params, sample)
    assert actions.dtype == jnp.int32
    assert actions.shape[0] == row.config.batch_size
    if row.config.memory == "none":
        memory, timestep = shown(row.agent)
        seen = timestep._replace(observation=sample.transition.obs_tm1, action_mask=sample.transition.action_mask_tm1)
        act = row.agent.act_greedily(jax.random.key(0), row.state, memory, seen)
        assert actions.tolist() == act.action.tolist()


def test_seeds_and_rules_make_different_runs(row):
    sample = drawn(row.agent, row.config)
    one, _ = row.learn(jax.random.key(2), row.agent.init(jax.random.key(1)), sample)
    other, _ = row.learn(jax.random.key(2), row.state, sample)
    assert differ(one.params, other.params)


RESUMED = ["prioritized_dqn", "bootstrapped_dqn"]  # in the suite; the rest of the table in .ci/run
TARGETS = ["periodic:10", "incremental:0.01", None]  # in turn; None: the agent's own


@pytest.mark.parametrize(
    ("name", "target"),
    [
        pytest.param(name, TARGETS[number % 3], marks=() if name in RESUMED else pytest.mark.slow)
        for number, name in enumerate(AGENTS)
    ],
)
def test_runs_are_resumed_to_the_bit(name, target, tmp_path):
    fields = {"steps": 240, "log_every": 60, "checkpoint_every": 60, "evaluation_episodes": 1, "num_envs": 2}
    agent = {**SMALL, "learning_starts": 60, "replay_capacity": 150, "train_every": 4, "learner_steps": 2}
    if AGENTS[name].sequence_length:
        agent |= {"sequence_length": 5, "burn_in": 2, "sequence_period": 3}
    agent |= {} if target is None else {"target": target}
    config = from_json({**fields, "agent": {"name": name, **agent}})

    def silent(said):
        pass

    def interrupt(record):
        if record["step"] == 120:
            signal.raise_signal(signal.SIGINT)

    result = runs.train(config, tmp_path / "whole", silent, silent)
    assert runs.train(config, tmp_path / "parts", interrupt, silent) is None
    assert runs.resume(tmp_path / "parts", silent, silent) == result
    assert records(tmp_path / "parts") == records(tmp_path / "whole")
    last = records(tmp_path / "whole")[-1]
    assert 0 <= last[CHURN] <= 1
    assert 0 <= last[AGREEMENT] <= 1
    assert last["learner_steps"] > 0
    with (
        np.load(tmp_path / "parts" / "parameters.npz") as ours,
        np.load(tmp_path / "whole" / "parameters.npz") as whole,
    ):
        assert all(ours[name].tobytes() == whole[name].tobytes() for name in whole.files)


def test_rainbow_with_all_six_off_is_dqn():
    switched_off = dataclasses.replace(
        AGENTS["rainbow"],
        double=False,
        dueling=False,
        noisy=False,
        n_steps=1,
        priority_exponent=0.0,
        head="q",
    )
    plain = dataclasses.replace(AGENTS["dqn"], double=False, n_steps=1)
    # What is left of the difference is exploration and the numbers that only the switched parts read.
    left = {
        field.name
        for field in dataclasses.fields(DQNConfig)
        if getattr(switched_off, field.name) != getattr(plain, field.name)
    }
    assert left <= {"epsilon_final", "epsilon_fraction", "v_min", "v_max", "num_atoms", "noisy_sigma"}
    same = {name: getattr(plain, name) for name in ("learning_rate", "target", *SMALL)}
    one, other = (make(dataclasses.replace(config, **same)) for config in (switched_off, plain))
    state, theirs = one.init(jax.random.key(0)), other.init(jax.random.key(0))
    sample = drawn(one, plain)
    for key in jax.random.split(jax.random.key(1), 3):
        state, _ = jax.jit(one.learn)(key, state, sample)
        theirs, _ = jax.jit(other.learn)(key, theirs, sample)
    assert not differ(state, theirs)
