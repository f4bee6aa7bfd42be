"""Lanes of one compiled program of a sweep: their agent, their numbers as data, and their stacked state."""

import dataclasses
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from ...agents.agent import make_targets
from ...agents.types import AgentNumbers
from ...replay import Replay
from ...updates import Partition, Target, TargetRule, rules_by_part
from ...updates.parts import parts_of_leaves
from ..environments.functional.lanes import FunctionalEnvironments
from ..loops import sweep as loops
from ..loops.carry import Carry
from ..loops.chunk import DeviceCarry
from ..loops.device import to_device
from ..loops.learning import Record
from ..loops.sweep import Program, Settings, SweepCarry, first_lane
from .build import Parts, build, make_run_agent
from .sweep_grid import Lane, target_options
from .train import first_carry

OF_PARTS = ("target_distance", "steps_since_update")  # readings of each part of a target


@dataclasses.dataclass(frozen=True)
class Lanes:
    """Lanes of one compiled program.

    Attributes:
        lanes: Lanes, without the copies that fill the devices.
        parts: Parts of the first lane. Its agent has the target parts of all lanes, and rules that are arrays.
        described: Parts of each lane, with the rules of its own config.
        program: Program.
        settings: Numbers of the agents of all lanes, leaves ``[L]``; ``L`` is a multiple of the number of devices.
        others: Names of the readings of each lane that are of parts of other lanes' targets.
    """

    lanes: tuple[Lane, ...]
    parts: Parts
    described: tuple[Parts, ...]
    program: Program
    settings: Settings
    others: tuple[frozenset[str], ...]

    def record(self, lane: int, record: Record) -> Record:
        """Record of a lane without readings of other lanes' target parts."""
        return {name: value for name, value in record.items() if name not in self.others[lane]}


def make_lanes(
    lanes: Sequence[Lane], devices: Sequence[Any], mode: loops.Lanes, given: Mapping[str, Any] = {}
) -> Lanes:
    """Make the lanes of a group without allocating their state.

    Args:
        lanes: Lanes that share a program, see :func:`polyak.experiments.runs.sweep_grid.groups_of`.
        devices: Devices, of which at most one for each lane is used.
        mode: Whether the lanes of a device run one after the other or as one batch.
        given: Objects passed from Python, by their text in the config.

    Raises:
        ValueError, TypeError: if a config does not fit the environment.
    """
    first = lanes[0].config
    # The replay reads the largest number of steps of an n-step return.
    widest = max((lane.config for lane in lanes), key=lambda config: config.loop.draw.most_steps)
    parts = build(widest, given=given)
    assert isinstance(parts.environment, FunctionalEnvironments)
    devices = devices[: len(lanes)]
    filled = [*lanes, *[lanes[-1]] * (-len(lanes) % len(devices))]
    shapes = jax.eval_shape(parts.agent.init, jax.random.key(0)).params
    rules, named = _rules(lanes, parts, shapes)
    settings = _settings([lane.config for lane in filled], rules + rules[-1:] * (len(filled) - len(lanes)))
    spec = parts.environment.spec

    def make(numbers: AgentNumbers) -> Any:
        own = (numbers,) if first.maker == "none" else ()
        return make_run_agent(first, spec, "device", given, *own)

    agent = make(jax.tree.map(jnp.asarray, first_lane(settings)).numbers())
    template = dataclasses.replace(parts, config=first, agent=agent)
    described = tuple(
        dataclasses.replace(parts, config=lane.config, agent=parts.agent._replace(targets=targets))
        for lane, targets in zip(lanes, named, strict=True)
    )
    configs = [lane.config.loop for lane in filled]
    functional = parts.environment.functional
    program = Program(make, functional, parts.replay, configs, first.num_envs, mode, devices)
    return Lanes(tuple(lanes), template, described, program, settings, _others(settings, named))


def bytes_of(lanes: Lanes) -> tuple[int, int]:
    """Number of bytes of one lane's state, and of its replay, which is a part of it."""
    state = jax.eval_shape(lanes.parts.agent.init, jax.random.key(0))
    replay = lanes.parts.replay.nbytes.memory
    return replay + sum(leaf.size * leaf.dtype.itemsize for leaf in jax.tree.leaves(state)), replay


def initial_sweep(lanes: Lanes) -> SweepCarry:
    """Carry at step 0; each lane begins as its own run does.

    Raises:
        ValueError: as :func:`polyak.experiments.runs.train.first_carry`.
    """
    parts = lanes.parts
    replay_state = parts.replay.init()
    sample = parts.replay.sample_spec()
    # An empty replay is the same in all lanes.
    replay: Replay = parts.replay._replace(init=lambda **_: replay_state, sample_spec=lambda: sample)
    nothing: Any = ()
    carries, arrays = list[Carry](), list[DeviceCarry]()
    for lane in lanes.lanes:
        environment = FunctionalEnvironments(lanes.program.functional, lanes.program.num_envs, lane.config.seed)
        own = dataclasses.replace(parts, config=lane.config, environment=environment, replay=replay)
        carry = first_carry(own)
        carries.append(carry)
        arrays.append(to_device(carry, environment)._replace(replay=nothing))
    stacked = _stack([*arrays])
    count = len(lanes.lanes)
    template = jax.tree.map(lambda leaf: np.broadcast_to(np.asarray(leaf), (count, *leaf.shape)), replay_state)
    key = np.stack([np.asarray(carry.key) for carry in carries])
    statistics = [carry.statistics for carry in carries]
    return filled(lanes, key, stacked._replace(replay=template), statistics)


def filled(lanes: Lanes, key: Any, arrays: DeviceCarry, statistics: Sequence[Any], **others: Any) -> SweepCarry:
    """Carry with copies of the last lane that fill the devices, on the devices.

    Args:
        lanes: Lanes.
        key: Raw data of the keys, ``[n, 2, 2]`` uint32, without copies.
        arrays: Carries of the chunks, leaves ``[n, ...]``, without copies.
        statistics: Statistics of the episodes of each lane, without copies.
        **others: Other fields of the carry.
    """
    count, total = len(lanes.lanes), len(lanes.program.configs)
    placed = _place(lanes)
    which = np.minimum(np.arange(total), count - 1)

    def fill(leaf: Any) -> Any:
        if _is_repeated(leaf):
            return placed(np.broadcast_to(leaf[0], (total, *leaf.shape[1:])))
        return placed(leaf if total == count else leaf[which])

    every = [dataclasses.replace(statistics[lane], **_copied(statistics[lane])) for lane in which]
    return SweepCarry(fill(key), jax.tree.map(placed, lanes.settings), jax.tree.map(fill, arrays), every, {}, **others)


def lane_states(lanes: Lanes, carry: SweepCarry) -> Callable[[int], Carry]:
    """Function from the index of a lane to its carry without a replay, for evaluation and for its parameters."""
    states = jax.device_get(carry.arrays.agent)
    nothing: Any = ()

    def of(lane: int) -> Carry:
        agent = jax.tree.map(lambda leaf: jnp.asarray(leaf[lane]), states)
        return Carry(
            carry.key, agent, (), nothing, nothing, {}, carry.statistics[lane],
            steps=carry.steps, learner_steps=carry.learner_steps,
        )  # fmt: skip

    return of


def _place(lanes: Lanes) -> Callable[[Any], Any]:
    mesh = jax.sharding.Mesh(np.asarray(lanes.program.devices), (loops.AXIS,))
    sharding = jax.NamedSharding(mesh, jax.P(loops.AXIS))

    def place(leaf: Any) -> Any:
        if isinstance(leaf, jax.Array):
            return jax.device_put(leaf, sharding)
        where = sharding.addressable_devices_indices_map(leaf.shape).items()
        if _is_repeated(leaf):  # an empty replay, which is made on the device
            shards = [jnp.repeat(jax.device_put(leaf[:1], device), len(leaf[index]), 0) for device, index in where]
        else:  # a copy, because JAX may share the memory of an array of NumPy
            shards = [jax.device_put(np.array(leaf[index]), device) for device, index in where]
        return jax.make_array_from_single_device_arrays(leaf.shape, sharding, shards)

    return place


def _is_repeated(leaf: Any) -> bool:
    """Whether an array repeats its first row without memory of its own."""
    return isinstance(leaf, np.ndarray) and len(leaf) > 1 and leaf.strides[0] == 0


def _copied(statistics: Any) -> dict[str, Any]:
    return {
        field.name: value.copy()
        for field in dataclasses.fields(statistics)
        if isinstance(value := getattr(statistics, field.name), list | np.ndarray)
    }


def _stack(trees: Sequence[Any]) -> Any:
    def stacked(*leaves: Any) -> Any:
        if isinstance(leaves[0], jax.Array) and jnp.issubdtype(leaves[0].dtype, jax.dtypes.prng_key):
            return jnp.stack(leaves)
        return np.stack([np.asarray(leaf) for leaf in leaves])

    return jax.tree.map(stacked, *trees)


def _rules(
    lanes: Sequence[Lane], parts: Parts, params: Any
) -> tuple[list[dict[str, dict[str, TargetRule]]], list[Mapping[str, Target]]]:
    """Rules of each lane, by target and by the parts of all lanes; and its targets.

    Raises:
        ValueError: if a part matches no parameter.
    """
    if lanes[0].config.maker != "none":
        return [{} for _ in lanes], [parts.agent.targets] * len(lanes)
    named = [
        {
            name: target._replace(rule=found.rule)
            for (name, found), target in zip(
                make_targets(lane.config.agent, **target_options(lane.config)).items(),
                parts.agent.targets.values(),
                strict=True,
            )
        }
        for lane in lanes
    ]
    rules: list[dict[str, dict[str, TargetRule]]] = [{} for _ in lanes]
    for name, target in parts.agent.targets.items():
        selected = target.select(params)
        labels = {str(own[name].rule): parts_of_leaves(own[name].rule, selected, name) for own in named}
        # Prefixes that match one leaf contain each other, so the longest one decides the leaves of a part.
        union = [max(found, key=len) for found in zip(*labels.values(), strict=True)]
        where = {"": None} | {label: union.index(label) for label in dict.fromkeys(union) if label}
        for own, found in zip(named, rules, strict=True):
            rule = own[name].rule
            by_part = {"": rule.main, **rule.parts} if isinstance(rule, Partition) else {"": rule}
            of_leaves = labels[str(rule)]
            found[name] = {label: by_part["" if at is None else of_leaves[at]] for label, at in where.items()}
    return rules, list(named)


def _settings(configs: Sequence[Any], rules: Sequence[dict[str, dict[str, TargetRule]]]) -> Settings:
    def stacked(*each: TargetRule) -> TargetRule:
        step_sizes, periods, horizons = zip(*each, strict=True)
        return TargetRule(
            np.asarray(step_sizes, np.float32), np.asarray(periods, np.int32), np.asarray(horizons, np.int32)
        )

    together = {
        name: {label: stacked(*(one[name][label] for one in rules)) for label in rules[0][name]} for name in rules[0]
    }
    rates = [config.agent.learning_rate for config in configs]
    if configs[0].maker != "none" or not rates[0].is_constant:
        return Settings(together)
    return Settings(together, np.asarray([rate.initial for rate in rates], np.float32))


def _others(settings: Settings, named: Sequence[Mapping[str, Target]]) -> tuple[frozenset[str], ...]:
    every = {f"{name}/{label}" for name, parts in settings.rules.items() for label in parts if label}
    own = [rules_by_part({name: target.rule for name, target in targets.items()}) for targets in named]
    return tuple(frozenset(f"{reading}/{key}" for key in every - {*keys} for reading in OF_PARTS) for keys in own)
