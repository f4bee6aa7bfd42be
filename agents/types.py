"""What an agent is: four pure functions over a state, and the targets it declares."""

from collections.abc import Mapping
from typing import Any, NamedTuple, Protocol

import jax

from ..replay.types import Array, EnvironmentSpec, Sample, TimeStep
from ..updates import LearnerState, LearnOutput, Target

Tree = Any

__all__ = ["ActOutput", "Agent", "EnvironmentSpec", "Sample", "TimeStep", "evaluation_state"]

AVERAGE = "average"


class ActOutput(NamedTuple):
    """What acting gives.

    Attributes:
        action: ``[N]`` int32.
        memory: what the agent carries from step to step (recurrent state); ``()`` for feed-forward agents.
        extras: a tree of ``[N, ...]`` arrays that the agent wants kept with the step in the replay; ``()`` for none.
    """

    action: Array
    memory: Tree = ()
    extras: Tree = ()


class Init(Protocol):
    """How an agent begins."""

    def __call__(self, key: jax.Array) -> LearnerState:
        """Returns the state to learn from; the key is consumed."""


class InitialMemory(Protocol):
    """What an agent remembers before its first step."""

    def __call__(self, key: jax.Array, num_envs: int) -> Tree:
        """Returns the memory of ``num_envs`` environments, ``()`` for a feed-forward agent; the key is consumed."""


class Act(Protocol):
    """How an agent acts."""

    def __call__(self, key: jax.Array, state: LearnerState, memory: Tree, timestep: TimeStep) -> ActOutput:
        """Chooses ``[N]`` actions; the key is consumed. Memory is reset where ``timestep.first``.

        These are the agent's own actions; the loop explores (:func:`polyak.agents.epsilon_greedy`).
        """


class Learn(Protocol):
    """How an agent learns."""

    def __call__(self, key: jax.Array, state: LearnerState, sample: Sample) -> tuple[LearnerState, LearnOutput]:
        """Makes one learner step on a sample ``[B, ...]``; the key is consumed."""


class GreedyActions(Protocol):
    """What an agent would do."""

    def __call__(self, params: Tree, sample: Sample) -> Array:
        """Returns the greedy actions at the first observations of a sample's transitions (all of a sequence's)."""


class Agent(NamedTuple):
    """An agent: pure functions, none of them jitted; the loop compiles and donates.

    Attributes:
        init: ``(key) -> LearnerState``.
        initial_memory: ``(key, num_envs) -> memory``.
        act: ``(key, state, memory, timestep) -> ActOutput``; the loop explores.
        learn: ``(key, state, sample) -> (state, LearnOutput)``.
        targets: the named targets of its learner; the first is its main one.
        act_greedily: as ``act``, without what the agent itself does to explore (noise, a head drawn); None where that
            is nothing.
        greedy_actions: ``(params, sample) -> actions``, for diagnostics of the policy, -1 where there is nothing to act
            on, as in padding; None for no such diagnostics.
    """

    init: Init
    initial_memory: InitialMemory
    act: Act
    learn: Learn
    targets: Mapping[str, Target]
    act_greedily: Act | None = None
    greedy_actions: GreedyActions | None = None


def evaluation_state(state: LearnerState) -> LearnerState:
    """The state to evaluate with: the Polyak average's parameters where the agent keeps one, else its own.

    >>> import jax.numpy as jnp, optax
    >>> from polyak.updates import LossOutput, Target, frozen, learner
    >>> state = learner(lambda *_: (0.0, LossOutput()), optax.sgd(0.1), {"average": Target(frozen())}).init(jnp.ones(2))
    >>> evaluation_state(state._replace(params=jnp.zeros(2))).params
    Array([1., 1.], dtype=float32)
    """
    if AVERAGE not in state.targets:
        return state
    average = state.targets[AVERAGE]
    params = jax.tree.map(lambda online, slow: slow.astype(online.dtype), state.params, average.params)
    return state._replace(params=params, state=average.state)
