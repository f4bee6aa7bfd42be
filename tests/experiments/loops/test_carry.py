"""A carry whose environments are restored: one that cannot be led back begins an episode, and nothing joins the two."""

import gymnasium
import numpy as np
import pytest

from polyak.agents import make_configs
from polyak.experiments.environments.make import adapt
from polyak.experiments.loops.carry import restore_environments
from polyak.experiments.loops.host import host_loop
from polyak.replay import check_valid
from small_runs import begin

STACK = 3
FIELDS = {"torso": "minatar", "hidden_sizes": (8,), "frame_stack": STACK, "normalize_rewards": True}


class Images(gymnasium.Env):
    """Random bytes, a reward of 1, and episodes of 9 steps; unseeded, an episode is never seen again."""

    observation_space = gymnasium.spaces.Box(0, 255, (6, 6), np.uint8)
    action_space = gymnasium.spaces.Discrete(2)

    def __init__(self, seeded):
        self.seeded = seeded

    def reset(self, *, seed=None, options=None):
        super().reset(seed=seed if self.seeded else None)
        self.t = 0
        return self._frame(), {}

    def step(self, action):
        self.t += 1
        return self._frame(), 1.0, self.t == 9, False, {}

    def _frame(self):
        random = self.np_random if self.seeded else np.random.default_rng()
        return random.integers(0, 256, (6, 6)).astype(np.uint8)


@pytest.mark.slow
def test_an_environment_that_cannot_be_led_back_begins_an_episode():
    configs = make_configs("dqn", fields=FIELDS)
    environment = adapt([Images(seeded=True), Images(seeded=False)], seed=0)
    agent, replay, carry = begin(configs, environment)
    [(carry, _)] = list(host_loop(agent, environment, replay, configs.loop, carry, steps=8))
    before = carry.frames.copy()
    discounted = carry.normalization.running_return[0]
    with pytest.warns(UserWarning, match=r"environments \[1\] did not come back"):
        restored = restore_environments(carry, environment, replay, environment.snapshot())
    first = restored.timestep.observation[1]
    assert restored.timestep.first.tolist() == [False, True]
    np.testing.assert_array_equal(restored.frames[0], before[0])
    np.testing.assert_array_equal(restored.frames[1], np.stack([first] * STACK, axis=-1))
    assert restored.statistics.running_return.tolist() == [4.0, 0.0]
    assert restored.statistics.running_length.tolist() == [4, 0]
    assert restored.normalization.running_return.tolist() == [discounted, 0.0]
    assert restored.steps == 8
    # The episode that was cut off has its last observation, and the first of the next one is in no transition with it.
    [(carry, _)] = list(host_loop(agent, environment, replay, configs.loop, restored, steps=10))
    check_valid(carry.replay)
    assert replay.size(carry.replay) == 10
    lane = carry.replay.boundary.reshape(2, -1)
    assert lane[0, :5].tolist() == [False] * 5
    assert lane[1, :6].tolist() == [False] * 4 + [True, False]
