"""Greedy policy with the parameters of a run, for observations of its environment."""

import pathlib
from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from ...replay.types import TimeStep
from ...updates import Variables
from ..environments.spaces import Spaces, encode
from ..loops.normalization import Scaling, normalize_timestep
from ..loops.observations import observation_pipeline
from .build import build
from .config import RunConfig, without_workers


class Policy(NamedTuple):
    """Greedy policy.

    Attributes:
        spaces: Spaces of the environment, with observations as the agent sees them, stacked if frames are stacked.
        actions: Function of observations ``[B, ...]`` and masks ``[B, A]``, or ``()``, to actions from 0, ``[B]``.
        values: Function from observations ``[B, ...]`` to values ``[B, A]``; None if the agent has no values.
        refusal: Reason why the policy cannot act on single observations; None if it can.
    """

    spaces: Spaces
    actions: Callable[[np.ndarray, Any], jax.Array]
    values: Callable[[np.ndarray], jax.Array] | None
    refusal: str | None


def make_policy(
    config: RunConfig, variables: Variables, scaling: Scaling, folder: pathlib.Path, given: Mapping[str, Any] = {}
) -> Policy:
    """Make the greedy policy.

    Args:
        config: Config of the run.
        variables: Parameters and module state.
        scaling: Scaling of observations.
        folder: Folder of the run, for the error.
        given: Objects passed from Python, by their text in the config.

    Raises:
        ValueError: if an object is missing from ``given``.
    """
    parts = build(without_workers(config), given=given)
    parts.environment.close()
    agent, spaces = parts.agent, parts.environment.spaces
    state = agent.init(jax.random.key(0))._replace(params=variables.params, state=variables.state, targets={})
    seen = observation_pipeline(config.loop, spaces.spec).spec.observation

    def step(observations: Any, masks: Any) -> tuple[Any, TimeStep]:
        number = len(observations)
        timestep = TimeStep(observations, jnp.zeros(number), jnp.ones(number, bool), masks)
        return agent.initial_recurrent_state(jax.random.key(0), number), normalize_timestep(scaling, timestep)

    @jax.jit
    def actions(observations: Any, masks: Any) -> Any:
        return agent.evaluate_act(jax.random.key(0), state, *step(observations, masks)).action

    @jax.jit
    def values(observations: Any) -> Any:
        assert agent.q_values is not None
        return agent.q_values(state, *step(observations, ()))

    refusal = None
    if config.agent.network.core is not None:
        refusal = (
            "act: this agent is recurrent, so its action depends on the whole episode. Play whole episodes with "
            f"polyak.evaluate({str(folder)!r}), or carry its recurrent state (Agent.evaluate_act)."
        )
    spec = spaces.spec._replace(observation=seen)
    return Policy(spaces._replace(spec=spec), actions, None if agent.q_values is None else values, refusal)


def act(policy: Policy, observation: Any, action_mask: Any = None) -> Any:
    """Greedy action for an observation, or actions for a batch, as elements of the action space.

    Args:
        policy: Policy.
        observation: Observation, or a batch of observations with a leading batch axis.
        action_mask: Legal actions, ``[A]`` or ``[B, A]``, for an environment with masks.

    Returns:
        An int, or ``[B]`` int64.

    Raises:
        ValueError: if an observation has another shape, is not finite, or is outside its space; if a mask is missing or
            has no legal action; if the agent is recurrent.
    """
    observations, is_one = _observations(policy, observation)
    masks: Any = ()
    if policy.spaces.spec.action_mask or action_mask is not None:
        masks = _masks(policy, action_mask, len(observations), is_one)
    chosen = np.asarray(policy.actions(observations, masks), np.int64) + policy.spaces.action_start
    return int(chosen[0]) if is_one else chosen


def q_values(policy: Policy, observation: Any) -> np.ndarray:
    """Values of all actions for an observation, ``[A]``, or for a batch, ``[B, A]``.

    Raises:
        ValueError: as :func:`act`, or if the agent has no values.
    """
    observations, is_one = _observations(policy, observation)
    if policy.values is None:
        raise ValueError("q_values: this agent was passed from Python and has no Agent.q_values.")
    values = np.asarray(policy.values(observations))
    return values[0] if is_one else values


def _observations(policy: Policy, observation: Any) -> tuple[np.ndarray, bool]:
    """Checked observations with a batch axis, and whether the input was a single observation."""
    if policy.refusal is not None:
        raise ValueError(policy.refusal)
    axes = 0 if policy.spaces.observation_start is not None else len(policy.spaces.spec.observation.shape)
    try:
        is_one = np.ndim(observation) != axes + 1
        leading = () if is_one else (len(observation),)
        found = encode(policy.spaces, observation, leading)
    except ValueError as error:
        raise ValueError(f"{error} Give one observation of the environment, or a batch on a first axis.") from None
    if found.dtype.kind == "f" and not np.isfinite(found).all():
        raise ValueError(f"observation: got {observation!r}, which is not finite.")
    return found[None] if is_one else found, is_one


def _masks(policy: Policy, action_mask: Any, batch: int, is_one: bool) -> np.ndarray:
    actions = policy.spaces.spec.num_actions
    shape = (actions,) if is_one else (batch, actions)
    masks = np.asarray(action_mask)
    if masks.shape != shape or not np.isin(masks, (0, 1)).all() or not masks.any(axis=-1).all():
        raise ValueError(
            f"action_mask: got {action_mask!r}; expected {shape} of bool or of 0 and 1, one for each action, and a "
            "legal one among them."
        )
    return masks.astype(np.bool_).reshape(batch, actions)
