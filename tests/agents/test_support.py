"""Support of the atoms: derived from rewards, put into a state before it learns, and left alone where it is given."""

import jax
import numpy as np
import pytest

from agent_samples import SPEC, equal, make, make_config, random_sample, random_state
from polyak import networks
from polyak.agents.support import derive_support


@pytest.mark.parametrize(
    ("rewards", "discount", "margin", "expected"),
    [
        ([1.0] * 20, 0.99, False, (0.0, 100.0)),
        ([1.0] * 20, 0.9, False, (0.0, 10.0)),
        ([-1.0] * 19 + [0.0], 0.99, False, (-100.0, 0.0)),
        ([-1.0, 1.0] * 10, 0.9, False, (-10.0, 10.0)),
        ([0.0] * 99 + [7.0], 0.99, False, (0.0, 7.0)),  # a rare reward comes once
        ([1.0] * 20, 0.9, True, (-0.5, 10.5)),
        ([3.0] * 20, 0.0, False, (0.0, 3.0)),
    ],
)
def test_the_support_by_hand(rewards, discount, margin, expected):
    found = derive_support(np.array(rewards), discount, margin=margin)
    np.testing.assert_allclose(found, expected, rtol=1e-6)


def test_the_support_holds_the_return_of_every_constant_reward():
    rng = np.random.default_rng(0)
    for reward in rng.normal(size=20):
        v_min, v_max = derive_support(np.full(50, reward), 0.95)
        assert v_min - 1e-3 <= reward / (1 - 0.95) <= v_max + 1e-3


def test_rewards_from_which_no_support_follows():
    with pytest.raises(ValueError, match=r"all of the first 7 rewards are 0. Give the lowest.*--v-min and --v-max"):
        derive_support(np.zeros(7), 0.99)
    with pytest.raises(ValueError, match=r"discount of 1.0, under which returns have no bound.*--v-min"):
        derive_support(np.ones(7), 1.0)


@pytest.mark.parametrize(("head", "support"), [("categorical", (0.0, 10.0)), ("hl_gauss", (-0.5, 10.5))])
def test_an_agent_gets_its_support_and_its_targets_the_same(head, support):
    agent = make(head=head, num_atoms=3, average="incremental:0.5", target="periodic:2 q/torso=none")
    state = random_state(agent)
    assert networks.support(state.state).tolist() == [0.0, 0.0]
    ready = agent.calibrate(state, np.ones(20, np.float32), 0.9)
    found = [networks.support(variables.state) for variables in (ready, *ready.targets.values())]
    np.testing.assert_allclose(found, [support] * 3, rtol=1e-6)
    assert equal(ready.params, state.params)
    # What is derived once, or came with the parameters, stays.
    assert equal(agent.calibrate(ready, np.full(20, 5.0), 0.9), ready)
    learnt, output = jax.jit(agent.learn)(jax.random.key(1), ready, random_sample(make_config()))
    assert all(np.isfinite(leaf).all() for leaf in jax.tree.leaves((learnt, output)))
    assert networks.support(learnt.state).tolist() == networks.support(ready.state).tolist()


def test_a_target_that_copies_nothing_keeps_no_support():
    agent = make(head="categorical", num_atoms=3, target="none")
    ready = agent.calibrate(random_state(agent), np.ones(20), 0.9)
    assert jax.tree.leaves(ready.targets["q"].state) == []
    learnt, output = jax.jit(agent.learn)(jax.random.key(1), ready, random_sample(make_config()))
    assert all(np.isfinite(leaf).all() for leaf in jax.tree.leaves((learnt, output)))


def test_agents_without_a_support_to_derive():
    assert make(head="categorical", v_min=-1.0, v_max=1.0).calibrate is None
    assert make().calibrate is None
    agent = make(SPEC, head="categorical", v_min=-1.0, v_max=1.0)
    assert networks.support(random_state(agent).state) is None
