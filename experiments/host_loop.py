"""The host loop: one agent, one replay and any Gymnasium environment, as a generator of ``(carry, record)``.

The loop is the only place where the three meet. It makes one dispatch to act and at most a few to learn per step of
the environments; progress, logging, evaluation and checkpoints consume what it yields, and none lives inside.
"""

import math
import time
from collections.abc import Callable, Iterable, Iterator
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from ..agents import Agent, AgentConfig
from ..replay import host
from ..replay.types import Sample, Step, TimeStep, Transition
from ..updates import LearnerState, TargetRule, diagnostics, repeat
from .environment import Environments, VectorEnvironments
from .lanes import EnvironmentStep
from .statistics import EpisodeStatistics

Record = dict[str, Any]
Tree = Any
Environment = Environments | VectorEnvironments


class Carry(NamedTuple):
    """The whole of a run but for the environments, whose snapshot a checkpoint keeps beside it.

    A carry that the loop has yielded is consumed when the loop goes on.

    Attributes:
        key: what acting and learning draw from, as raw uint32 data: a typed key costs the host 30 microseconds a call.
        agent: the state of the agent.
        memory: what the agent remembers between steps, ``[N, ...]``.
        replay: experience kept.
        generator: what the draws from the replay come from.
        timestep: what the agent sees next.
        totals: sums of the learner's metrics since the last record.
        statistics: of the episodes.
        steps: environment steps so far, over all environments.
        learner_steps: learner steps so far.
        learner_steps_recorded: the same at the last record.
    """

    key: jax.Array
    agent: LearnerState
    memory: Tree
    replay: host.HostReplay
    generator: np.random.Generator
    timestep: TimeStep
    totals: dict[str, jax.Array]
    statistics: EpisodeStatistics
    steps: int = 0
    learner_steps: int = 0
    learner_steps_recorded: int = 0


def total_learner_steps(config: AgentConfig, steps: int, num_envs: int) -> int:
    """How many learner steps the loop makes in a run of ``steps`` environment steps.

    >>> from polyak.agents import DQNConfig
    >>> total_learner_steps(DQNConfig(learning_starts=1000, train_every=10, learner_steps=1), 10_000, num_envs=1)
    901
    """
    last = -(-steps // num_envs) * num_envs
    before_first = max(-(-config.learning_starts // num_envs) - 1, 0) * num_envs
    rounds = last // config.train_every - before_first // config.train_every
    return max(rounds, 0) * config.learner_steps


def batches_per_dispatch(config: AgentConfig, num_envs: int) -> int:
    """How many learner steps one dispatch makes, in one scan.

    Where every loop step has the same number of rounds they share a dispatch; else each round has its own, so that
    one program serves them all.

    >>> from polyak.agents import DQNConfig
    >>> config = DQNConfig(train_every=4, learner_steps=2)
    >>> [batches_per_dispatch(config, num_envs) for num_envs in (1, 8, 10)]
    [2, 4, 2]
    """
    rounds = num_envs // config.train_every if num_envs % config.train_every == 0 else 1
    return rounds * config.learner_steps


def epsilon_at(config: AgentConfig, step: int, steps: int) -> float:
    """The probability of a random action at environment step ``step`` of ``steps``: linear, then constant.

    >>> from polyak.agents import DQNConfig
    >>> config = DQNConfig(epsilon_initial=1.0, epsilon_final=0.1, epsilon_fraction=0.5)
    >>> [round(epsilon_at(config, step, 100), 3) for step in (0, 25, 50, 100)]
    [1.0, 0.55, 0.1, 0.1]
    """
    decay = config.epsilon_fraction * steps
    progress = min(step / decay, 1.0) if decay > 0 else 1.0
    return (1 - progress) * config.epsilon_initial + progress * config.epsilon_final


def initial_carry(agent: Agent, environment: Environment, config: AgentConfig, seed: int) -> Carry:
    """The carry at step 0: agent initialised, replay allocated, environments reset.

    Raises:
        ValueError: the replay does not fit into memory, or the environments cannot be reset.
    """
    init_key, memory_key, key = jax.random.split(jax.random.key(seed), 3)
    num_envs, spec = environment.num_envs, environment.spec
    state = agent.init(init_key)
    memory = agent.initial_memory(memory_key, num_envs)
    sample, extras = _specs(agent, state, memory, environment, config.batch_size)
    measured = [*jax.eval_shape(agent.learn, key, state, sample)[1].metrics]
    measured += [f"target_distance/{name}" for name in agent.targets]
    return Carry(
        key=jax.random.key_data(key),
        agent=state,
        memory=memory,
        replay=host.init(spec.observation, extras, num_envs=num_envs, capacity=config.replay_capacity),
        generator=np.random.default_rng(np.random.SeedSequence(entropy=seed, spawn_key=(0xD4A3,))),
        timestep=environment.reset(),
        totals=_zeros(measured),
        statistics=EpisodeStatistics.initial(num_envs),
    )


def host_loop(
    agent: Agent,
    environment: Environment,
    config: AgentConfig,
    carry: Carry,
    *,
    steps: int,
    record_every: int = 1_000,
    yield_every: int | None = None,
    stop: Callable[[], bool] = lambda: False,
) -> Iterator[tuple[Carry, Record]]:
    """Runs an agent on environments; yields the carry and a record at every multiple of ``record_every`` steps.

    A round of learning is due at every multiple of ``config.train_every`` environment steps from
    ``config.learning_starts`` on: ``config.learner_steps`` learner steps on fresh draws, in one dispatch. With several
    environments the rounds of one loop step share a dispatch where their number is the same in every loop step.

    Args:
        agent: the agent.
        environment: one or more environments; between two calls they must be left alone.
        config: cadence, draws and exploration.
        carry: from :func:`initial_carry` or a checkpoint; consumed.
        steps: environment steps at which the run ends; the last loop step may overshoot it by ``num_envs - 1``.
        record_every: environment steps between two records; the last record may cover fewer.
        yield_every: environment steps between two further yields, with an empty record where none is due (for
            checkpoints between records); None for no more than the records.
        stop: asked once per loop step; when it says True, the carry is yielded with an empty record and the loop ends.

    Yields:
        ``(carry, record)``; the record is a dictionary of numbers, ``returns`` and ``lengths`` being those of the
        episodes that ended since the record before, and what the learner measures None where it has not learnt.
        In a vector environment that spends a call on resetting (``NEXT_STEP``), that call counts as a step.

    Raises:
        ValueError: an observation or a reward is not finite (the message names environment and step), or a metric of
            the learner is not, because training has diverged.
    """
    num_envs = environment.num_envs
    batches = batches_per_dispatch(config, num_envs)
    rounds_per_dispatch = batches // config.learner_steps
    act, learn, diagnose, read_by_act = _compile(agent, batches, carry)
    key, state, memory, replay, generator, timestep, totals, statistics, step, learner_steps, recorded = carry
    started, first_step = time.perf_counter(), step

    def snapshot() -> Carry:
        return Carry(key, state, memory, replay, generator, timestep, totals, statistics, step, learner_steps, recorded)

    acting = read_by_act(state)
    while step < steps:
        if stop():
            yield snapshot(), {}
            return
        epsilon = epsilon_at(config, step, steps)
        key, acted = act(key, acting, memory, timestep, np.float32(epsilon))
        memory, action = acted.memory, np.asarray(acted.action)
        outcome = environment.step(action)
        replay = host.add(replay, _step(timestep, action, outcome, acted.extras), outcome.valid)
        statistics.add(step, outcome)
        timestep, before = outcome.timestep, step
        step += num_envs

        if step >= config.learning_starts:
            rounds = step // config.train_every - before // config.train_every
            for _ in range(rounds // rounds_per_dispatch):
                sample = host.sample(
                    generator,
                    replay,
                    config.batch_size,
                    config.n_steps,
                    config.discount,
                    num_batches=batches if batches > 1 else None,
                )
                key, state, totals = learn(key, state, totals, sample)
                learner_steps += batches
                acting = read_by_act(state)

        if step // record_every > before // record_every or step >= steps:
            record = {
                "step": step,
                "learner_steps": learner_steps,
                "epsilon": epsilon,
                "replay_size": host.size(replay),
            }
            record |= statistics.record() | _measured(diagnose, state, totals, learner_steps - recorded, step)
            seconds = time.perf_counter() - started
            record |= {"seconds": seconds, "steps_per_second": (step - first_step) / seconds}
            totals, recorded = _zeros(totals), learner_steps
            yield snapshot(), record
        elif yield_every is not None and step // yield_every > before // yield_every:
            yield snapshot(), {}


class _Compiled(NamedTuple):
    act: Callable[..., Any]
    learn: Callable[..., Any]
    diagnose: Callable[..., Any]
    read_by_act: Callable[[LearnerState], list[jax.Array]]


def _compile(agent: Agent, batches: int, carry: Carry) -> _Compiled:
    """The three programs of the loop; each splits the key it is given, so that no dispatch is spent on keys.

    Every array that a call is given costs the host more than a microsecond, whether it is read or not, and acting
    reads few of the state's: ``act`` is given those alone.
    """
    leaves, structure = jax.tree.flatten(carry.agent)
    read = _leaves_read(agent, carry)

    @jax.jit
    def act(key: jax.Array, acting: list[jax.Array], memory: Tree, timestep: TimeStep, epsilon: jax.Array) -> Any:
        key, act_key = _split(key)
        given = dict(zip(read, acting, strict=True))
        state = jax.tree.unflatten(structure, [given.get(i, _unread(leaf)) for i, leaf in enumerate(shapes)])
        return key, agent.act(act_key, state, memory, timestep, epsilon)

    shapes = [jax.ShapeDtypeStruct(leaf.shape, leaf.dtype) for leaf in leaves]

    def learn(key: jax.Array, state: LearnerState, totals: dict[str, jax.Array], sample: Sample) -> Any:
        key, learn_key = _split(key)
        state, output = (repeat(agent.learn) if batches > 1 else agent.learn)(learn_key, state, sample)
        # Once a dispatch and averaged like the rest: seen at the records alone, a hard target would look always fresh.
        measured = output.metrics | {name: batches * value for name, value in _distances(agent, state).items()}
        totals = {name: total + jnp.sum(measured[name]) for name, total in totals.items()}
        return key, state, totals

    @jax.jit
    def diagnose(state: LearnerState, totals: dict[str, jax.Array], count: Any) -> dict[str, jax.Array]:
        found = {name: total / count for name, total in totals.items()}
        for name, named in agent.targets.items():
            if isinstance(named.rule, TargetRule):
                since = diagnostics.steps_since_update(named.rule, state.targets[name])
                found[f"steps_since_update/{name}"] = since
        return found

    def read_by_act(state: LearnerState) -> list[jax.Array]:
        leaves = jax.tree.leaves(state)
        return [leaves[i] for i in read]

    return _Compiled(act, jax.jit(learn, donate_argnums=(1, 2)), diagnose, read_by_act)


def _unread(shape: jax.ShapeDtypeStruct) -> jax.Array:
    """What stands, inside the program of ``act``, for a leaf that has no part in its result."""
    if jnp.issubdtype(shape.dtype, jax.dtypes.prng_key):
        return jnp.broadcast_to(jax.random.key(0), shape.shape)
    return jnp.zeros(shape.shape, shape.dtype)


def _leaves_read(agent: Agent, carry: Carry) -> list[int]:
    """Which leaves of the agent's state ``act`` reads, by their number."""
    key, epsilon = jax.random.wrap_key_data(carry.key), jnp.float32(0)
    jaxpr = jax.make_jaxpr(agent.act)(key, carry.agent, carry.memory, carry.timestep, epsilon).jaxpr
    used = {id(variable) for equation in jaxpr.eqns for variable in equation.invars}
    used |= {id(variable) for variable in jaxpr.outvars}
    return [i for i in range(len(jax.tree.leaves(carry.agent))) if id(jaxpr.invars[1 + i]) in used]


def _split(key_data: jax.Array) -> tuple[jax.Array, jax.Array]:
    key, use = jax.random.split(jax.random.wrap_key_data(key_data))
    return jax.random.key_data(key), use


def _distances(agent: Agent, state: LearnerState) -> dict[str, jax.Array]:
    return {
        f"target_distance/{name}": diagnostics.target_distance(
            named.rule, named.select(state.params), state.targets[name]
        )
        for name, named in agent.targets.items()
    }


def _specs(
    agent: Agent, state: LearnerState, memory: Tree, environment: Environment, batch_size: int
) -> tuple[Sample, Tree]:
    """Shapes of a sample, and of the extras that the agent keeps with one step of one environment."""
    observation = environment.spec.observation

    def batch(size: int, dtype: Any = jnp.float32, shape: tuple[int, ...] = ()) -> jax.ShapeDtypeStruct:
        return jax.ShapeDtypeStruct((size, *shape), dtype)

    num_envs = environment.num_envs
    timestep = TimeStep(
        batch(num_envs, observation.dtype, observation.shape), batch(num_envs), batch(num_envs, jnp.bool_)
    )
    acted = jax.eval_shape(agent.act, jax.random.key(0), state, memory, timestep, jax.ShapeDtypeStruct((), jnp.float32))
    extras = jax.tree.map(lambda leaf: jax.ShapeDtypeStruct(leaf.shape[1:], leaf.dtype), acted.extras)
    drawn = batch(batch_size, observation.dtype, observation.shape)
    transition = Transition(
        drawn,
        batch(batch_size, jnp.int32),
        batch(batch_size),
        batch(batch_size),
        drawn,
        jax.tree.map(lambda leaf: batch(batch_size, leaf.dtype, leaf.shape), extras),
    )
    return Sample(transition, batch(batch_size), batch(batch_size, jnp.int32)), extras


def _step(timestep: TimeStep, action: np.ndarray, outcome: EnvironmentStep, extras: Tree) -> Step:
    kept = jax.tree.map(np.asarray, extras)
    return Step(timestep.observation, action, outcome.r_t, outcome.discount_t, outcome.last, outcome.obs_t, kept)


def _zeros(totals: Iterable[str]) -> dict[str, jax.Array]:
    return {name: jnp.zeros((), jnp.float32) for name in totals}


def _measured(
    diagnose: Callable[..., Any], state: LearnerState, totals: dict[str, jax.Array], count: int, step: int
) -> Record:
    """The learner's metrics, means over ``count`` learner steps; fetched from the device in one call."""
    found = {name: value.item() for name, value in jax.device_get(diagnose(state, totals, max(count, 1))).items()}
    if count == 0:
        return found | dict.fromkeys(totals)
    for name, value in found.items():
        if not math.isfinite(value):
            raise ValueError(
                f"{name}: got {value} at environment step {step}: training has diverged. Lower learning_rate, set "
                "max_gradient_norm, or slow the target down."
            )
    return found
