"""The five probe environments: worlds so small that the values to be learnt are known."""

import dataclasses

import gymnasium
import jax
import jax.numpy as jnp
import numpy as np
import pytest
import rlax

from polyak import networks
from polyak.agents import AGENTS, DQNConfig, dqn, network_arguments
from polyak.experiments.environments.make import adapt
from polyak.experiments.loops.carry import initial_carry
from polyak.experiments.loops.evaluation import evaluate
from polyak.experiments.loops.host import host_loop
from polyak.replay import Sample, TimeStep, Transition

DISCOUNT = 0.9
STEPS = 16_000
CONFIG = DQNConfig(
    hidden_sizes=(32,),
    discount=DISCOUNT,
    n_steps=1,
    batch_size=64,
    learning_rate=3e-3,
    target="periodic:50",
    replay_capacity=STEPS,
    learning_starts=200,
    train_every=32,
    learner_steps=8,
)


class Probe(gymnasium.Env):
    """A world of one or two steps, drawn by ``draw`` and rewarded by ``reward``."""

    observation_space = gymnasium.spaces.Box(-1, 1, (1,), np.float32)

    def __init__(self, num_actions, draw, reward, length=1):
        self.action_space = gymnasium.spaces.Discrete(num_actions)
        self.draw, self.reward, self.length = draw, reward, length

    def reset(self, *, seed=None, options=None):
        super().reset(seed=seed)
        self.t = 0
        self.observation = self.draw(self.np_random, 0)
        return np.float32([self.observation]), {}

    def step(self, action):
        self.t += 1
        reward = self.reward(self.observation, action, self.t)
        self.observation = self.draw(self.np_random, self.t)
        return np.float32([self.observation]), reward, self.t == self.length, False, {}


def random_sign(rng, t):
    return float(rng.choice([-1.0, 1.0]))


PROBES = {
    "constant reward": Probe(1, lambda rng, t: 0.0, lambda o, a, t: 1.0),
    "reward is the observation": Probe(1, random_sign, lambda o, a, t: o),
    "delayed reward": Probe(1, lambda rng, t: -1.0 if t == 0 else 1.0, lambda o, a, t: float(t == 2), length=2),
    "reward is the action": Probe(2, lambda rng, t: 0.0, lambda o, a, t: float(a)),
    "the action matches the sign": Probe(2, random_sign, lambda o, a, t: -abs((2 * a - 1) - o)),
}
VALUES = {
    "constant reward": {0.0: 1.0},
    "reward is the observation": {1.0: 1.0, -1.0: -1.0},
    "delayed reward": {-1.0: DISCOUNT, 1.0: 1.0},
    "reward is the action": {0.0: 1.0},
    "the action matches the sign": {1.0: 0.0, -1.0: 0.0},
}
ACTIONS = {"reward is the action": {0.0: 1}, "the action matches the sign": {1.0: 1, -1.0: 0}}


def train(probe, config, steps):
    environment = adapt([probe], seed=0)
    agent = dqn(config, environment.spec, total_learner_steps=steps // 4)
    carry = initial_carry(agent, environment, config, seed=0)
    for last, record in host_loop(agent, environment, config, carry, steps=steps, record_every=steps):
        state = last.agent
        assert record["step"] == steps
    return environment, agent, state


@pytest.mark.parametrize("name", PROBES)
def test_the_values_are_learnt(name):
    environment, agent, state = train(PROBES[name], CONFIG, STEPS)
    for observation, value in VALUES[name].items():
        q_values = values_of(agent, state, observation, environment.spec.num_actions)
        assert np.max(q_values) == pytest.approx(value, abs=0.1)
        assert np.argmax(q_values) == ACTIONS.get(name, {}).get(observation, 0)


def preset(name, **fields):
    """An agent's own config with the sizes of the probes, and a support that holds their returns."""
    config = AGENTS[name]
    of_the_probes = {
        field: getattr(CONFIG, field)
        for field in ("hidden_sizes", "discount", "learning_rate", "target", "learning_starts", "learner_steps")
    }
    sequences = {"sequence_length": 6, "burn_in": 2, "sequence_period": 2} if config.sequence_length else {}
    supports = {"v_min": -2.0, "v_max": 2.0, "num_atoms": 21}
    rest = {"train_every": 32, "replay_capacity": STEPS, "batch_size": 32, "lstm_size": 16, "learner_steps": 8}
    return dataclasses.replace(config, **{**of_the_probes, **supports, **rest, **sequences, **fields})


def q_values_of(name, config, agent, environment, state, observation):
    """Q-values of one observation, the first of an episode, as the agent has them when it explores no more."""
    arguments, seen = network_arguments(config, environment.spec), np.float32([[observation]])
    if config.memory == "lstm":
        network, memory = networks.recurrent_value_network(**arguments), agent.initial_memory(jax.random.key(0), 1)
        output, _ = network.apply(state.params, seen, np.zeros(1, np.int32), np.zeros(1, np.float32), FIRST, memory)
        return np.asarray(output.q_values[0])
    return np.asarray(networks.value_network(**arguments).apply(state.params, None, seen).q_values[0])


FIRST = np.ones(1, bool)
# A probe for agents of every kind of head and loss (memory has one of its own below); in .ci/run two for all agents.
IN_THE_SUITE = "the action matches the sign"
OF_THE_SUITE = {"prioritized_dqn", "c51", "iqn", "munchausen_dqn", "bootstrapped_dqn"}


@pytest.mark.parametrize(
    ("name", "probe"),
    [
        pytest.param(name, probe, marks=() if probe == IN_THE_SUITE and name in OF_THE_SUITE else pytest.mark.slow)
        for name in AGENTS
        for probe in (IN_THE_SUITE, "delayed reward")
        if name != "dqn"
    ],
)
def test_every_agent_learns_the_values(name, probe):
    config = preset(name)
    environment, agent, state = train(PROBES[probe], config, 6_000)
    for observation, value in VALUES[probe].items():
        q_values = q_values_of(name, config, agent, environment, state, observation)
        assert np.argmax(q_values) == ACTIONS.get(probe, {}).get(observation, 0)
        if probe == "delayed reward" and observation == 1.0 and config.memory == "lstm":
            continue  # to an agent that remembers, it is not the second observation of an episode
        if not config.munchausen:  # whose values have the logarithm of the policy in them
            wanted = rlax.signed_hyperbolic(value) if config.value_rescaling else value
            assert np.max(q_values) == pytest.approx(float(wanted), abs=0.15)


class Recall(gymnasium.Env):
    """The first observation is a sign, the next two are nothing; the last action is rewarded if it matches the sign."""

    observation_space = gymnasium.spaces.Box(-1, 1, (1,), np.float32)
    action_space = gymnasium.spaces.Discrete(2)

    def reset(self, *, seed=None, options=None):
        super().reset(seed=seed)
        self.t, self.sign = 0, random_sign(self.np_random, 0)
        return np.float32([self.sign]), {}

    def step(self, action):
        self.t += 1
        over = self.t == 3
        return np.zeros(1, np.float32), float(over and 2 * action - 1 == self.sign), over, False, {}


@pytest.mark.parametrize(("name", "solves"), [("r2d2", True), ("double_dqn", False)])
def test_what_was_seen_before_is_remembered_by_the_recurrent_agent_alone(name, solves):
    config = preset(name, n_steps=1, epsilon_initial=1.0, epsilon_final=1.0)
    _, agent, state = train(Recall(), config, 12_000)
    returns = evaluate(agent, state, adapt([Recall()], seed=1), episodes=40)
    assert (returns.mean() == 1.0) if solves else (0.2 < returns.mean() < 0.8)


def values_of(agent, state, observation, num_actions):
    """Q-values, read off the error of a transition with a known return: |100 - q|."""
    batch = np.full((num_actions, 1), observation, np.float32)
    reward, discount = np.full(num_actions, 100, np.float32), np.zeros(num_actions, np.float32)
    transition = Transition(batch, np.arange(num_actions, dtype=np.int32), reward, discount, batch)
    sample = Sample(transition, np.ones(num_actions, np.float32), np.arange(num_actions))
    q_values = 100 - np.asarray(agent.learn(jax.random.key(0), state, sample)[1].priorities)
    timestep = TimeStep(jnp.full((1, 1), observation), jnp.zeros(1), jnp.ones(1, bool))
    assert int(agent.act(jax.random.key(0), state, (), timestep).action[0]) == int(np.argmax(q_values))
    return q_values
