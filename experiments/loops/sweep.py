"""Loop of a sweep: many runs of the device loop as lanes of one compiled program, a generator of carries and records.

A lane is a run with a seed, target rules and numbers of its own, which are data. All lanes have one network and one
cadence of learning, so the program is compiled once.
"""

import functools
import time
from collections.abc import Callable, Iterator, Sequence
from typing import Any, Literal, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from ...agents import Agent, LoopConfig
from ...agents.loop_config import check_on_device
from ...agents.types import AgentNumbers
from ...replay import Replay
from ...replay.types import DrawNumbers
from ...updates import TargetRule, partition
from ..environments.functional.lanes import not_finite
from ..environments.functional.types import FunctionalEnvironment
from .chunk import DeviceCarry, Outcomes, Plan, run_chunk
from .device import Pace
from .episodes import EpisodeStatistics
from .learning import Record, apply_operation, calibrated, diagnose
from .normalization import NO_SCALING
from .pieces import Capacity, pieces
from .recording import Clock, Counters, record_of
from .schedules import Segment, batches_per_dispatch, next_multiple, plan_segment

Lanes = Literal["map", "vmap"]
AXIS = "lanes"


class Settings(NamedTuple):
    """Numbers of the agents of a sweep; leaves ``[L]``.

    Attributes:
        rules: Name of each target to the rule of each of its parts; ``""`` is the main rule.
        learning_rate: Learning rates, float32; ``()`` for that of the config.
    """

    rules: dict[str, dict[str, TargetRule]]
    learning_rate: Any = ()

    def numbers(self) -> AgentNumbers:
        """Numbers of the agent of one lane, from its settings ``[]``."""
        rules = {
            name: partition(parts[""], others) if (others := {k: rule for k, rule in parts.items() if k}) else parts[""]
            for name, parts in self.rules.items()
        }
        return AgentNumbers(rules, None if isinstance(self.learning_rate, tuple) else self.learning_rate)


class SweepCarry(NamedTuple):
    """State of a sweep with ``L`` lanes.

    Attributes:
        key: Raw data of the keys for acting and learning, ``[L, 2, 2]`` uint32.
        settings: Numbers of the agents.
        arrays: Carries of the chunks; leaves ``[L, ...]``.
        statistics: Statistics of the episodes of each lane.
        diverged: Reason of each lane that has diverged; its records end there.
        steps: Number of environment steps of each lane so far.
        learner_steps: Number of learner steps of each lane so far.
        learner_steps_recorded: Number of learner steps at the last record.
    """

    key: Any
    settings: Settings
    arrays: DeviceCarry
    statistics: list[EpisodeStatistics]
    diverged: dict[int, str]
    steps: int = 0
    learner_steps: int = 0
    learner_steps_recorded: int = 0


class Program(NamedTuple):
    """Program that the lanes of a sweep share.

    Attributes:
        make: Function from the numbers of an agent, which may be traced, to the agent.
        functional: Environment.
        replay: Replay of one lane, on the device.
        configs: Config of the loop of each lane; they differ only in numbers of the plan.
        num_envs: Number of environments of each lane.
        lanes: Whether the lanes of a device run one after the other (``map``) or as one batch (``vmap``).
        devices: Devices, over which the lanes are spread; the number of lanes is a multiple of theirs.
    """

    make: Callable[[AgentNumbers], Agent]
    functional: FunctionalEnvironment
    replay: Replay
    configs: Sequence[LoopConfig]
    num_envs: int
    lanes: Lanes
    devices: Sequence[Any]


def sweep_loop(
    program: Program,
    carry: SweepCarry,
    *,
    steps: int,
    record_every: int = 1_000,
    yield_every: int | None = None,
    stop: Callable[[], bool] = lambda: False,
) -> Iterator[tuple[SweepCarry, list[Record | None]]]:
    """Run the lanes of a sweep, as :func:`polyak.experiments.loops.device.device_loop` runs one run.

    Args:
        program: Program that the lanes share.
        carry: Carry from :func:`polyak.experiments.runs.sweep_lanes.initial_sweep` or a checkpoint; consumed.
        steps: Number of environment steps of each lane.
        record_every: Number of environment steps between two records.
        yield_every: Number of environment steps between two additional yields.
        stop: Function that is called once per chunk; when it returns True, the loop ends after a last yield.

    Yields:
        ``(carry, records)``, with a record for each lane, None for a lane that has diverged; no records in an
        additional yield.

    Raises:
        ValueError: if an observation or a reward is not finite.
    """
    configs, num_envs = program.configs, program.num_envs
    config, batches = configs[0], batches_per_dispatch(program.configs[0], num_envs)
    check_on_device(config.normalization)
    agent = program.make(first_lane(carry.settings).numbers())
    compiled = compile_lanes(program, agent, batches)
    capacity = Capacity.of(config, num_envs, record_every)
    clock, pace = Clock(carry.steps), Pace(capacity.loop_steps)

    def run(carry: SweepCarry, loop_steps: int) -> SweepCarry:
        arrays, step = carry.arrays, carry.steps
        segment = _plan_lanes(configs, agent, step, carry.learner_steps, loop_steps, num_envs, steps)
        watched = carry.learner_steps_recorded if carry.learner_steps == carry.learner_steps_recorded else None
        learner_steps = carry.learner_steps
        for piece in pieces(agent, segment, watched, capacity):
            if piece.calibrates:
                arrays = arrays._replace(agent=_calibrated_lanes(program, agent, arrays))
            shared = piece.plan._replace(epsilon=None, numbers=None)
            inputs = carry.key, carry.settings, piece.plan.epsilon, piece.plan.numbers
            arrays, outcomes = compiled.chunk(shared, arrays, inputs)
            r_t, last, finite = (leaf[:, : piece.loop_steps] for leaf in jax.device_get(outcomes))
            if not finite.all():
                raise not_finite(program.functional, step // num_envs + int(np.argmin(finite.all(axis=0))))
            for lane, statistics in enumerate(carry.statistics):
                statistics.add_many(step, r_t[lane], last[lane])
            step, (before, learner_steps) = step + num_envs * piece.loop_steps, piece.learner_steps
            for operation, apply in compiled.periodic:
                if operation.count(learner_steps) > operation.count(before):
                    state, _ = apply(np.uint32(learner_steps), arrays.agent, (carry.key, carry.settings))
                    arrays = arrays._replace(agent=state)
        return carry._replace(arrays=arrays, steps=step, learner_steps=learner_steps)

    while carry.steps < steps:
        if stop():
            yield carry, []
            return
        ends = [steps, *(next_multiple(carry.steps, every) for every in (record_every, yield_every) if every)]
        loop_steps = min(-(-(min(ends) - carry.steps) // num_envs), pace.loop_steps)
        before, started = carry.steps, time.perf_counter()
        carry = run(carry, loop_steps)
        pace.add(loop_steps, time.perf_counter() - started)
        if carry.steps // record_every > before // record_every or carry.steps >= steps:
            carry, records = _records(program, agent, compiled, carry, steps)
            times = clock.record(carry.steps)
            yield carry, [None if record is None else record | times for record in records]
        elif yield_every is not None and carry.steps // yield_every > before // yield_every:
            yield carry, []


class Compiled(NamedTuple):
    """Compiled programs of a sweep.

    Attributes:
        chunk: ``(plan without numbers of lanes, arrays, inputs) -> (arrays, outcomes)``; donates the arrays.
        diagnose: ``(settings, agent, totals, count) -> name to [L]``.
        size: ``(replay states) -> [L]``.
        periodic: Each periodic operation with ``(learner steps, agent, (key, settings)) -> (agent, ())``, which donates
            the agent.
    """

    chunk: Callable[..., Any]
    diagnose: Callable[..., Any]
    size: Callable[..., Any]
    periodic: Sequence[tuple[Any, Callable[..., Any]]]


def compile_lanes(program: Program, agent: Agent, batches: int) -> Compiled:
    """Compile the programs of a sweep."""
    functional, replay, config = program.functional, program.replay, program.configs[0]

    def chunk(shared: Plan, carry: DeviceCarry, inputs: Any) -> tuple[DeviceCarry, Outcomes]:
        key, settings, epsilon, numbers = inputs
        plan = shared._replace(epsilon=epsilon, numbers=numbers)
        made = program.make(settings.numbers())
        return run_chunk(made, functional, replay, config, batches, key, carry, plan)

    def operate(name: str, number: int, learner_steps: Any, state: Any, inputs: Any) -> tuple[Any, tuple[()]]:
        key, settings = inputs
        operation = program.make(settings.numbers()).periodic[name]
        return apply_operation(operation, number, key[1], learner_steps, state), ()

    def readings(settings: Settings, state: Any, totals: Any, count: Any) -> dict[str, jax.Array]:
        return diagnose(program.make(settings.numbers()), state, totals, count)

    return Compiled(
        over_lanes(chunk, program),
        jax.jit(jax.vmap(readings, (0, 0, 0, None))),
        jax.jit(jax.vmap(replay.size)),
        [
            (operation, over_lanes(functools.partial(operate, name, number), program))
            for number, (name, operation) in enumerate(agent.periodic.items())
        ],
    )


def over_lanes(function: Callable[[Any, Any, Any], tuple[Any, Any]], program: Program) -> Callable[..., Any]:
    """Compile a function of one lane for all lanes.

    Args:
        function: ``(shared, carry, inputs) -> (carry, output)`` of one lane.
        program: How the lanes run, and the devices.

    Returns:
        Jitted function of ``shared``, and of carries and inputs ``[L, ...]``. The carries are donated.
    """

    def mapped(shared: Any, carry: Any, inputs: Any) -> tuple[Any, Any]:
        if program.lanes == "vmap":
            return jax.vmap(functools.partial(function, shared))(carry, inputs)
        # lax.map would keep the carries before and after: a loop updates them in place.
        count = len(jax.tree.leaves(carry)[0])
        one = jax.eval_shape(function, shared, _at(carry, 0), _at(inputs, 0))[1]
        outputs = jax.tree.map(lambda leaf: jnp.zeros((count, *leaf.shape), leaf.dtype), one)

        def body(lane: Any, state: tuple[Any, Any]) -> tuple[Any, Any]:
            carry, outputs = state
            found = function(shared, _at(carry, lane), _at(inputs, lane))
            written: tuple[Any, Any] = jax.tree.map(lambda leaf, new: leaf.at[lane].set(new), (carry, outputs), found)
            return written

        found: tuple[Any, Any] = jax.lax.fori_loop(0, count, body, (carry, outputs))
        return found

    mesh, lanes = jax.sharding.Mesh(np.asarray(program.devices), (AXIS,)), jax.P(AXIS)
    spread = jax.shard_map(mapped, mesh=mesh, in_specs=(jax.P(), lanes, lanes), out_specs=lanes, check_vma=False)
    return jax.jit(spread, donate_argnums=1)


def first_lane(settings: Settings) -> Settings:
    """Settings of the first lane."""
    found: Settings = _at(settings, 0)
    return found


def _at(tree: Any, lane: Any) -> Any:
    return jax.tree.map(lambda leaf: leaf[lane], tree)


def _plan_lanes(
    configs: Sequence[LoopConfig],
    agent: Agent,
    step: int,
    learner_steps: int,
    loop_steps: int,
    num_envs: int,
    steps: int,
) -> Segment:
    """Segment whose numbers have an axis for the lanes."""
    distinct = {
        config: plan_segment(config, agent, step, learner_steps, loop_steps, num_envs, steps)
        for config in dict.fromkeys(configs)
    }
    found = [distinct[config] for config in configs]
    numbers: DrawNumbers = jax.tree.map(lambda *leaves: np.stack(leaves), *(segment.numbers for segment in found))
    return found[0]._replace(epsilon=np.stack([segment.epsilon for segment in found]), numbers=numbers)


def _calibrated_lanes(program: Program, agent: Agent, arrays: DeviceCarry) -> Any:
    states = [
        calibrated(agent, program.replay, config, _at(arrays.agent, lane), _at(arrays.replay, lane), NO_SCALING)
        for lane, config in enumerate(program.configs)
    ]
    return jax.tree.map(lambda old, *new: jax.device_put(jnp.stack(new), old.sharding), arrays.agent, *states)


def _records(
    program: Program, agent: Agent, compiled: Compiled, carry: SweepCarry, steps: int
) -> tuple[SweepCarry, list[Record | None]]:
    """Record of each lane, None for a diverged one, and the carry with its sums set to 0."""
    at = Counters(carry.steps, carry.learner_steps, carry.learner_steps_recorded)
    arrays, count = carry.arrays, max(at.learner_steps - at.learner_steps_recorded, 1)
    found, sizes = jax.device_get(
        (compiled.diagnose(carry.settings, arrays.agent, arrays.totals, count), compiled.size(arrays.replay))
    )
    diverged, records = dict(carry.diverged), list[Record | None]()
    for lane, config in enumerate(program.configs):
        epsilon = config.exploration.epsilon.value_at(at.steps - program.num_envs, steps).item()
        numbers = {name: values[lane].item() for name, values in found.items()}
        record = None
        try:
            record = record_of(
                at, carry.statistics[lane], numbers, arrays.totals, int(sizes[lane]), agent, config, epsilon, steps
            )
        except ValueError as error:
            diverged.setdefault(lane, str(error))
        records.append(None if lane in diverged else record)
    totals = {name: jnp.zeros_like(total) for name, total in arrays.totals.items()}
    carry = carry._replace(
        arrays=arrays._replace(totals=totals), diverged=diverged, learner_steps_recorded=carry.learner_steps
    )
    return carry, records
