"""Warnings about a run, and settings without one."""

import re
import types

import numpy as np
import pytest

from polyak import updates
from polyak.agents import make_configs
from polyak.experiments.loops.normalization import Moments, Normalization
from polyak.experiments.runs import train as runs
from polyak.experiments.runs.health import Watch, of_exploration, of_targets
from polyak.updates import Target
from small_runs import config_of


@pytest.mark.parametrize(
    ("rule", "message"),
    [
        ("periodic:1001", "target q: periodic:1001 moves every 1001 learner steps, and the run has 1000, so it never"),
        ("incremental:0.5@2000", "moves every 2000 learner steps, and the run has 1000, so it never moves"),
        ("incremental:1e-06", "incremental:1e-06 goes 0.001 of the way to the online parameters in the 1000 learner"),
        ("incremental:1e-05@2", "goes 0.005 of the way"),
        ("incremental:cosine(0.00001,1000)", "goes 0.005 of the way"),
    ],
)
def test_targets_that_hardly_move(rule, message):
    (text,) = of_targets({"q": Target(updates.parse(rule))}, learner_steps=1000)
    assert message in text


@pytest.mark.parametrize("rule", ["periodic:1000", "incremental:0.001", "incremental:1.0@1000", "frozen", "none"])
def test_targets_that_move_or_are_not_meant_to(rule):
    assert list(of_targets({"q": Target(updates.parse(rule))}, learner_steps=1000)) == []


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({}, None),
        ({"epsilon": "linear(1,0,25%)"}, "so it stops exploring. Try linear(1,0.05,25%)"),
        ({"epsilon": 0}, "so it never explores"),
        ({"epsilon": "linear(1,0,25%)", "noisy_sigma": 0.5}, None),
        ({"epsilon": 0, "head": "ensemble"}, None),
    ],
)
def test_agents_that_stop_exploring(fields, message):
    configs = make_configs("dqn", fields=fields)
    said = list(of_exploration(configs.agent, configs.loop))
    assert len(said) == (message is not None)
    assert all(re.match("epsilon: got .*, which ends at 0, and the agent has neither noise", text) for text in said)
    assert all(message in text for text in said)


def watch_of(batch=4, **given):
    """A watch over a replay whose state is its rewards."""
    spec = types.SimpleNamespace(weights=np.zeros(batch))
    return Watch(types.SimpleNamespace(rewards=lambda state: state, sample_spec=lambda: spec), **given)


def seen(watch, steps, ended_at=(), rewards=(1.0,), normalization=Normalization()):  # noqa: B008 (immutable)
    carry = types.SimpleNamespace(steps=steps, replay=np.array(rewards, np.float32), normalization=normalization)
    return list(watch(carry, {"ended_at": list(ended_at)}))


def test_an_environment_that_never_ends_an_episode():
    watch = watch_of(discount=0.99)
    assert seen(watch, 50_000, ended_at=[1000]) == []
    assert seen(watch, 100_999) == []
    (text,) = seen(watch, 101_000)
    assert text.startswith("no episode has ended in the last 100000 environment steps. If they should end, register")
    assert "discount" not in text
    assert seen(watch, 400_000, ended_at=[250_000]) == []  # once
    assert seen(watch, 900_000) == []
    (text,) = seen(watch_of(discount=1.0, steps=30_000), 130_000)  # resumed
    assert "With discount 1 values have no bound then" in text


def test_rewards_that_drown_all_others():
    watch = watch_of(discount=0.99)
    assert seen(watch, 0, rewards=[]) == []
    assert seen(watch, 100, rewards=[999.0, -999.0]) == []
    assert seen(watch, 199, rewards=[-1e6]) == []  # looked at ever more seldom
    (text,) = seen(watch, 200, rewards=[-1e6, 1.0])
    assert text.startswith("rewards: the largest so far is 1e+06 in size")
    assert seen(watch, 10_000, rewards=[1e6]) == []  # once
    assert "Set normalize_rewards" in text
    normalized = Normalization(returns=Moments(np.array(9.0), np.array(0.0), np.array(1e12)))
    assert seen(watch_of(discount=0.99), 100, rewards=[1e6], normalization=normalized) == []


def test_returns_that_leave_the_support():
    def seen_with(watch, clipped):
        carry = types.SimpleNamespace(steps=100, replay=np.zeros(1, np.float32), normalization=Normalization())
        return list(watch(carry, {"ended_at": [], "clipped_targets": clipped}))

    watch = watch_of(discount=0.99)
    assert seen_with(watch, None) == seen_with(watch, 0.05) == []
    (text,) = seen_with(watch, 0.051)
    assert text.startswith("clipped_targets: 5% of the bootstrap targets lie outside of v_min to v_max")
    assert seen_with(watch, 0.9) == []  # once


def test_features_that_are_all_alike():
    def seen_with(watch, rank):
        carry = types.SimpleNamespace(steps=100, replay=np.zeros(1, np.float32), normalization=Normalization())
        return list(watch(carry, {"ended_at": [], "feature_rank/0.01": rank}))

    watch = watch_of(discount=0.99)
    assert seen_with(watch, None) == seen_with(watch, 2.0) == []
    (text,) = seen_with(watch, 1.0)
    assert text.startswith("feature_rank/0.01: the features of all observations point in one direction")
    assert "encoder=incremental:0.005" in text
    assert seen_with(watch, 1.0) == []  # once
    assert len(seen_with(watch_of(discount=0.99), 0.0)) == 1
    assert seen_with(watch_of(batch=1, discount=0.99), 1.0) == []  # the features of one observation


def test_a_run_reports_them(tmp_path, monkeypatch):
    monkeypatch.setattr("polyak.experiments.runs.health.LARGE_REWARD", 1.0)
    said = []
    fields = {"target": "periodic:500", "average": "incremental:0.00001", "epsilon": "linear(1,0,25%)"}
    config = config_of(steps=200, **fields)
    runs.train(config, tmp_path / "run", lambda _: None, said.append)
    assert [text.split(":")[:2] for text in said] == [
        ["warning", " target q"],
        ["warning", " target average"],
        ["warning", " epsilon"],
        ["warning", " rewards"],
    ]
