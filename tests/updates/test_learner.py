"""The learner: the order of its parts, named targets, module state, several steps in one dispatch."""

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from polyak import updates
from polyak.updates import LossOutput, Target, learner


def follow(key, params, state, targets, batch):
    """A loss whose gradient by w is w - (target w + batch)."""
    del key, state
    return 0.5 * jnp.sum((params["w"] - targets["q"].params["w"] - batch) ** 2), LossOutput(metrics={"seen": batch})


def test_three_steps_by_hand():
    # Gradient, optimizer, parameters, then the target: with a learning rate of 1 each step sets w = target + batch.
    made = learner(follow, optax.sgd(1.0), {"q": Target(updates.periodic(2))})
    state = made.init({"w": jnp.zeros(())})
    seen = []
    for batch in (1.0, 2.0, 3.0):
        state, output = jax.jit(made.step)(jax.random.key(0), state, jnp.float32(batch))
        seen.append((float(state.params["w"]), float(state.targets["q"].params["w"]), float(output.metrics["loss"])))
    # Step 2 still reads the target of step 0, and fires on the parameters that step 2 itself made.
    assert seen == [(1.0, 0.0, 0.5), (2.0, 2.0, 0.5), (5.0, 2.0, 4.5)]


def test_metrics_hold_loss_gradient_norm_and_the_losss_own():
    made = learner(follow, optax.sgd(1.0), {"q": Target(updates.none())})
    _, output = made.step(jax.random.key(0), made.init({"w": jnp.zeros(2)}), jnp.array([3.0, 4.0]))
    assert float(output.metrics["loss"]) == 12.5
    assert float(output.metrics["gradient_norm"]) == 5.0
    assert output.metrics["seen"].tolist() == [3.0, 4.0]


@pytest.mark.parametrize("rule", ["periodic:2", "incremental:0.3@2", "none"])
def test_several_steps_in_one_dispatch_equal_single_ones(rule):
    def noisy(key, params, state, targets, batch):
        return follow(key, params, state, targets, batch + jax.random.normal(key, batch.shape))

    made = learner(noisy, optax.adam(0.1), {"q": Target(updates.parse(rule))})
    batches = jnp.arange(10.0).reshape(5, 2)
    key, start = jax.random.key(7), made.init({"w": jnp.zeros(2)})
    at_once, outputs = jax.jit(made.steps)(key, start, batches)
    state, losses = start, []
    for step_key, batch in zip(jax.random.split(key, 5), batches, strict=True):
        state, output = jax.jit(made.step)(step_key, state, batch)
        losses.append(float(output.metrics["loss"]))
    for x, y in zip(jax.tree.leaves(at_once), jax.tree.leaves(state), strict=True):
        np.testing.assert_allclose(x, y, rtol=1e-6, atol=1e-6)
    np.testing.assert_allclose(outputs.metrics["loss"], losses, rtol=1e-5)
    assert outputs.metrics["loss"].shape == (5,)


def test_two_targets_are_two_selections_under_two_rules():
    def loss(key, params, state, targets, batch):
        assert sorted(targets) == ["all", "encoder"]
        assert sorted(targets["all"].params) == ["encoder", "head"]
        assert targets["encoder"].params.shape == ()
        return params["encoder"] * 1.0 + params["head"] * 2.0, LossOutput()

    targets = {
        "all": Target(updates.periodic(2)),
        "encoder": Target(updates.incremental(0.5), select=lambda params: params["encoder"]),
    }
    made = learner(loss, optax.sgd(1.0), targets)
    state = made.init({"encoder": jnp.zeros(()), "head": jnp.zeros(())})
    for _ in range(2):
        state, _ = jax.jit(made.step)(jax.random.key(0), state, None)
    assert float(state.params["encoder"]) == -2.0
    assert float(state.targets["all"].params["head"]) == -4.0
    assert float(state.targets["encoder"].params) == -1.25  # 0.5 * -1, then half of the way on to -2


def test_module_state_copied_or_the_targets_own():
    def loss(key, params, state, targets, batch):
        own = {"count": targets["own"].state["count"] + 10}
        return params["w"] ** 2, LossOutput(state={"count": state["count"] + 1}, target_state={"own": own})

    targets = {
        "copied": Target(updates.periodic(2)),
        "own": Target(updates.incremental(0.5), module_state="own"),
        "bare": Target(updates.none(), module_state="own"),
    }
    made = learner(loss, optax.sgd(0.1), targets)
    state, counts = made.init({"w": jnp.ones(())}, {"count": jnp.array(0)}), []
    for _ in range(3):
        state, _ = jax.jit(made.step)(jax.random.key(0), state, None)
        slow = state.targets
        counts.append((int(state.state["count"]), int(slow["copied"].state["count"]), int(slow["own"].state["count"])))
    assert counts == [(1, 0, 10), (2, 2, 20), (3, 2, 30)]


def test_own_module_state_that_the_loss_forgot():
    made = learner(
        lambda *_: (jnp.zeros(()), LossOutput()), optax.sgd(0.1), {"q": Target(updates.frozen(), module_state="own")}
    )
    with pytest.raises(ValueError, match=r'q: its module state is "own", but the loss returned target_state for no'):
        made.step(jax.random.key(0), made.init({"w": jnp.ones(1)}), None)
    with pytest.raises(ValueError, match=r"q\.module_state: got 'averaged'"):
        learner(follow, optax.sgd(0.1), {"q": Target(updates.frozen(), module_state="averaged")})


def test_module_state_that_the_loss_forgot():
    made = learner(lambda *_: (jnp.zeros(()), LossOutput()), optax.sgd(0.1), {"q": Target(updates.frozen())})
    with pytest.raises(ValueError, match=r"LossOutput.state: got .*; expected the module state"):
        made.step(jax.random.key(0), made.init({"w": jnp.ones(1)}, {"mean": jnp.ones(1)}), None)


def test_a_loss_that_is_no_scalar():
    follow = updates.learner(lambda key, params, *_: (params, LossOutput()), optax.sgd(0.1), {})
    with pytest.raises(ValueError, match=r"loss: got an array of shape \(3,\); expected a scalar. Take its mean"):
        follow.step(jax.random.key(0), follow.init(jnp.zeros(3)), None)


def test_a_rule_out_of_range_is_refused_when_the_learner_is_made():
    with pytest.raises(TypeError, match=r"Did you mean polyak.updates.parse\('periodic:5'\)"):
        learner(follow, optax.sgd(0.1), {"q": Target("periodic:5")})
    with pytest.raises(ValueError, match=r"step_size: got 5\.0"):
        learner(follow, optax.sgd(0.1), {"q": Target(updates.TargetRule(5.0, 1))})


def test_a_donated_step_can_be_repeated():
    made = learner(follow, optax.adam(0.1), {"q": Target(updates.periodic(1)), "slow": Target(updates.frozen())})
    step = jax.jit(made.step, donate_argnums=1)
    state = jax.jit(made.init)({"w": jnp.zeros(8)})
    for _ in range(3):
        state, _ = step(jax.random.key(0), state, jnp.ones(8))
    assert np.isfinite(state.params["w"]).all()


def test_no_rule_costs_a_second_trace_or_changes_dtypes():
    traces = []

    def loss(key, params, state, targets, batch):
        traces.append(1)
        return follow(key, params, state, targets, batch)

    for text in ("periodic:2", "incremental:0.1", "incremental:cosine(0.1,5)@2", "frozen", "none"):
        traces.clear()
        made = learner(loss, optax.adam(0.1), {"q": Target(updates.parse(text))})
        step = jax.jit(made.step)
        state = made.init({"w": jnp.zeros(2)})
        for batch in range(4):
            state, _ = step(jax.random.key(0), state, jnp.full(2, batch, jnp.float32))
        assert len(traces) == 1
