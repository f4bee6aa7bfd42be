"""Learning as a loop does it: diagnostics of the policy, and priorities."""

import jax
import jax.numpy as jnp
import pytest

from agent_samples import make, make_config, random_sample, random_state
from polyak.experiments.loops.learning import AGREEMENT, CHURN, LEAST_PRIORITY, compile_agent, finite_priorities, zeros


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


def test_no_priority_is_zero_and_none_is_not_finite():
    assert finite_priorities(jnp.zeros(2), 10).tolist() == [LEAST_PRIORITY] * 2
    with pytest.raises(ValueError, match="priority: got nan at environment step 10: training has diverged"):
        finite_priorities(jnp.array([1.0, jnp.nan]), 10)
