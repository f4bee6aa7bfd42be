"""Schedule of a run: how many learner steps it has, when they are made, and the numbers that change over it."""

from ...agents import LoopConfig
from ...agents.loop_config import Prioritized
from ...agents.schedules import Schedule
from ...replay.types import DrawNumbers


def total_learner_steps(config: LoopConfig, steps: int, num_envs: int) -> int:
    """Number of learner steps that the loop makes in a run of ``steps`` environment steps.

    >>> from polyak.agents.loop_config import Cadence
    >>> config = LoopConfig(cadence=Cadence(learning_starts=1000, train_every=10, learner_steps=1))
    >>> total_learner_steps(config, 10_000, num_envs=1)
    901
    """
    cadence = config.cadence
    last = -(-steps // num_envs) * num_envs
    before_first = max(-(-cadence.learning_starts // num_envs) - 1, 0) * num_envs
    rounds = last // cadence.train_every - before_first // cadence.train_every
    return max(rounds, 0) * cadence.learner_steps


def batches_per_dispatch(config: LoopConfig, num_envs: int) -> int:
    """Number of learner steps of one dispatch, in one scan.

    Where every loop step has the same number of rounds they share a dispatch; else each round has its own, so that
    one program serves them all.

    >>> from polyak.agents.loop_config import Cadence
    >>> config = LoopConfig(cadence=Cadence(train_every=4, learner_steps=2))
    >>> [batches_per_dispatch(config, num_envs) for num_envs in (1, 8, 10)]
    [2, 4, 2]
    """
    cadence = config.cadence
    rounds = num_envs // cadence.train_every if num_envs % cadence.train_every == 0 else 1
    return rounds * cadence.learner_steps


def draw_numbers(config: LoopConfig, step: int, steps: int) -> DrawNumbers:
    """Numbers of the draws at environment step ``step`` of ``steps``.

    >>> from polyak.agents.loop_config import Draw
    >>> draw_numbers(LoopConfig(draw=Draw(n_steps="linear(5,1,50%)")), 25, 100).n_steps
    3
    """
    draw, exponent = config.draw, 0.0
    if isinstance(draw.sampling, Prioritized):
        exponent = _value_at(draw.sampling.importance_exponent, step, steps)
    return DrawNumbers(round(_value_at(draw.n_steps, step, steps)), _value_at(draw.discount, step, steps), exponent)


def _value_at(schedule: Schedule, step: int, steps: int) -> float:
    # A constant takes no NumPy arrays, which cost the host loop several microseconds a step.
    return float(schedule.initial) if schedule.is_constant else schedule.value_at(step, steps).item()
