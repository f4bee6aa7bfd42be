"""The observation pipeline: from what environments show to what an agent sees."""

import jax
import numpy as np
import pytest

from polyak.agents import LoopConfig
from polyak.agents.loop_config import Normalization, ReplayConfig
from polyak.experiments.loops.normalization import NO_SCALING, Scaling
from polyak.experiments.loops.observations import observation_pipeline, stacked_spec
from polyak.replay import EnvironmentSpec, TimeStep

STACKED = LoopConfig(replay=ReplayConfig(frame_stack=3))


def spec_of(*shape, dtype=np.uint8, action_mask=False):
    return EnvironmentSpec(jax.ShapeDtypeStruct(shape, dtype), num_actions=2, action_mask=action_mask)


def timestep_of(values, first, mask=()):
    """A time step of environments that show a frame of one pixel."""
    observation = np.uint8(values).reshape(-1, 1, 1)
    return TimeStep(observation, np.float32([2.0] * len(values)), np.array(first), mask)


def test_frames_are_stacked_oldest_first_and_a_first_frame_is_repeated():
    pipeline = observation_pipeline(STACKED, spec_of(1, 1))
    frames, shown = pipeline.init(timestep_of([1, 5], [True, True])), []
    for values, first in ([2, 6], [False, False]), ([3, 7], [False, True]), ([4, 8], [False, False]):
        timestep = timestep_of(values, first)
        frames = pipeline.push(frames, timestep)
        shown.append(pipeline.view(NO_SCALING, frames, timestep).observation[:, 0, 0].tolist())
    assert shown == [[[1, 1, 2], [5, 5, 6]], [[1, 2, 3], [7, 7, 7]], [[2, 3, 4], [7, 7, 8]]]


def test_what_is_seen_beside_the_frames_stays():
    pipeline, mask = observation_pipeline(STACKED, spec_of(1, 1, action_mask=True)), np.ones((1, 2), bool)
    timestep = timestep_of([1], [True], mask)
    seen = pipeline.view(NO_SCALING, pipeline.init(timestep), timestep)
    assert seen.observation.shape == (1, 1, 1, 3)
    assert seen.observation.dtype == np.uint8
    assert seen[1:] == timestep[1:]
    assert pipeline.spec == spec_of(1, 1, 3, action_mask=True)


def test_numbers_are_normalised_and_nothing_is_kept_without_frames():
    pipeline = observation_pipeline(LoopConfig(normalization=Normalization(True, True)), spec_of(2, dtype=np.float32))
    timestep = TimeStep(np.float32([[3, 99]]), np.float32([8]), np.array([False]))
    assert pipeline.init(timestep) == pipeline.push((), timestep) == ()
    by = Scaling(np.float32([1, 1]), np.float32([0.5, 0.5]), np.float32(0.25))
    seen = pipeline.view(by, (), timestep)
    assert (seen.observation.tolist(), seen.reward.tolist()) == ([[1, 10]], [2])  # 49 is clipped
    assert pipeline.view(NO_SCALING, (), timestep).observation is timestep.observation
    assert pipeline.spec == spec_of(2, dtype=np.float32)


@pytest.mark.parametrize("shape", [(4,), (), (84, 84, 3), (2, 84, 84, 1)], ids=str)
def test_what_is_no_image_of_one_channel_is_not_stacked(shape):
    with pytest.raises(ValueError, match=r"frame_stack: got 3 and observations of shape .*Try --frame-stack 1"):
        observation_pipeline(STACKED, spec_of(*shape))
    assert observation_pipeline(LoopConfig(), spec_of(*shape)).spec == spec_of(*shape)


def test_specs_of_stacks():
    assert stacked_spec(spec_of(84, 84), 4) == stacked_spec(spec_of(84, 84, 1), 4) == spec_of(84, 84, 4)
