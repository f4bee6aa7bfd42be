"""How an ensemble acts: one head for a whole episode, as if it were right (Osband et al., 2016, algorithm 1)."""

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp

from ..networks import ValueOutput
from ..replay.types import TimeStep
from ..updates import LearnerState
from .config import DQNConfig
from .shared import greedy_action
from .types import Act, ActOutput, InitialMemory


def ensemble_acting(config: DQNConfig, apply: Callable[..., ValueOutput]) -> tuple[InitialMemory, Act, Act]:
    """How an ensemble begins to remember, acts in training, and acts when it is evaluated.

    It remembers the head of each environment's episode, drawn where one begins. With each step it keeps which heads
    learn from it, each with ``mask_probability``. Evaluated, it acts by the mean of its heads.
    """

    def initial_memory(key: jax.Array, num_envs: int) -> jax.Array:
        return jax.random.randint(key, (num_envs,), 0, config.num_heads)

    def act(key: jax.Array, state: LearnerState, memory: Any, timestep: TimeStep) -> ActOutput:
        head_key, mask_key = jax.random.split(key)
        num_envs = memory.shape[0]
        memory = jnp.where(timestep.first, initial_memory(head_key, num_envs), memory)
        heads = apply(state.params, None, timestep.observation).heads
        action = greedy_action(heads[jnp.arange(num_envs), memory], timestep.action_mask)
        mask = jax.random.bernoulli(mask_key, config.mask_probability, (num_envs, config.num_heads))
        return ActOutput(action, memory, {"mask": mask.astype(jnp.float32)})

    def act_greedily(key: jax.Array, state: LearnerState, memory: Any, timestep: TimeStep) -> ActOutput:
        del key
        q_values = apply(state.params, None, timestep.observation).q_values
        return ActOutput(greedy_action(q_values, timestep.action_mask), memory)

    return initial_memory, act, act_greedily
