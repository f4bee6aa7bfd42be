"""Checked hyper-parameters of a replay, shared by the makers of ``host`` and ``device``."""

import bisect
import pathlib
from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import numpy as np

from ._checks import GIB, check_count, check_fits, check_frame, check_row, check_unit
from .types import EnvironmentSpec, Tree


class Layout(NamedTuple):
    """Checked hyper-parameters of the arrays of a state.

    Attributes:
        observation: Shape and dtype of one observation.
        extras: Tree of shapes and dtypes of the extras of one step.
        action_mask: Shape and dtype of one action mask, or ``()``.
        num_envs: Number of lanes.
        capacity: Number of steps to keep.
        stack: Number of frames of a stack; 1 for no stacks.
        prioritized: Whether rows have priorities.
        sequence_period: Number of steps between the starts of sequences; 0 without sequences.
        numbered: Whether rows are numbered within their episodes.
        storage: File of the observations, or None.
    """

    observation: Any
    extras: Tree
    action_mask: Any
    num_envs: int
    capacity: int
    stack: int = 1
    prioritized: bool = False
    sequence_period: int = 0
    numbered: bool = False
    storage: pathlib.Path | None = None

    @property
    def per_lane(self) -> int:
        """Number of rows of one lane: its share of the capacity, the history of the oldest start, and the open row."""
        return -(-self.capacity // self.num_envs) + self.stack


class Plan(NamedTuple):
    """Checked hyper-parameters of sampling.

    Attributes:
        shape: Leading shape of a sample, ``(B,)`` or ``(num_batches, B)``.
        most: Upper bound of ``n_steps``: the steps kept per environment, or the steps of a sequence.
        sequence_length: Number of steps of a sequence; 0 for transitions.
        future: Number of steps of the future of each transition; 0 for no future.
    """

    shape: tuple[int, ...]
    most: int
    sequence_length: int = 0
    future: int = 0


def checked(
    spec: EnvironmentSpec,
    extras: Tree,
    *,
    num_envs: int,
    capacity: int,
    batch_size: int,
    num_batches: int | None,
    sequence_length: int,
    sequence_period: int,
    priority_exponent: float | None,
    stack: int,
    future: int,
) -> tuple[Layout, Plan, float]:
    """Check the arguments of a maker; return the layout of the arrays, the plan of samples and the exponent."""
    mask: Any = ()
    if spec.action_mask:
        mask = jax.ShapeDtypeStruct((check_count("num_actions", spec.num_actions),), np.bool_)
    check_row(spec.observation, extras)
    num_envs, capacity, stack = (
        check_count(name, value) for name, value in (("num_envs", num_envs), ("capacity", capacity), ("stack", stack))
    )
    check_frame(spec.observation, stack)
    batch_size = check_count("batch_size", batch_size)
    shape = (batch_size,) if num_batches is None else (check_count("num_batches", num_batches), batch_size)
    kept = -(-capacity // num_envs)
    sequence_length = check_fits("sequence_length", check_count("sequence_length", sequence_length, 0), kept)
    sequence_period = check_count("sequence_period", sequence_period)
    future = check_fits("future", check_count("future", future, 0), kept)
    if future and sequence_length:
        raise ValueError(
            f"future: got {future} for a replay of sequences; expected 0. Increase sequence_length by {future}, "
            "or sample transitions with sequence_length=0."
        )
    exponent = 1.0 if priority_exponent is None else check_unit("priority_exponent", priority_exponent)
    layout = Layout(
        spec.observation,
        extras,
        mask,
        num_envs,
        capacity,
        stack,
        prioritized=priority_exponent is not None,
        sequence_period=sequence_period if sequence_length else 0,
        numbered=stack > 1 or sequence_length > 0 or future > 0,
    )
    return layout, Plan(shape, sequence_length or kept, sequence_length, future), exponent


def check_memory(layout: Layout, memory_of: Callable[[Layout], int], free: int, advice: str) -> None:
    """Raise ValueError with the largest capacity that fits if a state needs more than ``free`` bytes."""
    needed = memory_of(layout)
    if needed > free:
        capacity = layout.capacity
        fits = bisect.bisect_right(
            range(1, capacity), free, key=lambda smaller: memory_of(layout._replace(capacity=smaller))
        )
        raise ValueError(
            f"capacity: got {capacity}, which needs {needed / GIB:.2f} GiB with num_envs {layout.num_envs}; "
            f"expected at most {free / GIB:.2f} GiB, the available memory. The largest capacity that fits is {fits}. "
            f"{advice}"
        )
