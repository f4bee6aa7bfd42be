"""The five probe environments: worlds so small that the values to be learnt are known."""

import gymnasium
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from polyak.agents import DQNConfig, dqn
from polyak.experiments.carry import initial_carry
from polyak.experiments.environment import adapt
from polyak.experiments.host_loop import host_loop
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


@pytest.mark.parametrize("name", PROBES)
def test_the_values_are_learnt(name):
    environment = adapt([PROBES[name]], seed=0)
    agent = dqn(CONFIG, environment.spec, total_learner_steps=STEPS // 4)
    carry = initial_carry(agent, environment, CONFIG, seed=0)
    for last, record in host_loop(agent, environment, CONFIG, carry, steps=STEPS, record_every=STEPS):
        state = last.agent
        assert record["step"] == STEPS
    for observation, value in VALUES[name].items():
        q_values = values_of(agent, state, observation, environment.spec.num_actions)
        assert np.max(q_values) == pytest.approx(value, abs=0.1)
        assert np.argmax(q_values) == ACTIONS.get(name, {}).get(observation, 0)


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
