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
from ..replay.types import EnvironmentSpec, Sample, Step, TimeStep, Transition
from ..updates import LearnerState, TargetRule, diagnostics, repeat
from . import normalization
from .acting import Actor
from .environment import Environments, VectorEnvironments
from .lanes import EnvironmentFailure
from .normalization import Normalization, Scaling
from .statistics import EpisodeStatistics
from .workers import WorkerEnvironments

Record = dict[str, Any]
Tree = Any
Environment = Environments | VectorEnvironments | WorkerEnvironments


class Carry(NamedTuple):
    """The whole of a run but for the environments, whose snapshot a checkpoint keeps beside it.

    A carry that the loop has yielded is consumed when the loop goes on.

    Attributes:
        key: ``[2, 2]`` uint32, the keys of acting and of learning as raw data (a typed key costs the host 30
            microseconds a call). They stay as they are: what is drawn depends on them and on the counters.
        agent: the state of the agent.
        memory: what the agent remembers between steps, ``[N, ...]``.
        replay: experience kept.
        generator: what the draws from the replay come from.
        timestep: what the agent sees next.
        totals: sums of the learner's metrics since the last record.
        statistics: of the episodes.
        normalization: the statistics that observations and rewards are normalised with.
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
    normalization: Normalization = Normalization()
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


def epsilon_at(config: AgentConfig, step: Any, steps: int) -> np.ndarray:
    """The probability of a random action at environment step ``step`` (or several) of ``steps``: linear, then constant.

    >>> from polyak.agents import DQNConfig
    >>> config = DQNConfig(epsilon_initial=1.0, epsilon_final=0.1, epsilon_fraction=0.5)
    >>> epsilon_at(config, np.array([0, 25, 50, 100]), 100).tolist()
    [1.0, 0.55, 0.1, 0.1]
    """
    decay = config.epsilon_fraction * steps
    progress = np.minimum(np.asarray(step) / decay, 1.0) if decay > 0 else np.ones_like(step, np.float64)
    return (1 - progress) * config.epsilon_initial + progress * config.epsilon_final


def mask_spec(spec: EnvironmentSpec) -> Any:
    """Shape and dtype of the action mask that goes with one observation; ``()`` where there is none.

    >>> mask_spec(EnvironmentSpec(jax.ShapeDtypeStruct((4,), np.float32), num_actions=2, action_mask=True))
    ShapeDtypeStruct(shape=(2,), dtype=bool)
    """
    return jax.ShapeDtypeStruct((spec.num_actions,), np.bool_) if spec.action_mask else ()


def initial_carry(agent: Agent, environment: Environment, config: AgentConfig, seed: int) -> Carry:
    """The carry at step 0: agent initialised, replay allocated, environments reset.

    Raises:
        ValueError: the replay does not fit into memory, the environments cannot be reset, or their observations are
            to be normalised and are images.
    """
    init_key, memory_key, *keys = jax.random.split(jax.random.key(seed), 4)
    num_envs, spec = environment.num_envs, environment.spec
    moments = normalization.initial(
        spec, num_envs, observations=config.normalize_observations, rewards=config.normalize_rewards
    )
    state = agent.init(init_key)
    memory = agent.initial_memory(memory_key, num_envs)
    sample, extras = _specs(agent, state, memory, environment, config.batch_size)
    measured = [*jax.eval_shape(agent.learn, keys[1], state, sample)[1].metrics]
    measured += [f"target_distance/{name}" for name in agent.targets]
    capacity = config.replay_capacity
    replay = host.init(spec.observation, extras, mask_spec(spec), num_envs=num_envs, capacity=capacity)
    timestep = environment.reset()
    return Carry(
        key=jnp.stack([jax.random.key_data(key) for key in keys]),
        agent=state,
        memory=memory,
        replay=replay,
        generator=np.random.default_rng(np.random.SeedSequence(entropy=seed, spawn_key=(0xD4A3,))),
        timestep=timestep,
        totals=_zeros(measured),
        statistics=EpisodeStatistics.initial(num_envs),
        normalization=normalization.observe(moments, timestep.observation),
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
        In a vector environment that spends a call on resetting (``NEXT_STEP``), that call counts as a step, and so
        does one in which an environment was restarted.

    Raises:
        EnvironmentFailure: an environment raised, or its process ended or hung; where a checkpoint can still be made,
            the carry was yielded before, with an empty record.
        ValueError: an observation or a reward is not finite (the message names environment and step), or a metric of
            the learner is not, because training has diverged; with ``skip_nonfinite``, every learner step since the
            record before was skipped.
    """
    num_envs = environment.num_envs
    batches = batches_per_dispatch(config, num_envs)
    rounds_per_dispatch = batches // config.learner_steps
    learn, diagnose = _compile(agent, batches)
    key, state, memory, replay, generator, timestep, totals, statistics, moments, step, learner_steps, recorded = carry
    started, first_step = time.perf_counter(), step
    normalizes, by = bool(jax.tree.leaves(moments)), normalization.scaling(moments)

    def snapshot() -> Carry:
        counters = (step, learner_steps, recorded)
        return Carry(key, state, memory, replay, generator, timestep, totals, statistics, moments, *counters)

    act_key, learn_key = key
    actor = Actor(
        agent,
        act_key,
        (state, memory, timestep),
        environment.spec.num_actions,
        lambda loop_step: epsilon_at(config, loop_step * num_envs, steps),
    )
    while step < steps:
        if stop():
            yield snapshot(), {}
            return
        seen = normalization.normalize_timestep(by, timestep) if normalizes else timestep
        (action, next_memory, extras), epsilon = actor.act(step // num_envs, memory, seen)
        try:
            outcome = environment.step(action)
        except EnvironmentFailure as failure:
            if failure.intact:  # The carry still stands before the step.
                yield snapshot(), {}
            raise
        (obs_tm1, _, _, mask_tm1), memory = timestep, next_memory
        r_t, discount_t, last, obs_t, timestep, valid, mask_t, restarted = outcome
        if restarted is not None:
            replay = host.end_episode(replay, restarted)
            statistics.restart_failed(restarted)
        taken = Step(obs_tm1, action, r_t, discount_t, last, obs_t, extras, mask_tm1, mask_t)
        replay = host.add(replay, taken, valid)
        statistics.add(step, outcome)
        if normalizes:
            moments = normalization.add(moments, outcome, config.discount)
            by = normalization.scaling(moments)
        before = step
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
                scales = (by,) if normalizes else ()
                state, totals = learn(learn_key, np.uint32(learner_steps), state, totals, sample, *scales)
                learner_steps += batches
                actor.follow(state)

        if step // record_every > before // record_every or step >= steps:
            record = {
                "step": step,
                "learner_steps": learner_steps,
                "epsilon": epsilon,
                "replay_size": host.size(replay),
            }
            record |= statistics.record() | _measured(diagnose, state, totals, learner_steps - recorded, step)
            if config.normalize_rewards:
                record["reward_scale"] = float(by.reward_scale)
            seconds = time.perf_counter() - started
            record |= {"seconds": seconds, "steps_per_second": (step - first_step) / seconds}
            totals, recorded = _zeros(totals), learner_steps
            yield snapshot(), record
        elif yield_every is not None and step // yield_every > before // yield_every:
            yield snapshot(), {}


class _Compiled(NamedTuple):
    learn: Callable[..., Any]
    diagnose: Callable[..., Any]


def _compile(agent: Agent, batches: int) -> _Compiled:
    """The programs of learning; what ``learn`` draws depends on the key and the learner steps before it."""

    def learn(
        key: jax.Array,
        learner_steps: Any,
        state: LearnerState,
        totals: dict[str, jax.Array],
        sample: Sample,
        by: Scaling = normalization.NO_SCALING,
    ) -> Any:
        sample = sample._replace(transition=normalization.normalize_transition(by, sample.transition))
        learn_key = jax.random.fold_in(jax.random.wrap_key_data(key), learner_steps)
        state, output = (repeat(agent.learn) if batches > 1 else agent.learn)(learn_key, state, sample)
        # Once a dispatch and averaged like the rest: seen at the records alone, a hard target would look always fresh.
        measured = _of_kept_steps(output.metrics)
        measured |= {name: batches * value for name, value in _distances(agent, state).items()}
        totals = {name: total + jnp.sum(measured[name]) for name, total in totals.items()}
        return state, totals

    @jax.jit
    def diagnose(state: LearnerState, totals: dict[str, jax.Array], count: Any) -> dict[str, jax.Array]:
        kept = jnp.maximum(count - totals["skipped"], 1) if "skipped" in totals else count
        of_all = ("skipped", *(f"target_distance/{name}" for name in agent.targets))
        found = {name: total / (count if name in of_all else kept) for name, total in totals.items()}
        for name, named in agent.targets.items():
            if isinstance(named.rule, TargetRule):
                since = diagnostics.steps_since_update(named.rule, state.targets[name])
                found[f"steps_since_update/{name}"] = since
        return found

    return _Compiled(jax.jit(learn, donate_argnums=(2, 3)), diagnose)


def _of_kept_steps(metrics: dict[str, jax.Array]) -> dict[str, jax.Array]:
    """The metrics with those of skipped learner steps, which may be NaN, as 0; so ``skipped`` stays as it is."""
    if "skipped" not in metrics:
        return metrics
    kept = metrics["skipped"] == 0
    return {name: value if name == "skipped" else jnp.where(kept, value, 0) for name, value in metrics.items()}


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

    def masks(size: int) -> Any:
        return batch(size, jnp.bool_, (environment.spec.num_actions,)) if environment.spec.action_mask else ()

    num_envs = environment.num_envs
    seen = batch(num_envs, observation.dtype, observation.shape)
    timestep = TimeStep(seen, batch(num_envs), batch(num_envs, jnp.bool_), masks(num_envs))
    acted = jax.eval_shape(agent.act, jax.random.key(0), state, memory, timestep)
    extras = jax.tree.map(lambda leaf: jax.ShapeDtypeStruct(leaf.shape[1:], leaf.dtype), acted.extras)
    drawn = batch(batch_size, observation.dtype, observation.shape)
    transition = Transition(
        drawn,
        batch(batch_size, jnp.int32),
        batch(batch_size),
        batch(batch_size),
        drawn,
        jax.tree.map(lambda leaf: batch(batch_size, leaf.dtype, leaf.shape), extras),
        masks(batch_size),
        masks(batch_size),
    )
    return Sample(transition, batch(batch_size), batch(batch_size, jnp.int32)), extras


def _zeros(totals: Iterable[str]) -> dict[str, jax.Array]:
    return {name: jnp.zeros((), jnp.float32) for name in totals}


def _measured(
    diagnose: Callable[..., Any], state: LearnerState, totals: dict[str, jax.Array], count: int, step: int
) -> Record:
    """The learner's metrics, means over ``count`` learner steps; fetched from the device in one call."""
    found = {name: value.item() for name, value in jax.device_get(diagnose(state, totals, max(count, 1))).items()}
    if count == 0:
        return found | dict.fromkeys(totals)
    if found.get("skipped") == 1:
        raise ValueError(
            f"skipped: every learner step since the record before, {count} of them, came out NaN or infinite up to "
            f"environment step {step}: training has diverged, or the environment's numbers are out of all scale. Lower "
            "learning_rate, set max_gradient_norm or normalize_rewards, or slow the target down."
        )
    for name, value in found.items():
        if not math.isfinite(value):
            raise ValueError(
                f"{name}: got {value} at environment step {step}: training has diverged. Lower learning_rate, set "
                "max_gradient_norm, or slow the target down."
            )
    return found
