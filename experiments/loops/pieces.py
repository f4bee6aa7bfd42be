"""Pieces of a segment of the device loop: chunks between which the host acts on the state of the agent."""

from collections.abc import Iterator
from typing import NamedTuple

import jax
import numpy as np

from ...agents import Agent, LoopConfig
from .chunk import Plan
from .schedules import Segment, batches_per_dispatch

MOST_LOOP_STEPS = 1024  # loop steps of the longest chunk, whose rewards are kept on the device


class Capacity(NamedTuple):
    """Lengths of the arrays of a plan.

    Attributes:
        loop_steps: Largest number of loop steps of a chunk, ``T``.
        dispatches: Largest number of dispatches of a chunk, ``D``.
    """

    loop_steps: int
    dispatches: int

    @classmethod
    def of(cls, config: LoopConfig, num_envs: int, record_every: int) -> "Capacity":
        """Capacity for chunks that end at records.

        >>> Capacity.of(LoopConfig(), num_envs=8, record_every=500)
        Capacity(loop_steps=63, dispatches=63)
        """
        loop_steps = min(MOST_LOOP_STEPS, -(-record_every // num_envs))
        cadence = config.cadence
        rounds = -(-num_envs // cadence.train_every)  # at most, in one loop step
        return cls(loop_steps, loop_steps * rounds * cadence.learner_steps // batches_per_dispatch(config, num_envs))


class Piece(NamedTuple):
    """Chunk of a segment.

    Attributes:
        plan: Numbers of the chunk.
        loop_steps: Number of loop steps.
        learner_steps: Number of learner steps before and after the chunk.
        calibrates: Whether the support of the agent is derived from the replay before the chunk.
    """

    plan: Plan
    loop_steps: int
    learner_steps: tuple[int, int]
    calibrates: bool = False


def pieces(agent: Agent, segment: Segment, watched: int | None, capacity: Capacity) -> Iterator[Piece]:
    """Cut a segment after each dispatch in which a periodic operation is due, and before a calibration.

    Args:
        agent: Agent.
        segment: Segment with at most the capacity of a plan.
        watched: Number of learner steps before the dispatch that measures churn; None for no dispatch.
        capacity: Lengths of the plans.
    """
    counts, before = segment.learner_steps.tolist(), segment.before.copy()
    total, done, calibrates = len(before), 0, False
    ends = [
        end
        for end in range(1, total + 1)
        if any(each.count(counts[end]) > each.count(counts[end - 1]) for each in agent.periodic.values())
    ]
    if agent.calibrate is not None and total and not counts[0]:
        first = int(before[0])
        yield _piece(segment, before, slice(0, 0), first, done, capacity, watched)
        done, before[0], calibrates = first, 0, True
    begin = 0
    for end in dict.fromkeys([*ends, total]):
        rest = segment.rest if end == total else 0
        piece = _piece(segment, before, slice(begin, end), rest, done, capacity, watched)
        yield piece._replace(calibrates=calibrates)
        done, calibrates, begin = done + piece.loop_steps, False, end


def _piece(
    segment: Segment,
    before: np.ndarray,
    which: slice,
    rest: int,
    done: int,
    capacity: Capacity,
    watched: int | None,
) -> Piece:
    counts, loop_steps = segment.learner_steps, int(before[which].sum()) + rest

    def padded(values: np.ndarray, length: int) -> np.ndarray:
        return np.pad(values, [(0, 0)] * (values.ndim - 1) + [(0, length - values.shape[-1])])

    plan = Plan(
        np.int32(which.stop - which.start),
        padded(before[which], capacity.dispatches),
        np.int32(rest),
        padded(segment.epsilon[..., done : done + loop_steps], capacity.loop_steps),
        jax.tree.map(lambda leaf: padded(leaf[..., which], capacity.dispatches), segment.numbers),
        padded(counts[which] == watched, capacity.dispatches),
    )
    return Piece(plan, loop_steps, (int(counts[which.start]), int(counts[which.stop])))
