"""Records of a loop: what both loops put into a record when one is due."""

import time
from collections.abc import Iterable
from typing import NamedTuple

from ...agents import Agent, LoopConfig
from ...replay import Replay
from . import normalization
from .carry import Carry
from .episodes import EpisodeStatistics
from .learning import Programs, Record, fetched, measured, zeros
from .schedules import changing, draw_numbers, steps_since_reset


class Clock:
    """Clock of a loop.

    Args:
        first_step: Number of environment steps before the loop.
    """

    def __init__(self, first_step: int) -> None:
        self._started, self._first_step = time.perf_counter(), first_step

    def record(self, step: int) -> Record:
        """Return the seconds since the loop began, and the environment steps per second."""
        seconds = time.perf_counter() - self._started
        return {"seconds": seconds, "steps_per_second": (step - self._first_step) / seconds}


class Counters(NamedTuple):
    """Counters of a carry.

    Attributes:
        steps: Number of environment steps so far.
        learner_steps: Number of learner steps so far.
        learner_steps_recorded: Number of learner steps at the last record.
    """

    steps: int
    learner_steps: int
    learner_steps_recorded: int


def record_of(
    at: Counters,
    statistics: EpisodeStatistics,
    found: Record,
    totals: Iterable[str],
    replay_size: int,
    agent: Agent,
    config: LoopConfig,
    epsilon: float,
    steps: int,
) -> Record:
    """Record of a run, without its times.

    Args:
        at: Counters of the carry.
        statistics: Statistics of the episodes; those that ended since the last record are removed from it.
        found: Numbers of ``diagnose``.
        totals: Names of the learner's metrics.
        replay_size: Number of steps that can be sampled.
        agent: Agent.
        config: Config of the loop.
        epsilon: Probability of a random action in the last loop step.
        steps: Number of environment steps of the run.

    Raises:
        ValueError: if a metric of the learner is not finite because training has diverged.
    """
    count = at.learner_steps - at.learner_steps_recorded
    record: Record = {
        "step": at.steps,
        "learner_steps": at.learner_steps,
        "epsilon": epsilon,
        "replay_size": replay_size,
    }
    numbers = draw_numbers(config, at.steps, steps, steps_since_reset(agent, at.learner_steps))
    record |= changing(config, numbers)
    record |= {name: operation.count(at.learner_steps) for name, operation in agent.periodic.items()}
    record |= statistics.record()
    return record | measured(found, totals, count, at.steps)


def make_record(
    carry: Carry,
    agent: Agent,
    replay: Replay,
    config: LoopConfig,
    programs: Programs,
    epsilon: float,
    steps: int,
    clock: Clock,
) -> tuple[Carry, Record]:
    """Record of a carry, and the carry with its sums since the last record set to 0; see :func:`record_of`."""
    at = Counters(carry.steps, carry.learner_steps, carry.learner_steps_recorded)
    count = max(at.learner_steps - at.learner_steps_recorded, 1)
    found = fetched(programs.diagnose(carry.agent, carry.totals, count))
    size = int(replay.size(carry.replay))
    record = record_of(at, carry.statistics, found, carry.totals, size, agent, config, epsilon, steps)
    if config.normalization.normalize_rewards:
        record["reward_scale"] = float(normalization.scaling(carry.normalization).reward_scale)
    record |= clock.record(carry.steps)
    return carry._replace(totals=zeros(carry.totals), learner_steps_recorded=carry.learner_steps), record
