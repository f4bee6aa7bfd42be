"""What the agents of the family share: their targets, what they are shown, and how a value becomes an action."""

from typing import Any

import jax
import jax.numpy as jnp

from .. import updates
from ..updates import Target
from .config import DQNConfig
from .types import AVERAGE, EnvironmentSpec

MAIN_TARGET = "q"


def mask_values(q_values: jax.Array, action_mask: Any) -> jax.Array:
    """Q-values to choose an action by, not to bootstrap from: those of illegal actions are the dtype's lowest number.

    Where no action is legal, as at a termination, action 0 is chosen, whose own value is a finite one.

    >>> int(mask_values(jnp.array([5.0, 1.0, 2.0]), jnp.array([False, True, True])).argmax())
    2
    """
    if isinstance(action_mask, tuple):
        return q_values
    legal = jnp.broadcast_to(action_mask, q_values.shape)
    return jnp.where(legal, q_values, jnp.finfo(q_values.dtype).min)


def greedy_action(q_values: jax.Array, action_mask: Any) -> jax.Array:
    """The legal action of the largest value, ``[...]`` int32 of values ``[..., A]``; of equals the first."""
    return jnp.argmax(mask_values(q_values, action_mask), axis=-1).astype(jnp.int32)


def seen_spec(config: DQNConfig, spec: EnvironmentSpec) -> EnvironmentSpec:
    """What the agent is shown: the environment's observation, or a stack of its frames along the last axis.

    Raises:
        ValueError: a stack of what is no image, ``[H, W]`` or ``[H, W, 1]``.

    >>> frame = EnvironmentSpec(jax.ShapeDtypeStruct((84, 84), jnp.uint8), num_actions=2)
    >>> seen_spec(DQNConfig(frame_stack=4), frame).observation.shape
    (84, 84, 4)
    """
    if config.frame_stack == 1:
        return spec
    shape = spec.observation.shape
    if len(shape) not in (2, 3) or shape[2:] not in ((), (1,)):
        raise ValueError(
            f"frame_stack: got {config.frame_stack} and observations of shape {shape}; expected images of one channel, "
            "[height, width] or [height, width, 1]. Try --frame-stack 1."
        )
    stacked = jax.ShapeDtypeStruct((*shape[:2], config.frame_stack), spec.observation.dtype)
    return spec._replace(observation=stacked)


def network_arguments(config: DQNConfig, spec: EnvironmentSpec) -> dict[str, Any]:
    """What :func:`polyak.networks.value_network` builds an agent's network from, in JSON's own types.

    >>> spec = EnvironmentSpec(jax.ShapeDtypeStruct((4,), jnp.float32), num_actions=2)
    >>> network_arguments(DQNConfig(), spec)
    {'num_actions': 2, 'torso': 'mlp', 'hidden_sizes': [120, 84], 'activation': 'relu', 'dueling': False}
    """
    arguments = {
        "num_actions": spec.num_actions,
        "torso": torso_name(config, spec),
        "hidden_sizes": list(config.hidden_sizes),
        "activation": config.activation,
    }
    if config.head != "ensemble":
        arguments["dueling"] = config.dueling
    if config.memory == "lstm":
        return arguments | {"lstm_size": config.lstm_size}
    of_the_head = {
        "q": (),
        "categorical": ("num_atoms", "v_min", "v_max"),
        "hl_gauss": ("num_atoms", "v_min", "v_max"),
        "quantile": ("num_quantiles",),
        "implicit_quantile": ("num_quantiles",),
        "ensemble": ("num_heads", "prior_scale"),
    }[config.head]
    if config.head != "q":
        arguments["head"] = config.head
    if config.noisy:
        arguments |= {"noisy": True, "noisy_sigma": config.noisy_sigma}
    return arguments | {name: getattr(config, name) for name in of_the_head}


def torso_name(config: DQNConfig, spec: EnvironmentSpec) -> str:
    """The torso, with ``auto`` decided by the observations.

    Raises:
        ValueError: a torso of images for observations that are none, ``[H, W, C]``.
    """
    shape = seen_spec(config, spec).observation.shape
    if config.torso not in ("auto", "mlp") and len(shape) != 3:
        raise ValueError(
            f"torso: got {config.torso!r} and observations of shape {shape}; expected images, [height, width, "
            "channels]. Try --torso auto, which is mlp for these."
        )
    if config.torso != "auto":
        return config.torso
    return "nature" if len(shape) == 3 else "mlp"


def agent_targets(config: DQNConfig, total_learner_steps: int | None) -> dict[str, Target]:
    """The main target, and the Polyak average to evaluate with where the config asks for one.

    Raises:
        ValueError: a rule's text does not parse; the message names the field.
    """
    options: dict[str, Any] = {
        "horizon": total_learner_steps,
        "environment_steps_per_learner_step": config.environment_steps_per_learner_step,
    }
    targets = {MAIN_TARGET: Target(updates.parse_named(config.target, (MAIN_TARGET,), **options)[MAIN_TARGET])}
    try:
        average = updates.parse(config.average, **options)
    except ValueError as error:
        raise ValueError(f"average: {error}") from None
    if not updates.is_none(average):
        targets[AVERAGE] = Target(average)
    return targets
