"""The five probe environments: worlds so small that the values to be learnt are known."""

import gymnasium
import jax
import jax.numpy as jnp
import numpy as np
import pytest
import rlax

from polyak import networks
from polyak.agents import AGENTS, make_configs
from polyak.agents.agent_network import network_arguments
from polyak.agents.config import LSTM, Munchausen
from polyak.agents.parts import leaves
from polyak.experiments.environments.make import adapt
from polyak.experiments.loops.evaluation import evaluate
from polyak.replay import Sample, TimeStep, Transition
from small_runs import run_loop

pytestmark = pytest.mark.slow
DISCOUNT = 0.9
STEPS = 16_000
FIELDS = {
    "hidden_sizes": (32,),
    "discount": DISCOUNT,
    "learning_rate": "linear(0.003,0,100%)",
    "target": "periodic:50",
    "replay_capacity": STEPS,
    "learning_starts": 200,
    "train_every": 32,
    "learner_steps": 8,
}


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


def train(probe, configs, steps):
    environment = adapt([probe], seed=0)
    agent, carry, [record] = run_loop(configs, environment, steps=steps, total_learner_steps=steps // 4)
    assert record["step"] == steps
    return environment, agent, carry.agent


@pytest.mark.parametrize("name", PROBES)
def test_the_values_are_learnt(name):
    configs = make_configs("double_dqn", fields={**FIELDS, "error": "squared", "batch_size": 64})
    environment, agent, state = train(PROBES[name], configs, STEPS)
    for observation, value in VALUES[name].items():
        q_values = values_of(agent, state, observation, environment.spec.num_actions)
        assert np.max(q_values) == pytest.approx(value, abs=0.1)
        assert np.argmax(q_values) == ACTIONS.get(name, {}).get(observation, 0)


def configs_of(name, **fields):
    """An agent's own configs with the sizes of the probes, and a support that holds their returns."""
    own = leaves(make_configs(name))
    parts = {"v_min": -2.0, "v_max": 2.0, "num_atoms": 21, "lstm_size": 16}
    parts |= {"sequence_length": 6, "burn_in": 2, "sequence_period": 2, "reset_period": "10000"}
    parts = {leaf: value for leaf, value in parts.items() if leaf in own}
    if own["normalize_features"]:  # of a torso, which the head's layer is no part of
        parts["hidden_sizes"] = 2 * FIELDS["hidden_sizes"]
    return make_configs(name, fields={**FIELDS, **parts, "batch_size": 32, **fields})


def q_values_of(configs, agent, environment, state, observation):
    """Q-values of one observation, the first of an episode, as the agent has them when it explores no more."""
    network, seen = (
        networks.make_network(**network_arguments(configs.agent, environment.spec)),
        np.float32([[observation]]),
    )
    hidden, _ = network.encode(state.params, state.state, None, seen, False)
    if network.core is not None:
        before = (np.zeros((1, 1), np.int32), np.zeros((1, 1), np.float32), np.ones((1, 1), bool))
        hidden = network.core(state.params, hidden[:, None], *before, network.initial_recurrent_state(1))[0][:, 0]
    output, _ = network.value(state.params, state.state, None, hidden, seen, False)
    return np.asarray(output.q_values[0])


@pytest.mark.parametrize(
    ("name", "probe"),
    [
        (name, probe)
        for name in AGENTS
        for probe in ("the action matches the sign", "delayed reward")
        if name != "n_step_double_dqn"
    ],
)
def test_every_agent_learns_the_values(name, probe):
    configs = configs_of(name)
    environment, agent, state = train(PROBES[probe], configs, 6_000)
    for observation, value in VALUES[probe].items():
        q_values = q_values_of(configs, agent, environment, state, observation)
        assert np.argmax(q_values) == ACTIONS.get(probe, {}).get(observation, 0)
        if probe == "delayed reward" and observation == 1.0 and isinstance(configs.agent.network.core, LSTM):
            continue  # to an agent that remembers, it is not the second observation of an episode
        if not isinstance(configs.agent.bootstrap, Munchausen):  # whose values have the logarithm of the policy in them
            rescaled = leaves(configs.agent).get("value_rescaling", False)
            wanted = rlax.signed_hyperbolic(value) if rescaled else value
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
    configs = configs_of(name, n_steps=1, epsilon=1)
    _, agent, state = train(Recall(), configs, 12_000)
    returns = evaluate(agent, state, adapt([Recall()], seed=1), configs.loop, episodes=40)
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
