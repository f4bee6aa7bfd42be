"""Acting on the host: exploration noise sampled in blocks, and one small dispatch per call of the agent.

Each argument of a compiled call costs the host more than a microsecond, even if it is not used, and sampling random
numbers inside the call costs as much as a small network. Therefore the call receives only the arrays that the agent
reads, and the random numbers for exploration are sampled for many loop steps in one dispatch. The random numbers of
loop step ``t`` depend only on the key and on ``t``, so a resumed run samples the same numbers.
"""

from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from ...agents import ActOutput, Agent, epsilon_greedy
from ...replay.types import TimeStep
from ...updates import LearnerState

Tree = Any
BLOCK = 256  # loop steps whose random numbers are sampled in one dispatch


class _Block(NamedTuple):
    """Random numbers of the loop steps from ``start`` on, in lists because Python indexes lists faster."""

    start: int
    keys: list[np.ndarray]  # [2] uint32 each
    uniform: list[np.ndarray]  # [2, N] float32 each
    random: list[np.ndarray]  # [N] int32 each, random actions
    epsilon: list[float]
    explore: list[tuple[bool, bool]]  # whether any environment explores, and whether all do


class Actor:
    """Actor of a run; its actions depend only on the key, the loop step and the arguments, not on earlier calls.

    If every environment explores, an agent without recurrent state and extras is not called.

    Args:
        agent: Agent.
        example: Agent state, recurrent state and time step with the shapes of later calls.
        num_actions: Number of actions of the environments.
    """

    def __init__(self, agent: Agent, example: tuple[LearnerState, Tree, TimeStep], num_actions: int) -> None:
        state, recurrent_state, timestep = example
        self._num_actions = num_actions
        self._num_envs = len(timestep.first)
        self._masked = not isinstance(timestep.action_mask, tuple)
        acted = jax.eval_shape(agent.act, jax.random.key(0), state, recurrent_state, timestep)
        self._has_extras = bool(jax.tree.leaves(acted.extras))
        self._may_be_skipped = not self._has_extras and not jax.tree.leaves(acted.recurrent_state)
        self._program, self._reads = _compile(agent, state, recurrent_state, timestep)
        self.follow(state)

    def begin(self, key_data: jax.Array, epsilon: Callable[[np.ndarray], np.ndarray]) -> None:
        """Set the key and the exploration from the next call on.

        Args:
            key_data: ``[2]`` uint32, raw data of the run's key for acting.
            epsilon: Function from an array of loop steps to probabilities of a random action.
        """
        self._key_data, self._epsilon, self._block = key_data, epsilon, _Block(0, [], [], [], [], [])

    def follow(self, state: LearnerState) -> None:
        """Act with ``state`` from the next call on."""
        self._acting = self._reads.of_state(state)

    def act(self, loop_step: int, recurrent_state: Tree, timestep: TimeStep) -> tuple[ActOutput, float]:
        """Return actions, recurrent state and extras as NumPy arrays, and the probability of a random action."""
        block = self._block
        index = loop_step - block.start
        if not 0 <= index < len(block.keys):
            block, index = self._draw(loop_step), 0
        any_explores, all_explore = block.explore[index]
        if all_explore and self._may_be_skipped:
            action = block.random[index]
            if self._masked:
                action = epsilon_greedy(block.uniform[index], action, 1.0, self._num_actions, timestep.action_mask)
            return ActOutput(action, recurrent_state), block.epsilon[index]
        key = (block.keys[index],) if self._reads.key else ()
        chosen, recurrent_state, extras = self._program(
            key, self._acting, recurrent_state, self._reads.of_timestep(timestep)
        )
        action = np.asarray(chosen)
        if any_explores:
            uniform, epsilon = block.uniform[index], block.epsilon[index]
            action = epsilon_greedy(uniform, action, epsilon, self._num_actions, timestep.action_mask)
        if self._has_extras:
            extras = jax.tree.map(np.asarray, extras)
        return ActOutput(action, recurrent_state, extras), block.epsilon[index]

    def _draw(self, loop_step: int) -> _Block:
        keys, uniform = jax.device_get(_draw_block(self._key_data, np.uint32(loop_step), self._num_envs))
        epsilon = np.asarray(self._epsilon(loop_step + np.arange(BLOCK)), np.float64)
        explore = uniform[:, 0] < epsilon[:, None].astype(np.float32)
        flags = list(zip(explore.any(axis=1).tolist(), explore.all(axis=1).tolist(), strict=True))
        anywhere = np.zeros((BLOCK, self._num_envs), np.int32)
        random = epsilon_greedy(np.moveaxis(uniform, 1, 0), anywhere, 1.0, self._num_actions)
        self._block = _Block(loop_step, list(keys), list(uniform), list(random), epsilon.tolist(), flags)
        return self._block


class _Reads(NamedTuple):
    """Arrays that ``act`` reads.

    Attributes:
        key: Whether ``act`` reads the key.
        of_state: Function from a state to the arrays that ``act`` reads.
        of_timestep: Function from a time step to the fields that ``act`` reads.
    """

    key: bool
    of_state: Callable[[LearnerState], list[jax.Array]]
    of_timestep: Callable[[TimeStep], tuple[Any, ...]]


def draw(key_data: jax.Array, loop_step: Any, num_envs: int) -> tuple[jax.Array, jax.Array]:
    """Random numbers for acting at one loop step.

    Args:
        key_data: ``[2]`` uint32, raw data of the run's key for acting.
        loop_step: Number of the loop step, from 0.
        num_envs: Number of environments.

    Returns:
        Key of the agent as raw data ``[2]`` and ``[2, num_envs]`` float32 uniform numbers for exploration.

    >>> draw(jax.random.key_data(jax.random.key(0)), 3, num_envs=5)[1].shape
    (2, 5)
    """
    act_key, explore_key = jax.random.split(jax.random.fold_in(jax.random.wrap_key_data(key_data), loop_step))
    return jax.random.key_data(act_key), jax.random.uniform(explore_key, (2, num_envs))


def _draw_many(key_data: jax.Array, first: jax.Array, num_envs: int) -> tuple[jax.Array, jax.Array]:
    return jax.vmap(lambda loop_step: draw(key_data, loop_step, num_envs))(first + jnp.arange(BLOCK, dtype=jnp.uint32))


_draw_block = jax.jit(_draw_many, static_argnums=2)


def _compile(
    agent: Agent, state: LearnerState, recurrent_state: Tree, timestep: TimeStep
) -> tuple[Callable[..., Any], _Reads]:
    """Compile ``act`` over the arrays that it reads; the other arrays are never transferred to the device."""
    jaxpr = jax.make_jaxpr(agent.act)(jax.random.key(0), state, recurrent_state, timestep).jaxpr
    used = {id(variable) for equation in jaxpr.eqns for variable in equation.invars}
    used |= {id(variable) for variable in jaxpr.outvars}
    flags = iter([id(variable) in used for variable in jaxpr.invars])
    reads_key = next(flags)
    state_shapes, structure = jax.tree.flatten(jax.tree.map(_shape, state))
    state_reads = [next(flags) for _ in state_shapes]
    for _ in jax.tree.leaves(recurrent_state):
        next(flags)
    timestep_shapes = jax.tree.map(_shape, timestep)
    timestep_reads = [True in [next(flags) for _ in jax.tree.leaves(field)] for field in timestep]

    @jax.jit
    def program(key: tuple[Any, ...], acting: list[Any], recurrent_state: Tree, seen: tuple[Any, ...]) -> Any:
        typed = jax.random.wrap_key_data(key[0]) if key else jax.random.key(0)
        leaves = _fill(state_shapes, state_reads, acting)
        fields = _fill(timestep_shapes, timestep_reads, seen)
        acted = agent.act(typed, jax.tree.unflatten(structure, leaves), recurrent_state, TimeStep(*fields))
        return acted.action, acted.recurrent_state, acted.extras

    return program, _Reads(reads_key, _of_state(state, state_reads), _of_timestep(timestep_reads))


def _of_state(state: LearnerState, reads: list[bool]) -> Callable[[LearnerState], list[jax.Array]]:
    # Only the fields that are read are flattened, because an optimizer's state takes longer than all other fields.
    picked, start = [], 0
    for number, field in enumerate(state):
        size = len(jax.tree.leaves(field))
        wanted = [i for i in range(size) if reads[start + i]]
        if wanted:
            picked.append((number, wanted))
        start += size

    def of_state(state: LearnerState) -> list[jax.Array]:
        arrays = []
        for number, wanted in picked:
            leaves = jax.tree.leaves(state[number])
            arrays += [leaves[i] for i in wanted]
        return arrays

    return of_state


def _of_timestep(reads: list[bool]) -> Callable[[TimeStep], tuple[Any, ...]]:
    wanted = [number for number, read in enumerate(reads) if read]
    return lambda timestep: tuple([timestep[number] for number in wanted])


def _shape(leaf: Any) -> jax.ShapeDtypeStruct:
    return jax.ShapeDtypeStruct(leaf.shape, leaf.dtype)


def _fill(shapes: Any, reads: list[bool], given: Any) -> list[Any]:
    """Insert the arrays that are read; zeros elsewhere."""
    rest = iter(given)
    return [next(rest) if read else jax.tree.map(_unread, shape) for shape, read in zip(shapes, reads, strict=True)]


def _unread(shape: jax.ShapeDtypeStruct) -> jax.Array:
    if jnp.issubdtype(shape.dtype, jax.dtypes.prng_key):
        return jnp.broadcast_to(jax.random.key(0), shape.shape)
    return jnp.zeros(shape.shape, shape.dtype)
