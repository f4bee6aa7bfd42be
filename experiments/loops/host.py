"""The host loop: one agent, one replay and any Gymnasium environment, as a generator of ``(carry, record)``.

The loop is the only place where the three meet. It makes one dispatch to act and at most a few to learn per step of
the environments; progress, logging, evaluation and checkpoints consume what it yields, and none lives inside.
"""

import time
from collections.abc import Callable, Iterator

import jax
import numpy as np

from ...agents import Agent, AgentConfig
from ...replay import host, stacking
from ...replay.types import Sample, Step, TimeStep
from ..environments.types import Environment, EnvironmentFailure
from . import normalization
from .acting import Actor
from .carry import Carry
from .learning import Record, compile_agent, finite_priorities, measured, zeros
from .schedules import batches_per_dispatch, epsilon_at, importance_exponent_at


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
    prioritized = config.priority_exponent > 0
    programs = compile_agent(agent, batches, prioritized=prioritized)
    key, state, memory, replay, generator, timestep, totals, statistics, moments, frames, step, *rest = carry
    learner_steps, recorded = rest
    started, first_step = time.perf_counter(), step
    normalizes, by = bool(jax.tree.leaves(moments)), normalization.scaling(moments)
    remembers, stacks = bool(jax.tree.leaves(memory)), config.frame_stack > 1

    def snapshot() -> Carry:
        counters = (step, learner_steps, recorded)
        return Carry(key, state, memory, replay, generator, timestep, totals, statistics, moments, frames, *counters)

    def seen() -> TimeStep:
        shown = timestep._replace(observation=frames) if stacks else timestep
        return normalization.normalize_timestep(by, shown) if normalizes else shown

    act_key, learn_key = key
    actor = Actor(
        agent,
        act_key,
        (state, memory, seen()),
        environment.spec.num_actions,
        lambda loop_step: epsilon_at(config, loop_step * num_envs, steps),
    )
    while step < steps:
        if stop():
            yield snapshot(), {}
            return
        (action, next_memory, extras), epsilon = actor.act(step // num_envs, memory, seen())
        try:
            outcome = environment.step(action)
        except EnvironmentFailure as failure:
            if failure.intact:  # The carry still stands before the step.
                yield snapshot(), {}
            raise
        obs_tm1, mask_tm1, memory = timestep.observation, timestep.action_mask, next_memory
        r_t, discount_t, last, obs_t, timestep, valid, mask_t, restarted = outcome
        if remembers:
            timestep = timestep._replace(a_tm1=action)
        if stacks:
            frames = stacking.push(frames, timestep.observation, timestep.first)
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
            importance_exponent = importance_exponent_at(config, step, steps) if prioritized else 0.0
            scales = (by,) if normalizes else ()
            for _ in range(rounds // rounds_per_dispatch):
                sample = _draw(config, generator, replay, batches, importance_exponent)
                watch = np.bool_(learner_steps == recorded)
                state, totals, priorities = programs.learn(
                    learn_key, np.uint32(learner_steps), state, watch, totals, sample, *scales
                )
                learner_steps += batches
                actor.follow(state)
                if prioritized:
                    found = finite_priorities(priorities, step)
                    replay = host.update_priorities(replay, sample.rows, found, config.priority_exponent)

        if step // record_every > before // record_every or step >= steps:
            record = {
                "step": step,
                "learner_steps": learner_steps,
                "epsilon": epsilon,
                "replay_size": host.size(replay),
            }
            record |= statistics.record() | measured(programs.diagnose, state, totals, learner_steps - recorded, step)
            if config.normalize_rewards:
                record["reward_scale"] = float(by.reward_scale)
            seconds = time.perf_counter() - started
            record |= {"seconds": seconds, "steps_per_second": (step - first_step) / seconds}
            totals, recorded = zeros(totals), learner_steps
            yield snapshot(), record
        elif yield_every is not None and step // yield_every > before // yield_every:
            yield snapshot(), {}


def _draw(
    config: AgentConfig, generator: np.random.Generator, replay: host.HostReplay, batches: int, exponent: float
) -> Sample:
    """What a dispatch of learning is given: transitions, or sequences for an agent that remembers."""
    draw: Callable[..., Sample] = host.sample
    steps = config.n_steps
    if config.sequence_length:
        draw, steps = host.sample_sequences, config.burn_in + config.sequence_length
    num_batches = batches if batches > 1 else None
    return draw(
        generator,
        replay,
        config.batch_size,
        steps,
        config.discount,
        num_batches=num_batches,
        importance_exponent=exponent,
    )
