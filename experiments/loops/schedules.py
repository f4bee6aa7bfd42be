"""Schedules of a run: its learner steps, their dispatches, and numbers that change during the run."""

from typing import Any, NamedTuple

import numpy as np

from ...agents import Agent, LoopConfig
from ...agents.schedules import Schedule
from ...agents.types import RESETS
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
    """Number of learner steps in one dispatch, which is one scan.

    If every loop step has the same number of rounds, these rounds share a dispatch. Otherwise each round has its own
    dispatch, so that one program is sufficient.

    >>> from polyak.agents.loop_config import Cadence
    >>> config = LoopConfig(cadence=Cadence(train_every=4, learner_steps=2))
    >>> [batches_per_dispatch(config, num_envs) for num_envs in (1, 8, 10)]
    [2, 4, 2]
    """
    cadence = config.cadence
    rounds = num_envs // cadence.train_every if num_envs % cadence.train_every == 0 else 1
    return rounds * cadence.learner_steps


def draw_numbers(config: LoopConfig, step: int, steps: int, steps_since_reset: int = 0) -> DrawNumbers:
    """Numbers for sampling at a step of a run.

    Args:
        config: Config of the loop.
        step: Number of environment steps so far.
        steps: Number of environment steps of the run.
        steps_since_reset: Number of learner steps since the last reset, for schedules that restart at resets.

    >>> from polyak.agents.loop_config import Draw
    >>> draw_numbers(LoopConfig(draw=Draw(n_steps="linear(5,1,50%)")), 25, 100).n_steps
    3
    """

    def value_of(schedule: Schedule) -> float:
        if schedule.is_constant:  # avoids NumPy arrays, which cost the host loop several microseconds a step
            return float(schedule.initial)
        return float(schedule.value_at(steps_since_reset if schedule.restarts else step, steps))

    found = {name: value_of(schedule) for name, schedule in config.draw.schedules.items()}
    return DrawNumbers(**found | {"n_steps": round(found["n_steps"])})


def changing(config: LoopConfig, numbers: DrawNumbers) -> dict[str, float]:
    """Numbers for sampling that change during a run, by name, for its records.

    >>> from polyak.agents.loop_config import Draw
    >>> config = LoopConfig(draw=Draw(n_steps="linear(5,1,50%)"))
    >>> changing(config, draw_numbers(config, 25, 100))
    {'n_steps': 3}
    """
    schedules = config.draw.schedules.items()
    return {name: getattr(numbers, name) for name, schedule in schedules if not schedule.is_constant}


def steps_since_reset(agent: Agent, learner_steps: int) -> int:
    """Number of learner steps since the last reset of an agent, or since the beginning."""
    resets = agent.periodic.get(RESETS)
    return learner_steps if resets is None else resets.steps_since(learner_steps)


def next_multiple(step: int, every: int) -> int:
    """Smallest multiple of ``every`` above ``step``.

    >>> next_multiple(0, 500), next_multiple(500, 500), next_multiple(501, 500)
    (500, 1000, 1000)
    """
    return (step // every + 1) * every


class Segment(NamedTuple):
    """Consecutive loop steps of the device loop with their dispatches of learning, as NumPy arrays.

    Attributes:
        before: Number of loop steps before each dispatch, since the one before it, ``[D]`` int32.
        rest: Number of loop steps after the last dispatch.
        learner_steps: Number of learner steps before each dispatch, and after the last, ``[D + 1]`` int64.
        epsilon: Probability of a random action at each loop step, ``[T]`` float32; ``[L, T]`` for the lanes of a sweep.
        numbers: Numbers of each sample, leaves ``[D]``, or ``[L, D]``.
    """

    before: np.ndarray
    rest: int
    learner_steps: np.ndarray
    epsilon: np.ndarray
    numbers: DrawNumbers


def plan_segment(
    config: LoopConfig, agent: Agent, step: int, learner_steps: int, loop_steps: int, num_envs: int, steps: int
) -> Segment:
    """Plan ``loop_steps`` loop steps from environment step ``step``, with the cadence and the numbers of the host loop.

    >>> from polyak.agents import make_agent
    >>> from polyak.agents.config import AgentConfig
    >>> from polyak.agents.loop_config import Cadence
    >>> import jax
    >>> from polyak.replay import EnvironmentSpec
    >>> spec = EnvironmentSpec(jax.ShapeDtypeStruct((4,), np.float32), 2)
    >>> agent = make_agent(AgentConfig(), spec, total_learner_steps=100)
    >>> config = LoopConfig(cadence=Cadence(learning_starts=4, train_every=2, learner_steps=1))
    >>> found = plan_segment(config, agent, 0, 0, loop_steps=7, num_envs=1, steps=100)
    >>> found.before.tolist(), found.rest
    ([4, 2], 1)
    """
    cadence, batches = config.cadence, batches_per_dispatch(config, num_envs)
    after = step + num_envs * np.arange(1, loop_steps + 1)
    rounds = after // cadence.train_every - (after - num_envs) // cadence.train_every
    dispatches = np.where(after >= cadence.learning_starts, rounds, 0) * cadence.learner_steps // batches
    at = np.repeat(np.arange(1, loop_steps + 1), dispatches)
    before = np.diff(at, prepend=0)
    counts = learner_steps + batches * np.arange(len(at) + 1)
    since = np.asarray([steps_since_reset(agent, count) for count in counts[:-1].tolist()])
    epsilon = config.exploration.epsilon.value_at(after - num_envs, steps)
    return Segment(
        before.astype(np.int32),
        loop_steps - int(before.sum()),
        counts,
        epsilon.astype(np.float32),
        _numbers_at(config, step + num_envs * at, steps, since),
    )


def _numbers_at(config: LoopConfig, at: np.ndarray, steps: int, since_reset: np.ndarray) -> DrawNumbers:
    """``draw_numbers`` at many steps."""

    def values_of(schedule: Schedule) -> Any:
        return schedule.value_at(since_reset if schedule.restarts else at, steps)

    found = {name: values_of(schedule).astype(np.float32) for name, schedule in config.draw.schedules.items()}
    found["n_steps"] = np.rint(values_of(config.draw.n_steps)).astype(np.int32)
    return DrawNumbers(**{"importance_exponent": np.zeros(len(at), np.float32), **found})
