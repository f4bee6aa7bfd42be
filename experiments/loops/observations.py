"""Observation pipeline: frame stacking and normalization, between the environments and the agent."""

from collections.abc import Callable
from typing import Any, NamedTuple

import jax

from ...agents import LoopConfig
from ...replay import stacking
from ...replay.types import EnvironmentSpec, TimeStep
from .normalization import Scaling, normalize_timestep


class ObservationPipeline(NamedTuple):
    """Functions from the environments' observations to the agent's; ``frames`` is ``()`` without frame stacking.

    Attributes:
        spec: Spec of the observations as the agent sees them.
        init: ``(timestep) -> frames`` after a reset.
        push: ``(frames, timestep) -> frames`` after a step.
        view: ``(scaling, frames, timestep) -> timestep`` as the agent sees it.
    """

    spec: EnvironmentSpec
    init: Callable[[TimeStep], Any]
    push: Callable[[Any, TimeStep], Any]
    view: Callable[[Scaling, Any, TimeStep], TimeStep]


def observation_pipeline(config: LoopConfig, spec: EnvironmentSpec) -> ObservationPipeline:
    """Make the observation pipeline of a loop.

    Args:
        config: Config of the loop.
        spec: Spec of the environments, with observations of a single frame.

    Raises:
        ValueError: if frames would be stacked and observations are not images of one channel.

    >>> import numpy as np
    >>> from polyak.agents.loop_config import ReplayConfig
    >>> frame = EnvironmentSpec(jax.ShapeDtypeStruct((84, 84), np.uint8), num_actions=2)
    >>> observation_pipeline(LoopConfig(replay=ReplayConfig(frame_stack=4)), frame).spec.observation.shape
    (84, 84, 4)
    """
    stack = config.replay.frame_stack

    def init(timestep: TimeStep) -> Any:
        if stack == 1:
            return ()
        frames = stacking.init(spec.observation, len(timestep.first), stack)
        return stacking.push(frames, timestep.observation, timestep.first)

    def push(frames: Any, timestep: TimeStep) -> Any:
        return stacking.push(frames, timestep.observation, timestep.first) if stack > 1 else ()

    def view(scaling: Scaling, frames: Any, timestep: TimeStep) -> TimeStep:
        return normalize_timestep(scaling, timestep._replace(observation=frames) if stack > 1 else timestep)

    return ObservationPipeline(stacked_spec(spec, stack), init, push, view)


def stacked_spec(spec: EnvironmentSpec, stack: int) -> EnvironmentSpec:
    """Spec of stacked frames, along the last axis.

    Raises:
        ValueError: if ``stack`` is more than 1 and observations are not ``[H, W]`` or ``[H, W, 1]``.

    >>> import numpy as np
    >>> stacked_spec(EnvironmentSpec(jax.ShapeDtypeStruct((84, 84, 1), np.uint8), 2), 4).observation.shape
    (84, 84, 4)
    """
    if stack == 1:
        return spec
    shape = spec.observation.shape
    if len(shape) not in (2, 3) or shape[2:] not in ((), (1,)):
        raise ValueError(
            f"frame_stack: got {stack} and observations of shape {shape}; expected images of one channel, "
            "[height, width] or [height, width, 1]. Try --frame-stack 1."
        )
    return spec._replace(observation=jax.ShapeDtypeStruct((*shape[:2], stack), spec.observation.dtype))
