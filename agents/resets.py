"""Periodic resets of parts of an agent's network."""

import re
from collections.abc import Callable
from fractions import Fraction

import jax

from .. import updates
from ..updates import LearnerState, Periodic
from .config import AgentConfig
from .types import RESETS


def make_resets(
    config: AgentConfig,
    init: Callable[[jax.Array], LearnerState],
    total_learner_steps: int | None = None,
    environment_steps_per_learner_step: Fraction | None = None,
) -> dict[str, Periodic]:
    """Make the periodic operations of an agent: its resets, if the config has them.

    As in the code of SR-SPR and BBF (D'Oro et al., 2023; Schwarzer et al., 2023), parameters and targets are
    initialised again from two keys, the optimizer state of ``shrink_parts`` is kept, and the last period of a run has
    no reset. The optimizer's step count is kept too, while their code sets it to 0.

    Args:
        config: Config of the agent.
        init: Function ``init`` of the agent.
        total_learner_steps: Number of learner steps of the run; None for a run without an end.
        environment_steps_per_learner_step: Number of environment steps per learner step, which converts a period in
            environment steps.

    Raises:
        ValueError: if the period does not parse, or a prefix matches no parameter; the message names the field.

    >>> from polyak.agents.config import Resets
    >>> def init(key):
    ...     return LearnerState({"head": jax.random.normal(key), "torso": 0.0}, (), (), {})
    >>> resets = make_resets(AgentConfig(resets=Resets("100")), init, total_learner_steps=300)["resets"]
    >>> resets.period, resets.last
    (100, 200)
    """
    resets = config.resets
    if resets is None:
        return {}
    period = learner_steps_of("reset_period", resets.reset_period, environment_steps_per_learner_step)
    reset_parts, shrink_parts = resets.reset_parts.split(), resets.shrink_parts.split()
    params = jax.eval_shape(init, jax.random.key(0)).params
    if not reset_parts and not shrink_parts:
        raise ValueError(
            "reset_parts: got '', and shrink_parts is empty too; expected a part of the network. Try head."
        )
    for field, parts in (("reset_parts", reset_parts), ("shrink_parts", shrink_parts)):
        if parts:
            updates.check_parts(parts, params, field)

    def apply(key: jax.Array, state: LearnerState) -> LearnerState:
        online_key, target_key = jax.random.split(key)
        fresh = init(online_key)._replace(targets=init(target_key).targets)
        if shrink_parts:
            state = updates.shrink_and_perturb(state, fresh, shrink_parts, resets.shrink)
        return updates.reset(state, fresh, reset_parts) if reset_parts else state

    last = None if total_learner_steps is None else max(total_learner_steps - period, 0)
    return {RESETS: Periodic(period, apply, last)}


def learner_steps_of(field: str, text: str, environment_steps_per_learner_step: Fraction | None) -> int:
    """Parse a period in learner steps, or in environment steps.

    Args:
        field: Name of the field, which begins the error message.
        text: Number of learner steps, or of environment steps followed by ``env``.
        environment_steps_per_learner_step: Number of environment steps per learner step; None if it is not known.

    Raises:
        ValueError: if the text does not parse, the period is 0, or environment steps are not a whole number of learner
            steps.

    >>> learner_steps_of("reset_period", "20000env", Fraction(2))
    10000
    """
    if not re.fullmatch(r"[0-9][0-9_]*(env)?", text.strip()):
        raise ValueError(
            f"{field}: got {text!r}; expected a number of learner steps, such as 40000, or of environment steps, "
            "such as 20000env."
        )
    try:
        unit = environment_steps_per_learner_step
        return int(updates.parse(f"periodic:{text.strip()}", environment_steps_per_learner_step=unit).period)
    except ValueError as error:
        raise ValueError(f"{field}: {str(error).removeprefix('target: ')}") from None
