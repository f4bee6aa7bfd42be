"""Learning as a loop does it: diagnostics of the policy, and priorities."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from agent_samples import make, make_config, random_sample, random_state
from polyak.agents.types import read_target
from polyak.experiments.loops.learning import (
    AGREEMENT,
    CHURN,
    LEAST_PRIORITY,
    UNKNOWN,
    compile_agent,
    measured_names,
    new_priorities,
    zeros,
)


def test_churn_and_agreement_count_no_padding():
    def actions_of(variables, sample):
        first = jax.tree.leaves(variables.params)[0].ravel()[0]  # another number after every learner step
        changed = jnp.abs(jax.lax.bitcast_convert_type(first, jnp.int32))
        return jnp.stack([jnp.int32(-1), jnp.int32(-1), changed, jnp.int32(1)])

    agent = make(target="periodic:100")._replace(greedy_actions=actions_of)
    programs = compile_agent(agent, 1)
    totals = zeros((CHURN, AGREEMENT))
    key, sample = jax.random.key_data(jax.random.key(1)), random_sample(make_config())
    _, totals, _ = programs.learn(key, 0, random_state(agent), True, totals, sample)
    assert (float(totals[CHURN]), float(totals[AGREEMENT])) == (0.5, 0.5)


def test_no_priority_is_zero_or_not_finite_or_of_a_learner_step_that_was_undone():
    rows = np.array([[3, 5], [7, 9]])
    kept, priorities = new_priorities(rows, jnp.array([[0.0, 0.5], [UNKNOWN, UNKNOWN]]), 10)
    assert (kept.tolist(), priorities.tolist()) == ([3, 5], [LEAST_PRIORITY, np.float32(0.5) + LEAST_PRIORITY])
    kept, priorities = new_priorities(rows, jnp.zeros((2, 2)), 10)
    assert kept.tolist() == rows.tolist()
    assert (priorities == LEAST_PRIORITY).all()
    with pytest.raises(ValueError, match="priority: got nan at environment step 10: training has diverged"):
        new_priorities(rows, jnp.full((2, 2), jnp.nan), 10)


@pytest.mark.parametrize(
    ("rule", "batches"),
    [
        ("periodic:3", 1),
        ("none", 2),
        *(
            pytest.param(*case, marks=pytest.mark.slow)
            for case in (("incremental:0.5@3", 2), ("incremental:0.1", 1), ("frozen", 1))
        ),
    ],
)
def test_the_churn_of_a_target_is_the_change_of_its_values_in_a_learner_step(rule, batches):
    """By brute force: the values of the target before and after each dispatch, on the last batch of the dispatch."""
    agent = make(target=f"{rule} encoder=periodic:2", self_prediction="mlp", average="incremental:0.5")
    samples = [random_sample(make_config(self_prediction="mlp"), seed=seed) for seed in range(6)]
    stacked = [jax.tree.map(lambda *x: np.stack(x), *samples[i : i + batches]) for i in range(0, 6, batches)]
    programs, key = compile_agent(agent, batches), jax.random.key_data(jax.random.key(1))
    names = measured_names(agent, random_state(agent), samples[0], prioritized=False)
    state, totals, changes = random_state(agent), zeros(names), {name: [] for name in agent.targets}
    outputs = jax.jit(
        lambda state, sample: {
            name: agent.output(name, read_target(named, state, name), sample)[0]
            for name, named in agent.targets.items()
        }
    )
    for number, drawn in enumerate(stacked):
        last = samples[(number + 1) * batches - 1]
        before = outputs(state, last)
        state, totals, _ = programs.learn(
            key, number * batches, state, np.bool_(number == 0), totals, drawn if batches > 1 else last
        )
        for name, after in outputs(state, last).items():
            changes[name].append(float(np.mean(np.abs(np.asarray(after) - np.asarray(before[name])))))
    found = programs.diagnose(state, totals, 6)
    always = {"q": rule in ("incremental:0.1", "none"), "encoder": False, "average": True}
    for name, each in changes.items():
        wanted = each[0] / batches if always[name] else sum(each) / 6
        assert float(found[f"target_churn/{name}"]) == pytest.approx(wanted, rel=1e-3, abs=1e-7), name
    assert (sum(changes["q"]) > 0) == (rule != "frozen")
    assert sum(changes["encoder"]) > 0
