"""Host loop: one agent, one replay and any Gymnasium environment, as a generator of ``(carry, record)``.

The loop is the only place where the three meet. For each step of the environments it makes at most one dispatch to act
and a few to learn. Progress, logging, evaluation and checkpoints consume the yielded values outside of the loop.
"""

from collections.abc import Callable, Iterator
from typing import NamedTuple

import jax
import numpy as np

from ...agents import ActOutput, Agent, LoopConfig
from ...replay import Replay
from ...replay.types import Step, TimeStep
from ..environments.types import Environment, EnvironmentFailure, EnvironmentStep
from . import normalization
from .acting import Actor
from .carry import Carry
from .learning import Programs, Record, calibrated, compile_agent, new_priorities, operate
from .observations import ObservationPipeline, observation_pipeline
from .recording import Clock, make_record
from .schedules import batches_per_dispatch, draw_numbers, steps_since_reset

MOST_WAITING = 64  # maximum number of environment steps that wait to be added to the replay


def host_loop(
    agent: Agent,
    environment: Environment,
    replay: Replay,
    config: LoopConfig,
    carry: Carry,
    *,
    steps: int,
    record_every: int = 1_000,
    yield_every: int | None = None,
    stop: Callable[[], bool] = lambda: False,
) -> Iterator[tuple[Carry, Record]]:
    """Run an agent on environments; yield the carry and a record at every multiple of ``record_every`` steps.

    A round of learning is due at every multiple of ``train_every`` environment steps from ``learning_starts`` on. It
    makes ``learner_steps`` learner steps on new samples in one dispatch. With several environments, the rounds of one
    loop step share a dispatch if their number is the same in every loop step. The agent's periodic operations run after
    the dispatch in which their period is crossed; the record contains how often each has fired.

    Args:
        agent: Agent.
        environment: One or more environments; the caller must not use them between two calls.
        replay: Replay from :func:`make_replay`.
        config: Cadence, sampling, exploration and normalization.
        carry: Carry from :func:`initial_carry` or a checkpoint; consumed.
        steps: Number of environment steps at which the run ends; the last loop step may overshoot it by
            ``num_envs - 1``.
        record_every: Number of environment steps between two records; the last record may cover fewer.
        yield_every: Number of environment steps between two additional yields, for checkpoints between records. Such a
            yield has an empty record if no record is due. None yields only with records.
        stop: Function that is called once per loop step; when it returns True, the carry is yielded with an empty
            record and the loop ends.

    Yields:
        ``(carry, record)``; the record is a dictionary of numbers. ``returns`` and ``lengths`` are those of the
        episodes that ended since the previous record. The learner's metrics are None if there was no learner step. A
        call that a vector environment spends on a reset (``NEXT_STEP``) counts as a step, and so does a step in which
        an environment was restarted.

    Raises:
        EnvironmentFailure: if an environment raised, or its process ended or hung. If a checkpoint can still be made,
            the loop first yields the carry with an empty record.
        ValueError: if the period of a periodic operation is shorter than a dispatch, an observation or a reward is not
            finite (the message names environment and step), a support cannot be derived from the rewards, or a metric
            of the learner is not finite because training has diverged; with ``skip_nonfinite``, if every learner step
            since the previous record was skipped.
    """
    num_envs, batches = environment.num_envs, batches_per_dispatch(config, environment.num_envs)
    programs = compile_agent(agent, batches, prioritized=config.prioritized)
    pipeline, scaling = observation_pipeline(config, environment.spec), normalization.scaling(carry.normalization)
    clock = Clock(carry.steps)
    act_key, learn_key = carry.key
    keys = learn_key, np.asarray(learn_key)  # on the device and, fetched once, on the host
    example = (carry.agent, carry.recurrent_state, pipeline.view(scaling, carry.frames, carry.timestep))
    actor = Actor(agent, example, environment.spec.num_actions)
    actor.begin(act_key, lambda loop_step: config.exploration.epsilon.value_at(loop_step * num_envs, steps))
    waiting: list[Waiting] = []
    while carry.steps < steps:
        if stop():
            yield settle(carry, replay, waiting), {}
            return
        seen = pipeline.view(scaling, carry.frames, carry.timestep)
        acted, epsilon = actor.act(carry.steps // num_envs, carry.recurrent_state, seen)
        try:
            outcome = environment.step(acted.action)
        except EnvironmentFailure as failure:
            if failure.intact:  # the carry is that before the step
                yield settle(carry, replay, waiting), {}
            raise
        before = carry.steps
        scales, discount = config.normalization.normalize_rewards, 0.0
        if scales:
            discount = draw_numbers(config, before, steps, steps_since_reset(agent, carry.learner_steps)).discount
        waiting.append(Waiting(before, carry.timestep, acted, outcome))
        carry = advance(carry, pipeline, acted, outcome, discount)
        scaling = normalization.scaling(carry.normalization)
        due = 0
        if carry.steps >= config.cadence.learning_starts:
            due = carry.steps // config.cadence.train_every - before // config.cadence.train_every
        recorded = carry.steps // record_every > before // record_every or carry.steps >= steps
        yielded = recorded or (yield_every is not None and carry.steps // yield_every > before // yield_every)
        if due or yielded or len(waiting) * num_envs >= MOST_WAITING:
            carry = settle(carry, replay, waiting)
        for _ in range(due * config.cadence.learner_steps // batches):
            carry = learn(carry, agent, replay, config, programs, keys, scaling, batches, steps)
            actor.follow(carry.agent)
        if recorded:
            carry, record = make_record(carry, agent, replay, config, programs, epsilon, steps, clock)
            yield carry, record
        elif yielded:
            yield carry, {}


class Waiting(NamedTuple):
    """Step of the environments that is not yet in the replay.

    Attributes:
        steps: Number of environment steps before it.
        timestep: Time step that the agent acted on.
        acted: Output of the agent.
        outcome: Step of the environments.
    """

    steps: int
    timestep: TimeStep
    acted: ActOutput
    outcome: EnvironmentStep


def advance(
    carry: Carry, pipeline: ObservationPipeline, acted: ActOutput, outcome: EnvironmentStep, discount: float
) -> Carry:
    """Carry after one step of the environments, which is counted but not yet in the replay."""
    timestep = outcome.timestep
    if not isinstance(carry.timestep.a_tm1, tuple):
        timestep = timestep._replace(a_tm1=acted.action)
    return carry._replace(
        recurrent_state=acted.recurrent_state,
        timestep=timestep,
        normalization=normalization.add(carry.normalization, outcome, discount),
        frames=pipeline.push(carry.frames, timestep),
        steps=carry.steps + len(outcome.last),
    )


def settle(carry: Carry, replay: Replay, waiting: list[Waiting]) -> Carry:
    """Carry with the waiting steps added to its replay and statistics; ``waiting`` is empty afterwards.

    Steps wait until the next sample because adding ten in a row takes half the time of adding them one by one. Between
    two single additions, the environment and the agent evict the replay's code from the processor's caches.
    """
    replay_state = carry.replay
    for steps, timestep, acted, outcome in waiting:
        if outcome.restarted is not None:
            replay_state = replay.end_episode(replay_state, outcome.restarted)
            carry.statistics.restart_failed(outcome.restarted)
        carry.statistics.add(steps, outcome)
        step = Step(
            timestep.observation,
            acted.action,
            outcome.r_t,
            outcome.discount_t,
            outcome.last,
            outcome.obs_t,
            acted.extras,
            timestep.action_mask,
            outcome.action_mask_t,
        )
        replay_state = replay.add(replay_state, step, outcome.valid)
    waiting.clear()
    return carry._replace(replay=replay_state)


def learn(
    carry: Carry,
    agent: Agent,
    replay: Replay,
    config: LoopConfig,
    programs: Programs,
    keys: tuple[jax.Array, np.ndarray],
    scaling: normalization.Scaling,
    batches: int,
    steps: int,
) -> Carry:
    """Carry after one dispatch of learning on new samples."""
    if agent.calibrate is not None and not carry.learner_steps:
        carry = carry._replace(agent=calibrated(agent, replay, config, carry.agent, carry.replay, scaling))
    (learn_key, draw_key), learner_steps = keys, np.uint32(carry.learner_steps)
    numbers = draw_numbers(config, carry.steps, steps, steps_since_reset(agent, carry.learner_steps))
    sample = replay.sample(np.append(draw_key, learner_steps), carry.replay, numbers)
    watch = np.bool_(carry.learner_steps == carry.learner_steps_recorded)
    scales = (scaling,) if jax.tree.leaves(scaling) else ()
    state, totals, priorities = programs.learn(
        learn_key, learner_steps, carry.agent, watch, carry.totals, sample, *scales
    )
    replay_state = carry.replay
    if config.prioritized:
        replay_state = replay.update_priorities(replay_state, *new_priorities(sample.rows, priorities, carry.steps))
    after = carry.learner_steps + batches
    state = operate(programs, learn_key, carry.learner_steps, after, state)
    return carry._replace(agent=state, totals=totals, replay=replay_state, learner_steps=after)
