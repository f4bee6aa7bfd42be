"""Device loop: agent, replay and functional environments in one compiled program, a generator of ``(carry, record)``.

The program runs a chunk of loop steps with their learning. Between two chunks, records leave the device, and progress,
evaluation, checkpoints and interrupts are served. The result does not depend on the lengths of the chunks.
"""

import functools
import time
from collections.abc import Callable, Iterator

import jax
import numpy as np

from ...agents import Agent, LoopConfig
from ...agents.loop_config import check_on_device
from ...replay import Replay
from ..environments.functional.lanes import FunctionalEnvironments, not_finite
from .carry import Carry
from .chunk import DeviceCarry, Outcomes, Plan, run_chunk
from .learning import Record, calibrated, compile_agent, operate
from .normalization import NO_SCALING
from .pieces import Capacity, pieces
from .recording import Clock, make_record
from .schedules import batches_per_dispatch, next_multiple, plan_segment

SECONDS = 1.0  # intended duration of a chunk, after which an interrupt is served


def device_loop(
    agent: Agent,
    environment: FunctionalEnvironments,
    replay: Replay,
    config: LoopConfig,
    carry: Carry,
    *,
    steps: int,
    record_every: int = 1_000,
    yield_every: int | None = None,
    stop: Callable[[], bool] = lambda: False,
) -> Iterator[tuple[Carry, Record]]:
    """Run an agent on functional environments; see :func:`polyak.experiments.loops.host.host_loop`.

    Over the same replay and from the same carry, both loops make equal transitions and parameters.

    Args:
        agent: Agent.
        environment: Functional environments; their state is replaced before every yield.
        replay: Replay on the device, from :func:`make_replay` with ``on_device``.
        config: Cadence, sampling and exploration.
        carry: Carry from :func:`initial_carry` or a checkpoint; consumed.
        steps: Number of environment steps at which the run ends; the last loop step may overshoot it by
            ``num_envs - 1``.
        record_every: Number of environment steps between two records; the last record may cover fewer.
        yield_every: Number of environment steps between two additional yields, with an empty record if no record is
            due. None yields only with records.
        stop: Function that is called once per chunk; when it returns True, the carry is yielded with an empty record
            and the loop ends.

    Yields:
        ``(carry, record)``, as the host loop does.

    Raises:
        ValueError: if observations or rewards would be normalized, and as the host loop does.
    """
    check_on_device(config.normalization)
    num_envs, batches = environment.num_envs, batches_per_dispatch(config, environment.num_envs)
    programs = compile_agent(agent, batches, prioritized=config.prioritized)
    capacity = Capacity.of(config, num_envs, record_every)

    @functools.partial(jax.jit, donate_argnums=1)
    def chunk(key: jax.Array, carry: DeviceCarry, plan: Plan) -> tuple[DeviceCarry, Outcomes]:
        return run_chunk(agent, environment.functional, replay, config, batches, key, carry, plan)

    learn_key = carry.key[1]

    def run(arrays: DeviceCarry, loop_steps: int, carry: Carry) -> DeviceCarry:
        segment = plan_segment(config, agent, carry.steps, carry.learner_steps, loop_steps, num_envs, steps)
        watched = carry.learner_steps_recorded if carry.learner_steps == carry.learner_steps_recorded else None
        step = carry.steps
        for piece in pieces(agent, segment, watched, capacity):
            if piece.calibrates:
                state = calibrated(agent, replay, config, arrays.agent, arrays.replay, NO_SCALING)
                arrays = arrays._replace(agent=state)
            arrays, outcomes = chunk(carry.key, arrays, piece.plan)
            r_t, last, finite = (leaf[: piece.loop_steps] for leaf in jax.device_get(outcomes))
            if not finite.all():
                raise not_finite(environment.functional, step // num_envs + int(np.argmin(finite)))
            carry.statistics.add_many(step, r_t, last)
            step += num_envs * piece.loop_steps
            before, after = piece.learner_steps
            arrays = arrays._replace(agent=operate(programs, learn_key, before, after, arrays.agent))
        return arrays

    clock, pace = Clock(carry.steps), Pace(capacity.loop_steps)
    while carry.steps < steps:
        if stop():
            yield carry, {}
            return
        ends = [steps, *(next_multiple(carry.steps, every) for every in (record_every, yield_every) if every)]
        loop_steps = min(-(-(min(ends) - carry.steps) // num_envs), pace.loop_steps)
        before = carry.steps
        arrays = to_device(carry, environment)
        environment.state = None  # donated
        started = time.perf_counter()
        arrays = run(arrays, loop_steps, carry)
        pace.add(loop_steps, time.perf_counter() - started)
        carry = to_carry(carry, arrays, environment, loop_steps)
        recorded = carry.steps // record_every > before // record_every or carry.steps >= steps
        if recorded:
            epsilon = config.exploration.epsilon.value_at(carry.steps - num_envs, steps).item()
            carry, record = make_record(carry, agent, replay, config, programs, epsilon, steps, clock)
            yield carry, record
        elif yield_every is not None and carry.steps // yield_every > before // yield_every:
            yield carry, {}


class Pace:
    """Number of loop steps of the next chunk, from the time of the chunks before it.

    Args:
        most: Largest number of loop steps.
    """

    def __init__(self, most: int) -> None:
        self._most, self.loop_steps = most, min(most, 16)

    def add(self, loop_steps: int, seconds: float) -> None:
        """Add the time of a chunk, and set the length of the next one."""
        fits = int(loop_steps * SECONDS / seconds)
        # The first chunk compiles the program; a chunk before a record may be short.
        self.loop_steps = max(1, min(self._most, 4 * self.loop_steps, max(fits, self.loop_steps // 4)))


def to_device(carry: Carry, environment: FunctionalEnvironments) -> DeviceCarry:
    """Arrays of a carry and of its environments, for a chunk."""
    assert environment.state is not None
    return DeviceCarry(
        carry.agent,
        carry.recurrent_state,
        carry.replay,
        environment.state,
        carry.timestep.a_tm1,
        carry.frames,
        carry.totals,
        np.uint32(carry.learner_steps),
    )


def to_carry(carry: Carry, arrays: DeviceCarry, environment: FunctionalEnvironments, loop_steps: int) -> Carry:
    """Carry after ``loop_steps`` loop steps; the state of the environments is replaced."""
    environment.state = arrays.environment
    return carry._replace(
        agent=arrays.agent,
        recurrent_state=arrays.recurrent_state,
        replay=arrays.replay,
        timestep=arrays.environment.timestep._replace(a_tm1=arrays.a_tm1),
        totals=arrays.totals,
        frames=arrays.frames,
        steps=carry.steps + loop_steps * environment.num_envs,
        learner_steps=int(arrays.learner_steps),
    )
