"""Periodic shift of the heads of an iterated head."""

from collections.abc import Callable
from fractions import Fraction

import jax

from .. import updates
from ..updates import LearnerState, Periodic
from .config import AgentConfig
from .head_parts import Iterated
from .resets import learner_steps_of
from .types import SHIFTS

# Last layer of the head, whose outputs are the values of heads 0 to K, side by side.
_LAYER = "head/q_values"


def make_shifts(
    config: AgentConfig,
    init: Callable[[jax.Array], LearnerState],
    environment_steps_per_learner_step: Fraction | None = None,
) -> dict[str, Periodic]:
    """Make the periodic shift of an iterated head; empty for other heads.

    Args:
        config: Config of the agent.
        init: Function ``init`` of the agent.
        environment_steps_per_learner_step: Number of environment steps per learner step, which converts a period in
            environment steps.

    Raises:
        ValueError: if the period does not parse, or the network has no layer ``head/q_values`` with the values of all
            heads.

    >>> import jax.numpy as jnp
    >>> def init(key):
    ...     return LearnerState({"head/q_values": {"b": jnp.arange(4.0)}}, (), (), {})
    >>> shifts = make_shifts(AgentConfig(head=Iterated(num_iterations=1, shift_every="100")), init)["shifts"]
    >>> shifts.period, shifts.apply(jax.random.key(0), init(None)).params["head/q_values"]["b"].tolist()
    (100, [2.0, 3.0, 2.0, 3.0])
    """
    head = config.head
    if not isinstance(head, Iterated):
        return {}
    period = learner_steps_of("shift_every", head.shift_every, environment_steps_per_learner_step)

    def apply(key: jax.Array, state: LearnerState) -> LearnerState:
        del key
        number = head.num_iterations + 1
        return updates.shift_heads(state, [_LAYER], number, shift_moments=head.shift_moments)

    try:
        jax.eval_shape(lambda key: apply(key, init(key)), jax.random.key(0))
    except ValueError as error:
        raise ValueError(
            f"network: the shift of the iterated head fails: {error} Compute the values of all heads with one layer "
            f"{_LAYER}, hk.Linear((K + 1) * A, name='q_values') in the value function of polyak.networks.compose."
        ) from None
    return {SHIFTS: Periodic(period, apply)}
