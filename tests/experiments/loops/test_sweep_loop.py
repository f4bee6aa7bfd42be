"""The loop of sweeps: a lane is the run of the device loop, whatever the other lanes and the devices are."""

import dataclasses
import functools
import os
import pathlib
import subprocess
import sys

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import device_runs
from device_runs import assert_equal_arrays, compiled_names, counting_agent, on_device, pictures, small, sweep
from polyak import updates
from polyak.agents import Schedule
from polyak.experiments.environments.functional.classic_control import cartpole
from polyak.experiments.loops import sweep as loop
from polyak.updates import Periodic

STEPS, RECORD_EVERY, NUM_ENVS = 150, 50, 2
LANES = [  # target, learning rate, epsilon, discount, n, seed
    ("periodic:20", 0.001, "linear(1,0.1,50%)", 0.99, 1, 0),
    ("incremental:0.05", 0.0003, 0.5, 0.9, 3, 1),
    ("incremental:0.05@4", 0.001, 0.1, "linear(0.9,0.99,50%)", "linear(3,1,50%)", 2),
    ("incremental:cosine(0.05)", 0.01, 1, 0.99, 2, 0),
    ("none", 0.001, 0.2, 0.99, 1, 3),
    ("frozen", 0.001, "exponential(1,0.1,50)", 0.5, 1, 0),
    ("periodic:20 q/torso=none", 0.003, 0.2, 0.99, 1, 0),
    ("periodic:7 q/head=incremental:0.2", 0.001, 0.2, 0.99, 2, 4),
]
NAMES = ("target", "learning_rate", "epsilon", "discount", "n_steps")
CONFIGS = [small(**dict(zip(NAMES, lane[:-1], strict=True))) for lane in LANES]
SEEDS = [lane[-1] for lane in LANES]


def sweep_of(configs, **options):
    """Sweep over the lanes, of which equal configs make one program."""
    options = {"steps": STEPS, "record_every": RECORD_EVERY, **options}
    return sweep(configs, cartpole(), NUM_ENVS, seeds=SEEDS, **options)


@functools.cache
def swept():
    """Sweep over all lanes."""
    return sweep_of(CONFIGS)


def assert_equal_run(found, lane, alone):
    """A lane and a run alone have equal arrays and records; a record of the sweep has a name for each part."""
    arrays, carry = found.lane(lane), alone.carry
    assert_equal_arrays(arrays.agent.params, carry.agent.params)
    assert_equal_arrays(arrays.agent.optimizer_state, carry.agent.optimizer_state)
    for name, target in carry.agent.targets.items():
        ours = arrays.agent.targets[name]
        assert_equal_arrays(ours.count, target.count)
        # A lane keeps leaves for any rule; a run alone has none for the rule ``none``, which reads the online ones.
        kept = jax.tree.map(
            lambda theirs, leaf: leaf if theirs is not None else None,
            target.params,
            ours.params,
            is_leaf=lambda leaf: leaf is None,
        )
        assert_equal_arrays(kept, target.params)
    assert_equal_arrays(arrays.replay, carry.replay)
    assert_equal_arrays(arrays.environment, alone.environment.state)
    for ours, theirs in zip(found.records, alone.records, strict=True):
        assert theirs.keys() <= ours[lane].keys()
        for name, value in theirs.items():
            assert ours[lane][name] == (pytest.approx(value, rel=2e-6) if name in carry.totals else value), name


def alone(config, seed, environment, num_envs, steps=STEPS, record_every=RECORD_EVERY):
    return on_device(config, environment, num_envs, seed=seed, steps=steps, record_every=record_every)


@pytest.mark.parametrize(
    "lane", [pytest.param(lane, marks=() if lane == 6 else pytest.mark.slow) for lane in range(len(LANES))]
)
def test_a_lane_is_the_run_of_the_device_loop(lane):
    assert_equal_run(swept(), lane, alone(CONFIGS[lane], SEEDS[lane], cartpole(), NUM_ENVS))


@pytest.mark.slow
@pytest.mark.parametrize("lane", [0, 1, 2])
def test_encoders_have_rules_of_their_own(lane):
    targets = [
        "periodic:20 encoder=incremental:0.1",
        "incremental:0.05 encoder=none",
        "none encoder=periodic:9 encoder/torso=frozen",
    ]
    configs = [small("zp", transition_sizes=(6,), n_steps=2, target=target) for target in targets]
    found = sweep(configs, cartpole(), seeds=[0, 1, 2], steps=STEPS, record_every=RECORD_EVERY)
    assert_equal_run(found, lane, alone(configs[lane], lane, cartpole(), 1))


@pytest.mark.slow
def test_lanes_are_calibrated_and_reset():
    fields = {"num_atoms": 5, "torso": "mlp", "resets": "periodic", "reset_period": "30", "sampling": "prioritized"}
    configs = [small("c51", target=target, **fields) for target in ("periodic:20", "incremental:0.1")]
    found = sweep(configs, pictures(), seeds=[0, 5], steps=STEPS, record_every=RECORD_EVERY)
    assert_equal_run(found, 1, alone(configs[1], 5, pictures(), 1))
    assert found.records[-1][0]["resets"] == 1
    assert found.records[-1][0]["v_max"] != found.records[-1][1]["v_max"]


def counting(numbers):
    def apply(key, state):
        return state._replace(params=state.params | {"fired": state.params["fired"].at[0].add(1)})

    return counting_agent(numbers.rules, {"each_20": Periodic(20, apply)})


def test_rules_and_operations_of_lanes_fire_at_multiples_of_their_periods():
    periods = (1, 7, 20, 60)
    configs = [small(train_every=1, learner_steps=3, learning_starts=0)] * len(periods)
    rules = [{"q": updates.periodic(period)} for period in periods]
    options = {"steps": 100, "record_every": 37, "made": counting, "rules": rules}
    found = sweep(configs, cartpole(), seeds=range(len(periods)), **options)
    before = 0
    for records in found.records:
        count = records[0]["learner_steps"]
        for period, record in zip(periods, records, strict=True):
            seen = [step // period * period for step in range(before, count)]  # by the definition
            assert round(record["seen/q"] * len(seen)) == sum(seen)
            assert record["each_20"] == count // 20
        before = count
    assert before == 300
    assert found.carry.arrays.agent.params["fired"].tolist() == [[15]] * len(periods)


# --- One program ------------------------------------------------------------------------------------------------------


def test_a_sweep_compiles_one_chunk_and_its_result_does_not_depend_on_chunks_and_yields(monkeypatch):
    class Short:
        loop_steps = 7

        def __init__(self, most):
            del most

        def add(self, loop_steps, seconds):
            self.loop_steps = 20 - self.loop_steps

    whole = swept()
    monkeypatch.setattr(loop, "Pace", Short)
    with compiled_names() as found:
        again = sweep_of(CONFIGS, yield_every=34)
    assert [count for name, count in found.items() if "mapped" in name] == [1], found
    assert_equal_arrays(again.carry.arrays, whole.carry.arrays)
    assert [records for records in again.records if records] == whole.records
    assert again.records.count([]) == 4  # after 34, 68, 102 and 136 steps


def test_stop_is_served_between_chunks():
    asked = iter([False, True])
    found = sweep_of(CONFIGS, stop=lambda: next(asked))
    assert found.carry.steps == 2 * 16  # loop steps of the first chunk
    assert found.records == [[]]


def test_a_lane_that_diverges_is_reported_and_disturbs_no_other():
    broken = [*CONFIGS]
    broken[1] = dataclasses.replace(
        CONFIGS[1], agent=dataclasses.replace(CONFIGS[1].agent, learning_rate=Schedule(1e30))
    )
    found, whole = sweep_of(broken), swept()
    assert found.carry.diverged.keys() == {1}
    assert "training has diverged" in found.carry.diverged[1]
    assert found.records[-1][1] is None
    for lane in {*range(len(CONFIGS))} - {1}:
        assert_equal_arrays(found.lane(lane), whole.lane(lane))
        assert [records[lane] for records in found.records] == [records[lane] for records in whole.records]


def test_an_observation_that_is_not_finite_ends_the_sweep():
    plain = cartpole()

    def step(key, state, action):
        state, outcome = plain.step(key, state, action)
        return state, outcome._replace(r_t=jnp.where(action == 1, jnp.nan, outcome.r_t))

    options = {"steps": 60, "made": counting, "rules": [{"q": updates.periodic(3)}] * 2}
    with pytest.raises(ValueError, match=r"an observation or a reward is not finite after \d+ steps"):
        sweep([small(epsilon=1)] * 2, plain._replace(step=step), seeds=[0, 1], **options)


# --- Lanes side by side -----------------------------------------------------------------------------------------------


@pytest.mark.slow
def test_a_batch_of_lanes_is_equal_to_rounding():
    def after_one_chunk(lanes):  # of a few learner steps, because rounding may later change an action
        asked = iter([False, True])
        return sweep_of(CONFIGS, lanes=lanes, stop=lambda: next(asked))

    ones, batch = after_one_chunk("map"), after_one_chunk("vmap")
    assert ones.carry.learner_steps == batch.carry.learner_steps == 7
    for ours, theirs in zip(jax.tree.leaves(batch.carry.arrays), jax.tree.leaves(ones.carry.arrays), strict=True):
        np.testing.assert_allclose(np.asarray(ours), np.asarray(theirs), rtol=1e-4, atol=1e-6)


SPREAD = """
import sys
import jax, numpy as np
jax.config.update("jax_numpy_rank_promotion", "raise")
sys.path[:0] = {folders!r}
import test_sweep_loop as tests
assert len(jax.devices()) == 2
found = tests.sweep_of(tests.CONFIGS, devices=jax.devices()).carry
assert all(len(leaf.sharding.device_set) == 2 for leaf in jax.tree.leaves(found.arrays))
np.savez({file!r}, *map(np.asarray, jax.tree.leaves(found.arrays)))
"""


@pytest.mark.slow
def test_lanes_on_two_devices_are_those_on_one(tmp_path):
    """In a process of its own, because JAX reads the number of host devices once."""
    folders = [str(pathlib.Path(module.__file__).parent) for module in (device_runs, sys.modules[__name__])]
    code = SPREAD.format(folders=folders, file=str(tmp_path / "arrays.npz"))
    # XLA reads no flag after one without dashes.
    flags = f"--xla_force_host_platform_device_count=2 {os.environ.get('XLA_FLAGS', '')}"
    done = subprocess.run([sys.executable, "-c", code], env=os.environ | {"XLA_FLAGS": flags}, capture_output=True)
    assert not done.returncode, done.stderr.decode()
    with np.load(tmp_path / "arrays.npz") as found:
        assert_equal_arrays(list(found.values()), jax.tree.leaves(swept().carry.arrays))
