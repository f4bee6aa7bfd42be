"""The device loop: equal to the host loop over one replay, rules on time, chunks of any length, one program."""

import dataclasses
import functools
import itertools

import jax
import jax.numpy as jnp
import pytest

from device_runs import (
    assert_equal_arrays,
    assert_equal_carries,
    compiled_names,
    counting_agent,
    make,
    on_device,
    pictures,
    run,
    small,
)
from polyak import updates
from polyak.agents.loop_config import LoopConfig, Normalization
from polyak.experiments.environments.functional.classic_control import cartpole
from polyak.experiments.environments.functional.lanes import FunctionalEnvironments
from polyak.experiments.loops import device, pieces
from polyak.experiments.loops.carry import initial_carry, make_replay
from polyak.experiments.loops.chunk import run_chunk
from polyak.experiments.loops.host import host_loop
from polyak.experiments.loops.schedules import batches_per_dispatch, plan_segment
from polyak.updates import Periodic

# --- Both loops -------------------------------------------------------------------------------------------------------

CASES = {
    "uniform": (
        "dqn",
        {"n_steps": "linear(3,1,50%)", "discount": "linear(0.9,0.99,50%)", "train_every": 10, "learner_steps": 2},
        cartpole,
        3,
    ),
    # Every fifth reward or so makes a learner step that is skipped, whose rows keep their priorities.
    "prioritized": (
        "prioritized_dqn",
        {"skip_nonfinite": True, "train_every": 2, "batch_size": 2, "torso": "mlp"},
        functools.partial(pictures, masks=False, rare=True),
        10,
    ),
    "recurrent": (
        "r2d2",
        {"lstm_size": 4, "sequence_length": 5, "burn_in": 2, "sequence_period": 3, "n_steps": 2, "dueling": False},
        cartpole,
        1,
    ),
    "future": (
        "zp",
        {"transition_sizes": (6,), "horizon": 2, "n_steps": 2, "resets": "periodic", "reset_period": "20"},
        cartpole,
        1,
    ),
    "iterated": ("isdqn", {"shift_every": "7", "train_every": 4, "torso": "mlp"}, pictures, 3),
    "calibrated": (
        "c51",
        {"num_atoms": 5, "frame_stack": 3, "torso": "mlp", "target": "incremental:0.1@4"},
        pictures,
        1,
    ),
}


def ran(loop, case, steps=240, **options):
    """Run of a case, whose replay is overwritten more than once."""
    name, fields, environment, num_envs = CASES[case]
    options = {"steps": steps, "record_every": 60, **options}
    return run(loop, small(name, **fields | {"replay_capacity": 90}), environment(), num_envs, **options)


@functools.cache
def on_the_device(case):
    return ran(device.device_loop, case)


def assert_equal_records(first, second, close=frozenset()):
    """Records are equal; those named ``close`` to the last digits, because XLA may sum in another order."""
    for ours, theirs in itertools.zip_longest(first, second):
        assert ours.keys() == theirs.keys()
        for name, value in ours.items():
            if name in close and value is not None:
                assert value == pytest.approx(theirs[name], rel=2e-6, abs=1e-9), name
            else:
                assert value == theirs[name], name


FAST = ("prioritized", "future")


@pytest.mark.parametrize("case", [pytest.param(case, marks=() if case in FAST else pytest.mark.slow) for case in CASES])
def test_both_loops_make_equal_transitions_and_parameters(case):
    ours, theirs = on_the_device(case), ran(host_loop, case)
    assert_equal_carries(ours.carry, theirs.carry)
    assert_equal_arrays(ours.environment.state, theirs.environment.state)
    assert_equal_records(ours.records, theirs.records, close=ours.carry.totals)
    assert ours.records[-1]["episodes"] > 5
    assert DID[case](ours.records, ours.records[-1])


DID = {  # what the case is for
    "uniform": lambda records, last: (last["n_steps"], last["learner_steps"]) == (1, 46) and last["discount"] > 0.989,
    "prioritized": lambda records, last: (
        any(0 < record["skipped"] < 1 for record in records) and last["importance_exponent"] > 0.9
    ),
    "recurrent": lambda records, last: last["learner_steps"] == 111,
    "future": lambda records, last: last["resets"] == 4,
    "iterated": lambda records, last: last["shifts"] == last["learner_steps"] // 7 > 5,
    "calibrated": lambda records, last: last["v_min"] < last["v_max"],
}


@pytest.mark.slow
@pytest.mark.parametrize("case", ["uniform", "prioritized", "recurrent", "future"])
def test_both_loops_are_equal_over_a_thousand_learner_steps(case, compiled_as_released):
    steps = {"uniform": 5_020, "prioritized": 2_020}.get(case, 2_020)
    ours, theirs = (ran(loop, case, steps, record_every=500) for loop in (device.device_loop, host_loop))
    assert ours.carry.learner_steps >= 1_000
    assert_equal_carries(ours.carry, theirs.carry)
    assert_equal_records(ours.records, theirs.records, close=ours.carry.totals)


# --- Rules and operations ---------------------------------------------------------------------------------------------

PERIODS = (50, 500, 501)


@pytest.mark.parametrize("increment", [1, 7, 10, 12])
def test_rules_and_operations_fire_at_multiples_of_their_periods(increment):
    def add(number, key, state):
        fired = state.params["fired"].at[number].add(1)
        return state._replace(params=state.params | {"fired": fired})

    operations = {f"each_{period}": Periodic(period, functools.partial(add, at)) for at, period in enumerate(PERIODS)}
    agent = counting_agent({f"q{period}": updates.periodic(period) for period in PERIODS}, operations)
    config = small(learner_steps=increment, train_every=1, learning_starts=0)
    steps = -(-1_100 // increment)
    found = on_device(config, cartpole(), steps=steps, record_every=37, agent=agent)
    before = 0
    for record in found.records:
        count = record["learner_steps"]
        for period in PERIODS:
            seen = [step // period * period for step in range(before, count)]  # by the definition
            assert round(record[f"seen/q{period}"] * len(seen)) == sum(seen)
            assert record[f"steps_since_update/q{period}"] == count % period
            assert record[f"each_{period}"] == count // period
        before = count
    assert before == steps * increment
    assert found.carry.agent.params["fired"].tolist() == [before // period for period in PERIODS]


# --- Chunks -----------------------------------------------------------------------------------------------------------


class Uneven:
    """Lengths of chunks in turn, in place of ``Pace``."""

    def __init__(self, lengths, most):
        self._lengths, self._most = itertools.cycle(lengths), most
        self.add(0, 0)

    def add(self, loop_steps, seconds):
        self.loop_steps = min(self._most, next(self._lengths))


def in_chunks(monkeypatch, *lengths):
    monkeypatch.setattr(device, "Pace", functools.partial(Uneven, lengths))


@pytest.mark.parametrize("lengths", [pytest.param((1,), marks=pytest.mark.slow), (7, 1, 30)])
def test_the_result_does_not_depend_on_the_lengths_of_chunks(lengths, monkeypatch):
    in_chunks(monkeypatch, *lengths)
    found, whole = ran(device.device_loop, "future"), on_the_device("future")
    assert_equal_carries(found.carry, whole.carry)
    assert found.records == whole.records


@pytest.mark.slow
def test_the_result_depends_neither_on_records_and_yields_nor_on_the_longest_chunk(monkeypatch):
    monkeypatch.setattr(pieces, "MOST_LOOP_STEPS", 13)
    found, whole = ran(device.device_loop, "uniform", record_every=80, yield_every=25), on_the_device("uniform")
    steps = [record.get("step") for record in found.records]  # None after 27, 51, 75, ... steps
    assert steps == [None, None, None, 81, None, None, None, 162, None, None, None, 240]
    for name in ("agent", "replay", "timestep"):
        assert_equal_arrays(getattr(found.carry, name), getattr(whole.carry, name))


def test_a_run_compiles_one_chunk(monkeypatch):
    in_chunks(monkeypatch, 16, 1, 9)
    with compiled_names() as found:
        ran(device.device_loop, "future", yield_every=50)
    assert [count for name, count in found.items() if "chunk" in name] == [1], found


def test_stop_is_served_between_chunks(monkeypatch):
    in_chunks(monkeypatch, 8)
    asked = iter([False, False, False, True])
    found = ran(device.device_loop, "future", stop=lambda: next(asked))
    assert found.carry.steps == 24
    assert found.records == [{}]
    assert found.environment.state is not None


@pytest.mark.slow
def test_a_chunk_copies_no_replay(compiled_as_released):
    configs, functional, num_envs = small("prioritized_dqn", replay_capacity=3_000), cartpole(), 3
    agent = make(configs, functional, num_envs, steps=300)
    environment = FunctionalEnvironments(functional, num_envs)
    replay = make_replay(agent, environment.spec, configs.loop, num_envs, on_device=True)
    carry = initial_carry(agent, environment, replay, configs.loop, 0)
    batches = batches_per_dispatch(configs.loop, num_envs)
    plan = plan_segment(configs.loop, agent, 0, 0, 100, num_envs, 300)
    capacity = pieces.Capacity.of(configs.loop, num_envs, 300)
    (piece,) = pieces.pieces(agent, plan, None, capacity)
    chunk = functools.partial(run_chunk, agent, functional, replay, configs.loop, batches)
    arrays = device.to_device(carry, environment)
    program = jax.jit(chunk, donate_argnums=1).lower(carry.key, arrays, piece.plan).compile().as_text()
    rows = len(carry.replay.reward)
    stores = {leaf.shape[0] for leaf in jax.tree.leaves(carry.replay) if leaf.size >= rows}
    lines = [line for line in program.splitlines() if " copy(" in line or " copy-start(" in line]
    assert lines  # of small arrays
    copies = [line for line in lines if any(f"[{store}]" in line or f"[{store}," in line for store in stores)]
    assert not copies


# --- Input and failures -----------------------------------------------------------------------------------------------


def test_normalization_is_refused():
    configs = small()
    scaled = dataclasses.replace(configs, loop=LoopConfig(normalization=Normalization(normalize_rewards=True)))
    with pytest.raises(ValueError, match=r"normalize_rewards: got True with the device loop"):
        on_device(scaled, cartpole(), steps=10, agent=counting_agent({"q": updates.periodic(3)}))


def test_an_observation_that_is_not_finite_ends_the_run():
    plain = cartpole()

    def step(key, state, action):
        state, outcome = plain.step(key, state, action)
        return state, outcome._replace(obs_t=jnp.where(action == 1, jnp.nan, outcome.obs_t))

    agent = counting_agent({"q": updates.periodic(3)})
    with pytest.raises(ValueError, match=r"an observation or a reward is not finite after \d+ steps"):
        on_device(small(epsilon=1), plain._replace(step=step), steps=100, agent=agent)
