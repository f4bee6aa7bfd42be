"""Recurrent state through the loop: carried from step to step, kept in the replay, zero where an episode begins."""

import gymnasium
import jax
import numpy as np
import pytest

from polyak.agents import make_agent, make_configs
from polyak.experiments.environments.make import adapt
from polyak.experiments.loops.carry import make_replay
from polyak.replay import check_valid
from small_runs import run_loop

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


@pytest.mark.parametrize("rule", [pytest.param("periodic:3", marks=pytest.mark.slow), "none"])
def test_a_recurrent_agent(rule):
    fields = {
        "core": "lstm",
        "lstm_size": UNITS,
        "hidden_sizes": (4,),
        "windows": "sequences",
        "sequence_length": 2,
        "sequence_period": 1,
        "batch_size": 4,
        "replay_capacity": 50,
        "learning_starts": 8,
        "train_every": 2,
        "learner_steps": 1,
        "target": rule,
    }
    environment = adapt([Counting() for _ in range(2)], seed=0)
    agent, carry, [record] = run_loop(make_configs("dqn", fields=fields), environment, steps=40)
    check_valid(carry.replay)
    before = agent.init(jax.random.key(0)).params
    assert record["learner_steps"] == (40 - 8) // 2 + 1
    assert np.isfinite(record["loss"])
    assert jax.tree.structure(carry.agent.params) == jax.tree.structure(before)
    # Episodes have 3 steps, and every third is the first of its episode: there, and only there, the state was zero.
    observation, hidden = carry.replay.observation[:, 0], carry.replay.extras.core.hidden
    starts = ~carry.replay.boundary
    assert (hidden[starts & (observation == 1)] == 0).all()
    assert (hidden[starts & (observation > 1)] != 0).any(axis=1).all()
    # Two environments carry recurrent states of their own.
    assert carry.recurrent_state.core.hidden.shape == (2, UNITS)


def test_the_replay_draws_the_burn_in_before_the_steps_that_are_learnt_from():
    fields = {
        "burn_in": 3,
        "sequence_length": 5,
        "lstm_size": UNITS,
        "hidden_sizes": (4,),
        "sequence_period": 2,
        "replay_capacity": 50,
    }
    configs = make_configs("r2d2", fields=fields)
    environment = adapt(Counting(), seed=0)
    agent = make_agent(configs.agent, environment.spec, total_learner_steps=100)
    drawn = make_replay(agent, environment.spec, configs.loop, environment.num_envs).sample_spec().transition
    assert drawn.r_t.shape == (configs.loop.draw.batch_size, 3 + 5)
