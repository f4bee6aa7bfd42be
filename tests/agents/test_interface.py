"""The interface holds agents that come later: two throwaway ones, recurrent and with BatchNorm, under every rule."""

from typing import NamedTuple

import gymnasium
import haiku as hk
import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from polyak import updates
from polyak.agents import ActOutput, Agent, DQNConfig
from polyak.experiments.environments.make import adapt
from polyak.experiments.loops.carry import initial_carry
from polyak.experiments.loops.host import host_loop
from polyak.replay import host
from polyak.updates import LossOutput, Target

RULES = ["periodic:3", "incremental:0.1", "incremental:0.1@2", "frozen", "none"]
CONFIG = DQNConfig(n_steps=1, batch_size=4, replay_capacity=50, learning_starts=8, train_every=2, learner_steps=1)
UNITS = 3


class Counting(gymnasium.Env):
    """Episodes of 3 steps; the observation is 1, 2, 3 and at last 4, the reward 1."""

    observation_space = gymnasium.spaces.Box(0, 10, (1,), np.float32)
    action_space = gymnasium.spaces.Discrete(2)

    def reset(self, *, seed=None, options=None):
        super().reset(seed=seed)
        self.t = 0
        return np.float32([1]), {}

    def step(self, action):
        self.t += 1
        return np.float32([self.t + 1]), 1.0, self.t == 3, False, {}


class Core(NamedTuple):
    """Recurrent state."""

    hidden: jax.Array
    cell: jax.Array


def recurrent_agent(rule):
    def forward(observation, memory):
        output, state = hk.LSTM(UNITS)(observation, hk.LSTMState(*memory))
        return hk.Linear(2)(output), Core(state.hidden, state.cell)

    network = hk.without_apply_rng(hk.transform(forward))

    def zeros(num_envs):
        return Core(jnp.zeros((num_envs, UNITS)), jnp.zeros((num_envs, UNITS)))

    def loss(key, params, state, targets, sample):
        del key, state
        transition = sample.transition
        q_tm1, _ = network.apply(params, transition.obs_tm1, transition.extras_tm1)
        _, slow_memory = network.apply(targets["q"].params, transition.obs_tm1, transition.extras_tm1)
        q_t, _ = network.apply(targets["q"].params, transition.obs_t, slow_memory)
        chosen = jnp.take_along_axis(q_tm1, transition.a_tm1[:, None], axis=1)[:, 0]
        errors = transition.r_t + transition.discount_t * q_t.max(axis=1) - chosen
        return jnp.mean(sample.weights * errors**2), LossOutput(priorities=jnp.abs(errors))

    targets = {"q": Target(updates.parse(rule))}
    learner = updates.learner(loss, optax.adam(1e-2), targets)

    def init(key):
        return learner.init(network.init(key, jnp.zeros((1, 1)), zeros(1)))

    def act(key, state, memory, timestep):
        memory = jax.tree.map(lambda m: jnp.where(timestep.first[:, None], 0.0, m), memory)
        q_values, after = network.apply(state.params, timestep.observation, memory)
        return ActOutput(jnp.argmax(q_values, axis=1).astype(jnp.int32), after, extras=memory)

    return Agent(init, lambda key, num_envs: zeros(num_envs), act, learner.step, targets)


def batch_norm_agent(rule, module_state):
    def forward(observation, is_training):
        normalised = hk.BatchNorm(True, True, decay_rate=0.5)(observation, is_training)
        return hk.Linear(2)(normalised)

    network = hk.without_apply_rng(hk.transform_with_state(forward))

    def loss(key, params, state, targets, sample):
        del key
        transition, slow = sample.transition, targets["q"]
        q_tm1, after = network.apply(params, state, transition.obs_tm1, True)
        q_t, slow_after = network.apply(slow.params, slow.state, transition.obs_t, module_state == "own")
        chosen = jnp.take_along_axis(q_tm1, transition.a_tm1[:, None], axis=1)[:, 0]
        errors = transition.r_t + transition.discount_t * q_t.max(axis=1) - chosen
        return jnp.mean(errors**2), LossOutput(state=after, target_state={"q": slow_after})

    targets = {"q": Target(updates.parse(rule), module_state=module_state)}
    learner = updates.learner(loss, optax.adam(1e-2), targets)

    def init(key):
        return learner.init(*network.init(key, jnp.zeros((1, 1)), True))

    def act(key, state, memory, timestep):
        q_values, _ = network.apply(state.params, state.state, timestep.observation, False)
        return ActOutput(jnp.argmax(q_values, axis=1).astype(jnp.int32), memory)

    return Agent(init, lambda key, num_envs: (), act, learner.step, targets)


def run(agent, steps=40, num_envs=2):
    environment = adapt([Counting() for _ in range(num_envs)], seed=0)
    carry = initial_carry(agent, environment, CONFIG, seed=0)
    before = jax.tree.map(np.array, carry.agent.params)
    loop = host_loop(agent, environment, CONFIG, carry, steps=steps, record_every=steps)
    [(carry, record)] = list(loop)
    host.check_valid(carry.replay)
    changed = jax.tree.map(lambda x, y: bool((x != y).any()), before, carry.agent.params)
    assert any(jax.tree.leaves(changed))
    assert np.isfinite(record["loss"])
    return carry, record


@pytest.mark.parametrize("rule", RULES)
def test_a_recurrent_agent(rule):
    carry, record = run(recurrent_agent(rule))
    assert record["learner_steps"] == (40 - 8) // 2 + 1
    # Episodes have 3 steps, and every third is the first of its episode: there, and only there, memory was zero.
    observation, memory = carry.replay.observation[:, 0], carry.replay.extras.hidden
    starts = ~carry.replay.boundary
    assert (memory[starts & (observation == 1)] == 0).all()
    assert (memory[starts & (observation > 1)] != 0).any(axis=1).all()
    # Two environments carry memories of their own, and two of the same history the same.
    assert carry.memory.hidden.shape == (2, UNITS)


@pytest.mark.parametrize("rule", RULES)
@pytest.mark.parametrize("module_state", ["copied", "own"])
def test_an_agent_with_batch_norm(rule, module_state):
    carry, _ = run(batch_norm_agent(rule, module_state))
    online, slow = carry.agent.state, carry.agent.targets["q"].state

    def mean(state):
        return float(state["batch_norm/~/mean_ema"]["average"][0, 0])

    assert mean(online) > 1.5
    if rule == "none":
        assert jax.tree.leaves(slow) == []
    elif module_state == "own":
        # The target's statistics are of obs_t, whose mean is higher by one step than that of obs_tm1.
        assert mean(slow) > mean(online) + 0.5
    elif rule == "frozen":
        assert mean(slow) == 0
    elif rule == "incremental:0.1":
        assert mean(slow) == mean(online)
    else:
        assert 0 < mean(slow) < 3.5
