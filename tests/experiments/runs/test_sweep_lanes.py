"""Lanes as data: rules of parts of targets, numbers, and lanes that fill the devices."""

import jax
import numpy as np
import pytest

from polyak.experiments.runs.sweep_lanes import initial_sweep, lane_states, make_lanes
from polyak.updates import TargetRule, parse
from small_sweeps import grid_of


def lanes_of(axes, agent="dqn", devices=None, **fields):
    return make_lanes(grid_of(agent, axes=axes, **fields).lanes, devices or jax.devices()[:1], "map")


def texts(lanes, name="q"):
    """Text of the rule of each part in each lane."""
    parts = lanes.settings.rules[name]
    count = len(lanes.lanes)
    return {
        part: [str(TargetRule(*(leaf[lane] for leaf in rule))) for lane in range(count)] for part, rule in parts.items()
    }


def test_a_lane_has_its_main_rule_for_the_parts_of_others():
    rules = ["none", "periodic:5 q/torso=incremental:0.5", "frozen q/head=none"]
    assert texts(lanes_of({"target": rules})) == {
        "": ["none", "periodic:5", "frozen"],
        "torso": ["none", "incremental:0.5", "frozen"],
        "head": ["none", "periodic:5", "none"],
    }


def test_parts_within_parts():
    inner = "torso/mlp/~/linear_1"
    rules = [f"none q/torso=periodic:3 q/{inner}=frozen", "periodic:5 q/torso=periodic:4", f"frozen q/{inner}=none"]
    assert texts(lanes_of({"target": rules}, hidden_sizes=(8, 8))) == {
        "": ["none", "periodic:5", "frozen"],
        "torso": ["periodic:3", "periodic:4", "frozen"],
        inner: ["frozen", "periodic:4", "none"],
    }


def test_a_part_that_others_cover_is_left_out():
    rules = ["none q/torso=periodic:3", "frozen q/torso/mlp=none"]
    assert texts(lanes_of({"target": rules})) == {"": ["none", "frozen"], "torso/mlp": ["periodic:3", "none"]}


def test_readings_of_the_parts_of_others_are_left_out():
    lanes = lanes_of({"target": ["none", "periodic:5 q/torso=none"]})
    record = {"target_distance/q": 0.0, "target_distance/q/torso": 1.0, "steps_since_update/q/torso": 2, "loss": 3.0}
    assert lanes.record(0, record) == {"target_distance/q": 0.0, "loss": 3.0}
    assert lanes.record(1, record) == record


def test_numbers_of_lanes():
    lanes = lanes_of(
        {"target": ["incremental:cosine(0.1)"], "learning_rate": [0.001, 0.5], "average": ["incremental:0.1"]}
    )
    assert lanes.settings.learning_rate.tolist() == [np.float32(0.001), 0.5]
    horizon = lanes.described[0].agent.targets["q"].rule.horizon
    assert texts(lanes) == {"": [str(parse("incremental:cosine(0.1)", horizon=horizon))] * 2}
    assert texts(lanes, "average") == {"": ["incremental:0.1"] * 2}
    assert lanes_of({"target": ["none"]}).settings.learning_rate == ()  # a schedule of the program


def test_the_replay_has_the_longest_returns():
    lanes = lanes_of({"n_steps": [1, "linear(5,2,50%)"]})
    assert [config.draw.most_steps for config in lanes.program.configs] == [1, 5]
    assert lanes.parts.config.loop.draw.most_steps == 1
    (plan,) = lanes.program.replay.sample.args
    assert plan.most == 5


def test_copies_of_the_last_lane_fill_the_devices(monkeypatch):
    grid = grid_of(seeds=3)
    two = [jax.devices()[0]] * 2
    lanes = make_lanes(grid.lanes, two, "map")
    assert len(lanes.program.configs) == 4
    assert [lane.name for lane in lanes.lanes] == ["seed0", "seed1", "seed2"]
    assert len(make_lanes(grid.lanes[:1], two, "map").program.devices) == 1


def test_each_lane_begins_with_its_seed():
    lanes = make_lanes(grid_of(seeds=2).lanes, jax.devices()[:1], "map")
    carry = initial_sweep(lanes)
    state_of = lane_states(lanes, carry)
    weights = [state_of(lane).agent.params["head/q_values"]["w"] for lane in range(2)]
    assert not np.array_equal(*weights)
    assert not np.array_equal(*np.asarray(carry.arrays.environment.key))
    own = lanes.parts.agent.init(jax.random.split(jax.random.key(1), 4)[0])
    np.testing.assert_array_equal(weights[1], own.params["head/q_values"]["w"])


def test_an_agent_of_ones_own_reads_its_config():
    with pytest.raises(ValueError, match="agent: "):
        make_lanes(grid_of(maker="no_such_module:make").lanes, jax.devices()[:1], "map")
