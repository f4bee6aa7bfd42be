"""A stack of frames, kept once and built when drawn, trains and evaluates as one that the environment stacks."""

import gymnasium
import jax
import numpy as np
import pytest

from polyak.agents import make_configs
from polyak.experiments.environments.make import adapt
from polyak.experiments.loops.evaluation import evaluate
from polyak.experiments.runs.build import build
from polyak.experiments.runs.config import make_run_config
from small_runs import run_loop

STACK, STEPS = 3, 240
CHANGES = {
    "torso": "minatar",
    "hidden_sizes": (8,),
    "batch_size": 8,
    "learning_starts": 40,
    "replay_capacity": 500,  # that nothing is overwritten: a replay of frames then lets go of a few steps earlier
    "n_steps": 3,
}


class Images(gymnasium.Env):
    """Random bytes; episodes of 7 steps, of which every other one is truncated."""

    observation_space = gymnasium.spaces.Box(0, 255, (6, 6), np.uint8)
    action_space = gymnasium.spaces.Discrete(2)
    episodes = 0

    def reset(self, *, seed=None, options=None):
        super().reset(seed=seed)
        self.t, self.episodes = 0, self.episodes + 1
        return self._frame(), {}

    def step(self, action):
        self.t += 1
        over, truncated = self.t == 7, bool(self.episodes % 2)
        return self._frame(), float(action), over and not truncated, over and truncated, {}

    def _frame(self):
        return self.np_random.integers(0, 256, (6, 6)).astype(np.uint8)


def stacked():
    """The environment with its frames stacked by Gymnasium, along the last axis."""
    frames = gymnasium.wrappers.FrameStackObservation(Images(), STACK)
    space = gymnasium.spaces.Box(0, 255, (6, 6, STACK), np.uint8)
    return gymnasium.wrappers.TransformObservation(frames, lambda frames: np.moveaxis(frames, 0, -1), space)


def train(environments, **fields):
    configs = make_configs("n_step_double_dqn", fields=CHANGES | fields)
    agent, carry, [record] = run_loop(configs, adapt(environments, seed=0), steps=STEPS)
    returns = evaluate(agent, carry.agent, adapt([environments[0]], seed=1), configs.loop, episodes=3)
    return carry, record, returns


@pytest.mark.slow
def test_frames_stacked_when_drawn_are_frames_stacked_by_the_environment():
    ours, record, returns = train([Images(), Images()], frame_stack=STACK)
    theirs, other_record, other_returns = train([stacked(), stacked()])
    assert record == other_record
    assert returns.tolist() == other_returns.tolist()
    for leaf, other in zip(jax.tree.leaves(ours.agent), jax.tree.leaves(theirs.agent), strict=True):
        np.testing.assert_array_equal(leaf, other)
    np.testing.assert_array_equal(ours.frames, theirs.timestep.observation)
    assert ours.replay.observation.nbytes * 2 < theirs.replay.observation.nbytes


def test_the_bytes_of_a_run_are_those_of_its_frames():
    gymnasium.register("PolyakTestImages-v0", entry_point=Images)
    parts = build(make_run_config(fields={**CHANGES, "frame_stack": STACK, "env": "PolyakTestImages-v0"}))
    parts.environment.close()
    gymnasium.registry.pop("PolyakTestImages-v0")
    assert parts.agent.init(jax.random.key(0)).params["torso/conv2_d"]["w"].shape == (3, 3, STACK, 16)


def test_vectors_are_not_stacked():
    with pytest.raises(ValueError, match=r"frame_stack: got 4 and observations of shape \(4,\).*images"):
        build(make_run_config(fields={"frame_stack": 4}))
