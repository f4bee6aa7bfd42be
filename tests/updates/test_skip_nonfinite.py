"""Learner steps that are not finite: undone to the bit and counted, or let through as they always were."""

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from network_tools import primitives
from polyak import updates
from polyak.agents import make_agent, make_configs
from polyak.replay import EnvironmentSpec, Sample, Transition
from polyak.updates import LossOutput, Target, learner

NAN, INF = float("nan"), float("inf")
TARGETS = {
    "q": Target(updates.periodic(2)),
    "soft": Target(updates.incremental(0.5)),
    "own": Target(updates.incremental(0.5), module_state="own"),
}
START = {"w": jnp.array([1.0, 2.0]), "half": jnp.ones(2, jnp.bfloat16)}
MODULE_STATE = {"mean": jnp.array(3.0), "draws": jax.random.key(5), "calls": jnp.array(0)}
CALM = {"value": 0.0, "slope": 1.0, "mean": 4.0, "own": 5.0, "priorities": (1.0, 2.0)}


def told(key, params, state, targets, batch):
    """A loss that does as the batch says: its value, its gradient by every weight, and what goes with it."""
    weights = jnp.concatenate([params["w"], params["half"].astype(jnp.float32)])
    # The second term has the value 0 and the gradient "slope", which may be infinite where the value is not.
    value = batch["value"] + batch["slope"] * jnp.sum(weights - jax.lax.stop_gradient(weights))
    after = {"mean": batch["mean"], "draws": jax.random.fold_in(state["draws"], 1), "calls": state["calls"] + 1}
    own = {"own": {**targets["own"].state, "mean": batch["own"]}}
    metrics = {"value": batch["value"]}
    return value, LossOutput(state=after, target_state=own, priorities=batch["priorities"], metrics=metrics)


def batch_of(**changed):
    return jax.tree.map(jnp.float32, {**CALM, "priorities": jnp.array(CALM["priorities"]), **changed})


def in_bits(tree):
    leaves = [
        jax.random.key_data(x) if jnp.issubdtype(x.dtype, jax.dtypes.prng_key) else x for x in jax.tree.leaves(tree)
    ]
    return [(str(x.dtype), x.shape, np.asarray(x).tobytes()) for x in leaves]


@pytest.fixture(scope="module")
def under_way():
    """A compiled step, and a state whose optimizer, targets and counts are no longer what they were at first."""
    made = learner(told, optax.adam(0.1), TARGETS, skip_nonfinite=True)
    step, state = jax.jit(made.step), made.init(START, MODULE_STATE)
    for _ in range(3):
        state, output = step(jax.random.key(0), state, batch_of())
        assert float(output.metrics["skipped"]) == 0
    assert [int(slow.count) for slow in state.targets.values()] == [3, 3, 3]
    return step, state


@pytest.mark.parametrize(
    "changed",
    [
        {"value": NAN},
        {"value": -INF},
        {"slope": INF},
        {"slope": NAN},
        {"slope": 1e30},  # each gradient is finite, but not its square, which Adam would keep
        {"mean": NAN},
        {"own": INF},
        {"value": NAN, "slope": NAN, "mean": NAN, "own": NAN, "priorities": jnp.array([NAN, 2.0])},
    ],
)
def test_a_step_that_is_not_finite_changes_nothing_to_the_bit(changed, under_way):
    step, state = under_way
    after, output = step(jax.random.key(0), state, batch_of(**changed))
    assert in_bits(after) == in_bits(state)
    assert float(output.metrics["skipped"]) == 1
    assert np.isfinite(output.priorities).all()
    assert output.priorities.tolist()[1] == 2.0
    assert in_bits(step(jax.random.key(0), after, batch_of())[0]) != in_bits(state)


def test_parameters_that_overflow_are_a_step_undone():
    def loss(key, params, state, targets, batch):
        return params["w"] * batch, LossOutput()

    made = learner(loss, optax.sgd(1e20), {"q": Target(updates.periodic(1))}, skip_nonfinite=True)
    state = made.init({"w": jnp.array(1.0)})
    after, output = made.step(
        jax.random.key(0), state, jnp.float32(1e19)
    )  # 1e19 and 1e20 are floats, their product is not
    assert float(output.metrics["gradient_norm"]) == pytest.approx(1e19)
    assert (float(after.params["w"]), float(output.metrics["skipped"])) == (1.0, 1.0)


def follow(key, params, state, targets, batch):
    """A loss whose gradient by w is w - (target w + batch): with a learning rate of 1, w = target + batch."""
    return 0.5 * (params["w"] - targets["q"].params["w"] - batch) ** 2, LossOutput()


def test_a_run_with_bad_batches_is_the_run_without_them():
    # By hand, as in test_updates_learner: kept batches 1, 2, 3 give w = 1, 2, 5 and a target copied at the second.
    made = learner(follow, optax.sgd(1.0), {"q": Target(updates.periodic(2))}, skip_nonfinite=True)
    batches = [NAN, 1.0, INF, NAN, 2.0, 3.0]
    state, seen = made.init({"w": jnp.zeros(())}), []
    for batch in batches:
        state, output = jax.jit(made.step)(jax.random.key(0), state, jnp.float32(batch))
        slow = state.targets["q"]
        seen.append(
            (float(state.params["w"]), float(slow.params["w"]), int(slow.count), int(output.metrics["skipped"]))
        )
    assert seen == [(0, 0, 0, 1), (1, 0, 1, 0), (1, 0, 1, 1), (1, 0, 1, 1), (2, 2, 2, 0), (5, 2, 3, 0)]
    assert not np.isfinite(jax.jit(made.step)(jax.random.key(0), state, jnp.float32(NAN))[1].metrics["loss"])
    at_once, outputs = jax.jit(made.steps)(jax.random.key(0), made.init({"w": jnp.zeros(())}), jnp.float32(batches))
    assert in_bits(at_once) == in_bits(state)
    assert outputs.metrics["skipped"].tolist() == [1, 0, 1, 1, 0, 0]


def test_off_it_costs_nothing_and_lets_everything_through():
    def traced(**options):
        made = learner(follow, optax.sgd(1.0), {"q": Target(updates.periodic(1))}, **options)
        state = made.init({"w": jnp.zeros(())})
        jaxpr = jax.make_jaxpr(made.step)(jax.random.key(0), state, jnp.float32(1.0))
        return primitives(jaxpr.jaxpr), made.step(jax.random.key(0), state, jnp.float32(NAN))

    found, (after, output) = traced()
    assert "is_finite" not in found
    assert "skipped" not in output.metrics
    assert np.isnan(after.params["w"])
    assert np.isnan(after.targets["q"].params["w"])
    found, _ = traced(skip_nonfinite=True)
    assert "is_finite" in found
    assert "cond" not in found


@pytest.mark.slow
def test_optax_apply_if_finite_guards_the_optimizer_alone():
    optimizer = optax.apply_if_finite(optax.adam(0.1), max_consecutive_errors=2)
    made = learner(told, optimizer, TARGETS)
    state = made.init(START, MODULE_STATE)
    state, _ = made.step(jax.random.key(0), state, batch_of(slope=NAN, mean=NAN))
    assert np.isfinite(state.params["w"]).all()
    assert np.isnan(state.state["mean"])
    assert int(state.targets["q"].count) == 1
    for _ in range(2):
        state, _ = made.step(jax.random.key(0), state, batch_of(slope=NAN))
    assert np.isnan(state.params["w"]).all()


@pytest.mark.slow
def test_a_dqn_has_the_option():
    spec = EnvironmentSpec(jax.ShapeDtypeStruct((1,), jnp.float32), num_actions=2)
    reward = np.float32([1.0, NAN])
    ones = np.ones((2, 1), np.float32)
    sample = Sample(
        Transition(ones, np.int32([0, 1]), reward, np.float32([1, 1]), ones), np.ones(2, np.float32), np.arange(2)
    )
    fields = {"hidden_sizes": (2,), "skip_nonfinite": True, "learning_rate": 0.001}
    agent = make_agent(make_configs("double_dqn", fields=fields).agent, spec)
    state = agent.init(jax.random.key(0))
    after, output = agent.learn(jax.random.key(1), state, sample)
    assert in_bits(after) == in_bits(state)
    assert float(output.metrics["skipped"]) == 1
    assert output.priorities[0] > 0
    assert output.priorities[1] == 0
