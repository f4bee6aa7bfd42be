"""Resets of an agent: when they fire, what they draw from, and what is refused."""

from fractions import Fraction

import gymnasium
import jax
import numpy as np
import pytest

from agent_samples import SPEC, make, make_config, random_sample, random_state
from polyak.agents import make_agent, make_configs
from polyak.agents.config import Resets
from polyak.experiments.environments.make import adapt
from polyak.experiments.loops import host
from polyak.experiments.loops.learning import check_periods
from polyak.experiments.loops.schedules import draw_numbers, steps_since_reset
from polyak.experiments.runs.config import make_run_config
from small_runs import run_loop


def resetting(**fields):
    return make(**{"resets": "periodic", "reset_period": "3", **fields})


def differing(one, other):
    """Paths of the leaves in which two states differ."""
    entries, others = (jax.tree_util.tree_flatten_with_path(state)[0] for state in (one, other))
    pairs = [
        (jax.tree_util.keystr(path, simple=True, separator="/"), x, y)
        for (path, x), (_, y) in zip(entries, others, strict=True)
    ]
    return {path for path, x, y in pairs if not np.array_equal(x, y)}


def learnt(agent):
    state, sample = random_state(agent), random_sample(make_config())
    for key in jax.random.split(jax.random.key(3), 2):
        state, _ = agent.learn(key, state, sample)
    return state


@pytest.mark.parametrize("fields", [{}, {"optimizer": "adamw", "max_gradient_norm": 1.0, "average": "incremental:0.1"}])
def test_the_head_begins_anew_and_the_torso_moves_a_fifth_of_the_way(fields):
    agent = resetting(**fields)
    before = learnt(agent)
    after = agent.periodic["resets"].apply(jax.random.key(7), before)
    found = differing(before, after)
    where = ["params", "targets/q/params", *(["targets/average/params"] if "average" in fields else [])]
    assert {path for path in found if "/torso/" in path} == {
        f"{place}/{module}/{leaf}"
        for place in where
        for module, leaves in before.params.items()
        for leaf in leaves
        if module.startswith("torso")
    }
    assert {path for path in found if path.startswith("optimizer_state")} == {
        path
        for path in differing(before, agent.init(jax.random.key(0)))
        if path.startswith("optimizer_state") and "head" in path
    }
    assert not any("count" in path for path in found)
    # Both keys of the reset, and no other, decide.
    online, slow = (agent.init(key) for key in jax.random.split(jax.random.key(7)))
    for module, leaves in after.params.items():
        for name, leaf in leaves.items():
            for state, fresh, old in (
                (leaf, online.params, before.params),
                (after.targets["q"].params[module][name], slow.targets["q"].params, before.targets["q"].params),
            ):
                new = np.asarray(fresh[module][name], np.float64)
                wanted = (
                    new if module.startswith("head") else 0.8 * np.asarray(old[module][name], np.float64) + 0.2 * new
                )
                np.testing.assert_allclose(state, wanted, rtol=1e-5, atol=1e-7)


def test_the_period_is_in_learner_or_environment_steps_and_the_last_one_of_a_run_has_no_reset():
    config = make_config(resets=Resets("40env"))
    agent = make_agent(config, SPEC, total_learner_steps=100, environment_steps_per_learner_step=Fraction(2))
    assert agent.periodic["resets"].period == 20
    assert [agent.periodic["resets"].count(steps) for steps in (19, 20, 80, 99, 100)] == [0, 1, 4, 4, 4]
    endless = make_agent(config, SPEC, environment_steps_per_learner_step=Fraction(2))
    assert endless.periodic["resets"].count(10**6) == 50_000
    assert make().periodic == {}


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"reset_period": "0.5"}, r"reset_period: got '0.5'; expected a number of learner steps, such as 40000"),
        ({"reset_period": "0"}, r"reset_period: got 'periodic:0'; '0' is not a period"),
        ({"reset_period": "periodic:5"}, r"reset_period: got 'periodic:5'; expected a number of learner steps"),
        (
            {"reset_period": "5env"},
            r"reset_period: .* is in environment steps, but the ratio to learner steps is not known",
        ),
        ({"reset_parts": "", "shrink_parts": ""}, r"reset_parts: got '', and shrink_parts is empty too"),
        ({"reset_parts": "haed"}, r"reset_parts: no parameter matches 'haed'; the modules are .*Did you mean 'head'\?"),
        ({"shrink_parts": "torso core"}, r"shrink_parts: no parameter matches 'core'"),
        ({"shrink": 1.5}, r"shrink: got 1.5; expected 0 <= shrink <= 1"),
        (
            {"head": "ensemble", "reset_parts": "head prior"},
            r"reset_parts: got 'prior', the fixed prior of the ensemble",
        ),
    ],
)
def test_bad_input(fields, message):
    with pytest.raises(ValueError, match=message):
        resetting(**fields)


def test_shrinking_without_a_reset_and_the_prior_of_an_ensemble_is_kept():
    agent = resetting(reset_parts="", head="ensemble", num_members=2)
    before = random_state(agent)
    found = differing(before, agent.periodic["resets"].apply(jax.random.key(7), before))
    assert found
    assert all("/torso/" in path and "prior" not in path for path in found)


def test_a_period_shorter_than_a_dispatch_is_refused():
    check_periods(resetting(), 3)
    with pytest.raises(ValueError, match=r"resets: got a period of 3 learner steps, and 4 are made in one dispatch"):
        check_periods(resetting(), 4)


def test_schedules_begin_again_at_a_reset():
    fields = {"n_steps": "linear(9,1,8)@resets", "discount": "horizon(0.5,0.9,8)@resets", "reset_period": "10"}
    config = make_run_config("dqn", fields={"resets": "periodic", **fields})
    agent = make_agent(config.agent, SPEC, total_learner_steps=40)

    def numbers(learner_steps):
        return draw_numbers(config.loop, 3, 50_000, steps_since_reset(agent, learner_steps))

    assert [numbers(steps).n_steps for steps in (0, 4, 8, 9, 10, 14, 29, 30, 34, 39)] == [9, 5, 1, 1, 9, 5, 1, 9, 5, 1]
    assert numbers(4).discount == numbers(14).discount == pytest.approx(1 - (0.5 * 0.1) ** 0.5)
    with pytest.raises(ValueError, match=r"^n_steps: got linear\(9,1,8\)@resets, and resets is 'none', .*--resets"):
        make_run_config("dqn", fields={"n_steps": "linear(9,1,8)@resets"})
    for name in ("epsilon", "learning_rate"):
        with pytest.raises(ValueError, match=rf"^{name}: got .*; {name} does not begin again at a reset"):
            make_run_config("dqn", fields={"resets": "periodic", name: "linear(1,0.5,8)@resets"})


def test_the_loop_draws_by_the_learner_steps_since_the_last_reset(monkeypatch):
    fields = {"hidden_sizes": (4,), "batch_size": 4, "replay_capacity": 100, "learning_starts": 10, "train_every": 2}
    fields |= {"learner_steps": 2, "resets": "periodic", "reset_period": "10", "n_steps": "linear(9,1,8)@resets"}
    configs, drawn = make_configs("dqn", fields=fields), []
    original = host.draw_numbers

    def spy(*arguments):
        drawn.append(original(*arguments).n_steps)
        return original(*arguments)

    monkeypatch.setattr(host, "draw_numbers", spy)
    environment = adapt([gymnasium.make("CartPole-v1")], seed=0)
    agent = make_agent(configs.agent, environment.spec, total_learner_steps=52)
    _, _, records = run_loop(configs, environment, agent, steps=60, record_every=30, total_learner_steps=52)
    assert [record["n_steps"] for record in records] == [7, 1]  # after 22 and 52 learner steps
    # Learner steps 0, 2, 4, ... of which every tenth begins again, but for the last period of the run.
    assert drawn == [9, 7, 5, 3, 1] * 4 + [9, 7, 5, 3, 1, 1]


def test_the_loop_fires_them_once_at_each_crossing_by_keys_of_their_own():
    fields = {"hidden_sizes": (4,), "batch_size": 4, "replay_capacity": 100, "target": "none"}
    fields |= {"learning_starts": 10, "train_every": 2, "learner_steps": 2, "resets": "periodic", "reset_period": "15"}
    configs, keys = make_configs("dqn", fields=fields), []

    def note(key, state):
        jax.debug.callback(lambda data: keys.append(tuple(data.tolist())), jax.random.key_data(key))
        return state

    environment = adapt([gymnasium.make("CartPole-v1")], seed=0)
    agent = make_agent(configs.agent, environment.spec, total_learner_steps=62)
    resets = agent.periodic["resets"]
    agent = agent._replace(periodic={"resets": resets._replace(apply=note), "again": resets._replace(apply=note)})
    _, carry, records = run_loop(configs, environment, agent, steps=70, record_every=10, total_learner_steps=62)
    jax.effects_barrier()
    assert carry.learner_steps == 62
    assert [record["resets"] for record in records] == [0, 0, 1, 2, 2, 3, 3]
    assert len(keys) == len(set(keys)) == 2 * 3
