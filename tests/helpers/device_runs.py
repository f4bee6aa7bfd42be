"""Both loops over the replay on the device, with one functional environment and one key."""

import collections
import contextlib
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import optax

from polyak import updates
from polyak.agents import ActOutput, Agent, make_agent, make_configs
from polyak.experiments.environments.functional.lanes import FunctionalEnvironments
from polyak.experiments.environments.functional.types import FunctionalEnvironment, FunctionalStep
from polyak.experiments.loops.carry import Carry, initial_carry, make_replay
from polyak.experiments.loops.device import device_loop, to_device
from polyak.experiments.loops.observations import observation_pipeline
from polyak.experiments.loops.schedules import total_learner_steps
from polyak.experiments.loops.sweep import AXIS, Program, Settings, SweepCarry, first_lane, sweep_loop
from polyak.replay import EnvironmentSpec
from polyak.updates import LossOutput, Target, TargetRule, rules_by_part
from small_runs import without_times

TINY: dict[str, Any] = {
    "hidden_sizes": (6,),
    "batch_size": 4,
    "replay_capacity": 120,
    "learning_starts": 20,
    "train_every": 2,
    "learner_steps": 1,
    "learning_rate": 0.001,
    "epsilon": "linear(1,0.1,50%)",
}


class Ran(NamedTuple):
    carry: Carry
    records: list[dict[str, Any]]
    environment: FunctionalEnvironments


def small(name="dqn", **fields):
    """Configs of an agent with tiny networks."""
    return make_configs(name, "classic", TINY | fields)


def make(configs, functional, num_envs, steps, numbers=None):
    """Agent of a run."""
    return make_agent(
        configs.agent,
        observation_pipeline(configs.loop, functional.spec).spec,
        total_learner_steps=total_learner_steps(configs.loop, steps, num_envs),
        environment_steps_per_learner_step=configs.loop.environment_steps_per_learner_step,
        lowering="patches",  # as runs on the device have it
        **({} if numbers is None else {"numbers": numbers}),
    )


def run(loop, configs, functional, num_envs=1, *, steps, agent=None, seed=0, record_every=None, **options):
    """Run a loop over the replay on the device, from its beginning."""
    agent = agent or make(configs, functional, num_envs, steps)
    environment = FunctionalEnvironments(functional, num_envs, seed)
    replay = make_replay(agent, environment.spec, configs.loop, num_envs, on_device=True)
    carry = initial_carry(agent, environment, replay, configs.loop, seed)
    options = {"steps": steps, "record_every": record_every or steps, **options}
    records = []
    for found, record in loop(agent, environment, replay, configs.loop, carry, **options):
        carry = found
        records.append(without_times(record))
    return Ran(carry, records, environment)


def on_device(*arguments, **options):
    return run(device_loop, *arguments, **options)


class Swept(NamedTuple):
    carry: SweepCarry
    records: list[list[dict[str, Any] | None]]

    def lane(self, lane):
        """Arrays of one lane."""
        return jax.tree.map(lambda leaf: np.asarray(leaf)[lane], self.carry.arrays)


def sweep(configs, functional, num_envs=1, *, seeds, steps, record_every=None, lanes="map", devices=None, **options):
    """Run a sweep from its beginning; each lane has a config and a seed.

    Options may have ``made`` and ``rules``: a function from numbers to an agent, and the rules of each lane's targets.
    """
    made = options.pop("made", lambda numbers: make(configs[0], functional, num_envs, steps, numbers))
    rules = options.pop("rules", None)
    if rules is None:
        agents = [make(config, functional, num_envs, steps) for config in configs]
        rules = [{name: named.rule for name, named in agent.targets.items()} for agent in agents]
    rates = np.float32([config.agent.learning_rate.initial for config in configs])
    settings = settings_of(rules)._replace(learning_rate=rates)
    agent, first = made(first_lane(settings).numbers()), configs[0].loop
    longest = max((config.loop for config in configs), key=lambda loop: loop.draw.most_steps)
    replay = make_replay(agent, functional.spec, longest, num_envs, on_device=True)
    begun, arrays = [], []
    for seed in seeds:
        environment = FunctionalEnvironments(functional, num_envs, seed)
        begun.append(initial_carry(agent, environment, replay, first, seed))
        arrays.append(to_device(begun[-1], environment))
    devices = devices or jax.devices()[:1]
    spread = jax.NamedSharding(jax.sharding.Mesh(np.asarray(devices), (AXIS,)), jax.P(AXIS))

    def stack(trees):
        return jax.tree.map(
            lambda *leaves: jax.device_put(np.stack([np.asarray(leaf) for leaf in leaves]), spread), *trees
        )

    program = Program(
        made,
        functional,
        replay,
        [config.loop for config in configs],
        num_envs,
        lanes,
        devices,
    )
    settings = jax.tree.map(lambda leaf: jax.device_put(leaf, spread), settings)
    keys, statistics = stack([each.key for each in begun]), [each.statistics for each in begun]
    carry, records = SweepCarry(keys, settings, stack(arrays), statistics, {}), []
    options = {"steps": steps, "record_every": record_every or steps, **options}
    for found, new in sweep_loop(program, carry, **options):
        carry = found
        records.append([each if each is None else without_times(each) for each in new])
    return Swept(carry, records)


def settings_of(lanes_rules):
    """Settings of a sweep with these rules of targets, one mapping a lane; a part without a rule has the main one."""
    rules = [rules_by_part(each) for each in lanes_rules]
    parts = {name: {""} for name in lanes_rules[0]}
    for name, _, part in (path.partition("/") for found in rules for path in found):
        parts[name].add(part)

    def lanes(name, part):
        found = [each.get(f"{name}/{part}" if part else name, each[name]) for each in rules]
        dtypes = (np.float32, np.int32, np.int32)
        return TargetRule(
            *(np.asarray(values, dtype) for values, dtype in zip(np.transpose(found), dtypes, strict=True))
        )

    return Settings({name: {part: lanes(name, part) for part in sorted(found)} for name, found in parts.items()})


def assert_equal_arrays(first, second):
    """Two trees are equal to the bit."""
    assert jax.tree.structure(first) == jax.tree.structure(second)
    others = jax.tree.leaves(second)
    for (path, leaf), other in zip(jax.tree_util.tree_flatten_with_path(first)[0], others, strict=True):
        leaf, other = np.asarray(leaf), np.asarray(other)
        assert (leaf.dtype, leaf.shape) == (other.dtype, other.shape), jax.tree_util.keystr(path)
        assert leaf.tobytes() == other.tobytes(), jax.tree_util.keystr(path)


ARRAYS = ("key", "agent", "recurrent_state", "replay", "timestep", "frames")
COUNTERS = ("steps", "learner_steps", "learner_steps_recorded")


def assert_equal_carries(first, second):
    """Two carries are equal to the bit, their totals aside, of which the records are made."""
    for name in ARRAYS:
        assert_equal_arrays({name: getattr(first, name)}, {name: getattr(second, name)})
    for name in COUNTERS:
        assert getattr(first, name) == getattr(second, name), name
    ours, theirs = first.statistics, second.statistics
    assert ours.running_return.tolist() == theirs.running_return.tolist()
    assert ours.running_length.tolist() == theirs.running_length.tolist()
    assert (ours.recent, ours.episodes) == (theirs.recent, theirs.episodes)


def pictures(masks: bool = True, rare: bool = False) -> FunctionalEnvironment:
    """Images ``[4, 4]`` uint8 that tell number and time of an episode, which ends by either flag, or by both.

    Args:
        masks: Whether an action is illegal in each step.
        rare: Whether some rewards are so large that their square is not finite.
    """

    def observe(state):
        number, t = state
        return jnp.uint8((np.arange(16).reshape(4, 4) * (t + 1) + number) % 7 * 30)

    def init(key):
        state = jnp.stack([jax.random.randint(key, (), 0, 60), jnp.int32(0)])
        return state, observe(state)

    def step(key, state, action):
        del key
        number, t = state
        t, kind = t + 1, number // 4 % 3
        end = t == 2 + number % 4
        r_t = jnp.float32(action - number % 3) * jnp.where(rare & (number % 13 == 5) & (t == 1), 1e30, 1.0)
        state = jnp.stack([number, t])
        return state, FunctionalStep(observe(state), r_t, end & (kind != 1), end & (kind != 0))

    spec = EnvironmentSpec(jax.ShapeDtypeStruct((4, 4), np.dtype(np.uint8)), 4, masks)
    mask = (lambda state: state.sum() % 4 != np.arange(4)) if masks else None
    return FunctionalEnvironment(spec, init, step, mask, "pictures")


def counting_agent(targets, periodic={}):  # noqa: B006
    """Agent whose weight ``w`` counts its learner steps; it reports each target's weight.

    Args:
        targets: Rule of each target.
        periodic: Periodic operations.
    """
    named = {name: Target(rule) for name, rule in targets.items()}

    def loss(key, params, state, slow, sample):
        seen = {f"seen/{name}": slow[name].params["w"] for name in named}
        return 0.0 * sample.weights.sum() - params["w"], LossOutput(priorities=sample.weights, metrics=seen)

    learner = updates.learner(loss, optax.sgd(1.0), named)

    def act(key, state, recurrent_state, timestep):
        return ActOutput(jnp.zeros(timestep.reward.shape, jnp.int32), recurrent_state)

    def greedy_actions(variables, sample):
        return jnp.zeros(sample.weights.shape, jnp.int32)

    def init(key):
        return learner.init({"w": jnp.zeros(()), "fired": jnp.zeros(len(periodic))})

    first = Agent(init, lambda key, num_envs: (), act, learner.step, named, act, greedy_actions)
    return first._replace(periodic=periodic)


@contextlib.contextmanager
def compiled_names():
    """Counter of the names of the programs that are compiled within the context."""
    found = collections.Counter()

    def hear(event, seconds, **about):
        del seconds
        if event == "/jax/core/compile/backend_compile_duration":
            found[about.get("fun_name", "")] += 1

    jax.monitoring.register_event_duration_secs_listener(hear)
    try:
        yield found
    finally:
        jax.monitoring.unregister_event_duration_listener(hear)
