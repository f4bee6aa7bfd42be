"""Plans of the device loop: the host loop's cadence and numbers, cut where the host acts on the agent."""

import itertools
import types

import jax
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from polyak.agents import make_configs
from polyak.experiments.loops.pieces import Capacity, pieces
from polyak.experiments.loops.schedules import batches_per_dispatch, draw_numbers, plan_segment, steps_since_reset
from polyak.updates import Periodic

FIELDS = {
    "n_steps": "exponential(10,3,40)@resets",
    "discount": "linear(0.9,0.99,50%)",
    "epsilon": "linear(1,0.05,30%)",
    "replay_capacity": 1_000,
}
STEPS = 400
CADENCES = st.tuples(*(st.integers(*limits) for limits in ((1, 10), (1, 12), (1, 3), (0, 60))))
OPERATIONS = st.lists(st.integers(12, 60), max_size=2)


def agent_of(periods, calibrates=False):
    """Fields of an agent that a plan reads."""
    operations = {
        ("resets", "shifts")[at]: Periodic(period, lambda key, state: state) for at, period in enumerate(periods)
    }
    return types.SimpleNamespace(periodic=operations, calibrate=(lambda: None) if calibrates else None)


def by_the_host_loop(config, agent, loop_steps, num_envs):
    """Epsilon of each loop step, and (loop steps, learner steps before, numbers) at each dispatch."""
    batches, cadence = batches_per_dispatch(config, num_envs), config.cadence
    step, learner_steps, epsilon, dispatches = 0, 0, [], []
    for at in range(1, loop_steps + 1):
        epsilon.append(np.float32(config.exploration.epsilon.value_at(step, STEPS)))
        before, step = step, step + num_envs
        due = step // cadence.train_every - before // cadence.train_every if step >= cadence.learning_starts else 0
        for _ in range(due * cadence.learner_steps // batches):
            numbers = draw_numbers(config, step, STEPS, steps_since_reset(agent, learner_steps))
            dispatches.append((at, learner_steps, numbers))
            learner_steps += batches
    return epsilon, dispatches, learner_steps


@given(CADENCES, OPERATIONS, st.booleans())
@settings(max_examples=60, deadline=None)
def test_pieces_are_the_steps_of_the_host_loop(cadence, periods, calibrates):
    num_envs, train_every, learner_steps, learning_starts = cadence
    fields = {"train_every": train_every, "learner_steps": learner_steps, "learning_starts": learning_starts}
    config = make_configs("prioritized_dqn", "classic", FIELDS | fields).loop
    agent = agent_of([period + 30 for period in periods], calibrates)  # longer than any dispatch
    capacity = Capacity.of(config, num_envs, record_every=200)
    epsilon, dispatches, count = by_the_host_loop(config, agent, capacity.loop_steps, num_envs)
    segment = plan_segment(config, agent, 0, 0, capacity.loop_steps, num_envs, STEPS)
    done, learnt, firings = 0, 0, 0
    for piece in pieces(agent, segment, watched=0, capacity=capacity):
        plan, ours = piece.plan, int(piece.plan.dispatches)
        assert plan.epsilon.shape == (capacity.loop_steps,)
        assert {leaf.shape for leaf in (plan.loop_steps, plan.watch, *plan.numbers)} == {(capacity.dispatches,)}
        assert plan.epsilon[: piece.loop_steps].tolist() == epsilon[done : done + piece.loop_steps]
        assert not plan.epsilon[piece.loop_steps :].any()
        assert not plan.loop_steps[ours:].any()
        assert piece.calibrates == (calibrates and bool(dispatches) and not learnt and ours > 0)
        at = done
        for number in range(ours):
            at += int(plan.loop_steps[number])
            wanted_at, before, numbers = dispatches.pop(0)
            assert (at, learnt) == (wanted_at, before)
            assert jax.tree.map(lambda leaf, number=number: leaf[number].item(), plan.numbers) == jax.tree.map(
                lambda value, leaf: leaf.dtype.type(value).item(), numbers, plan.numbers
            )
            assert plan.watch[number] == (before == 0)
            fires = [
                each.count(learnt + segment_batches(segment)) - each.count(learnt) for each in agent.periodic.values()
            ]
            learnt += segment_batches(segment)
            if any(fires):  # the host acts after it
                assert number == ours - 1
                firings += 1
        done += piece.loop_steps
        assert done == at + int(plan.rest)
        assert piece.learner_steps[1] == learnt
    assert (done, learnt) == (capacity.loop_steps, count)
    assert not dispatches
    assert firings == len({at for each in agent.periodic.values() for at in _crossings(each, segment)})


def segment_batches(segment):
    return int(segment.learner_steps[1] - segment.learner_steps[0])


def _crossings(operation, segment):
    counts = segment.learner_steps.tolist()
    return [after for before, after in itertools.pairwise(counts) if operation.count(after) > operation.count(before)]


@pytest.mark.parametrize("learning_starts", [0, 20])
def test_a_support_is_derived_once_before_the_first_dispatch(learning_starts):
    fields = {"train_every": 2, "learner_steps": 1, "learning_starts": learning_starts}
    config, agent = make_configs("dqn", "classic", fields).loop, agent_of([], calibrates=True)
    capacity = Capacity.of(config, 1, record_every=50)
    first = list(pieces(agent, plan_segment(config, agent, 0, 0, 30, 1, STEPS), 0, capacity))
    assert [(piece.loop_steps, piece.calibrates) for piece in first] == [
        (max(learning_starts, 2), False),
        (30 - max(learning_starts, 2), True),
    ]
    assert first[1].plan.loop_steps[0] == 0
    learnt = first[1].learner_steps[1]
    later = list(pieces(agent, plan_segment(config, agent, 30, learnt, 20, 1, STEPS), None, capacity))
    assert [(piece.loop_steps, piece.calibrates) for piece in later] == [(20, False)]
    none = list(pieces(agent, plan_segment(config, agent, 0, 0, 1, 1, STEPS), 0, capacity))
    assert [(piece.loop_steps, piece.calibrates, int(piece.plan.dispatches)) for piece in none] == [(1, False, 0)]
