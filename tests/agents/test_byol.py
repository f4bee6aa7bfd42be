"""BYOL by hand: its loss, its target and module state, SimSiam, and the parts that keep projections from collapsing."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from polyak.agents.byol import byol_loss, make_byol
from polyak.agents.fields import kinds_of
from polyak.agents.image_views import make_views
from polyak.agents.optimizers import make_byol_optimizer
from polyak.agents.parts import bringers, from_json, leaves, replace, to_json
from polyak.agents.pretraining import LARS, BYOLConfig
from polyak.updates import init_targets

KEY = jax.random.key(0)
SMALL = {"torso": "mlp", "hidden_sizes": (4,), "projector_hidden": 5, "projection_size": 3, "predictor_hidden": 4}
IMAGE = jax.ShapeDtypeStruct((6, 6, 1), jnp.uint8)
BATCH = np.random.default_rng(0).integers(0, 256, (8, 6, 6, 1)).astype(np.uint8)


@functools.cache
def made(steps=10, **fields):
    fields = SMALL | fields
    if fields.get("predictor") == "none":
        fields.pop("predictor_hidden")
    return make_byol(replace(BYOLConfig(), fields), IMAGE, total_learner_steps=steps)


@functools.cache
def initial():
    return made().init(KEY)


def advanced(byol, steps, start=None):
    """States after each of so many gradient steps, the first of them the initial one."""
    first = initial() if start is None else start
    states, outputs = [first._replace(targets=init_targets(byol.targets, first.params, first.state))], []
    for number in range(steps):
        state, output = STEPS.setdefault(byol.learner.step, jax.jit(byol.learner.step))(
            jax.random.fold_in(KEY, number), states[-1], BATCH
        )
        states.append(state)
        outputs.append(output)
    return states, outputs


STEPS = {}  # compiled, by the function


def equal(tree, other):
    return all(np.array_equal(one, two) for one, two in zip(jax.tree.leaves(tree), jax.tree.leaves(other), strict=True))


def test_the_loss_of_equal_orthogonal_and_opposite_vectors():
    one, other = jnp.array([0.6, 0.8]), jnp.array([-0.8, 0.6])
    for projected, loss in ((one, 0.0), (other, 2.0), (-one, 4.0)):
        assert float(byol_loss(jnp.stack([one, one]), jnp.stack([projected, projected]))) == pytest.approx(
            loss, abs=1e-6
        )
        assert float(byol_loss(jnp.stack([3 * one, one]), 7 * jnp.stack([projected] * 2))) == pytest.approx(
            loss, abs=1e-6
        )


def test_each_view_predicts_the_other_one():
    one, other = jnp.array([1.0, 0.0]), jnp.array([0.0, 1.0])
    predicted = jnp.stack([one, one, other, other])  # two images: their first views, then their second ones
    assert float(byol_loss(predicted, jnp.stack([other, other, one, one]))) == 0
    assert float(byol_loss(predicted, jnp.stack([one, one, other, other]))) == 2
    assert float(byol_loss(predicted, jnp.stack([other, -other, one, one]))) == 1


def test_the_cosine_rule_moves_the_target_by_its_step_size_at_0_half_and_end():
    states, _ = advanced(made(steps=4, target="incremental:cosine(0.5)"), 5)
    for count, size in ((0, 0.5), (2, 0.25), (4, 0.0)):
        before, after = states[count], states[count + 1]
        online = after.params["torso/mlp/~/linear_0"]["w"]
        old, new = (state.targets["target"].params["torso/mlp/~/linear_0"]["w"] for state in (before, after))
        np.testing.assert_allclose(new - old, size * (online - old), rtol=1e-3, atol=1e-6)
        assert (np.asarray(online) != np.asarray(old)).any()


def test_the_target_is_encoder_and_projector_and_starts_as_a_copy():
    state = initial()
    slow = state.targets["target"]
    assert {name.split("/")[0] for name in slow.params} == {"torso", "projector"}
    assert equal(slow.params, {name: state.params[name] for name in slow.params})
    assert {name.split("/")[0] for name in slow.state} == {"projector"}


def test_the_module_state_of_the_target_comes_from_its_own_forward_pass():
    states, _ = advanced(made(target=PARTS), 5)
    first, later = states[4], states[5]
    slow = {
        name: {key: np.asarray(leaf) for key, leaf in leaves.items()} for name, leaves in slow_params(first).items()
    }
    views = jax.jit(make_views(BYOLConfig().views))(jax.random.fold_in(KEY, 4), np.concatenate([BATCH, BATCH]))
    flat = np.asarray(views).reshape(16, -1)
    features = np.maximum(flat @ slow["torso/mlp/~/linear_0"]["w"] + slow["torso/mlp/~/linear_0"]["b"], 0)
    hidden = features @ slow["projector/linear"]["w"] + slow["projector/linear"]["b"]
    name = "projector/batch_norm/~/mean_ema"
    before, after = (state.targets["target"].state[name]["hidden"] for state in (first, later))
    np.testing.assert_allclose(after[0], 0.9 * before[0] + 0.1 * hidden.mean(axis=0), rtol=1e-3, atol=1e-5)
    assert not np.allclose(after, later.state[name]["hidden"])


def slow_params(state):
    return state.targets["target"].params


PARTS = "frozen target/projector/linear_1=periodic:1"


def test_a_part_of_the_target_has_a_rule_of_its_own():
    first, *_, last = advanced(made(target=PARTS), 5)[0]
    slow = slow_params(last)
    assert equal(slow["projector/linear_1"], last.params["projector/linear_1"])
    for name in ("torso/mlp/~/linear_0", "projector/linear"):
        assert equal(slow[name], slow_params(first)[name])
        assert not equal(slow[name], last.params[name])


def test_simsiam_keeps_no_copy_and_goes_forward_once():
    state = jax.eval_shape(made(target="none").init, KEY)
    assert jax.tree.leaves(state.targets["target"].params) == []
    products = {target: program({"target": target}).count("dot_general") for target in ("none", "frozen")}
    assert products["frozen"] - products["none"] == 3  # of encoder and projector


@pytest.mark.slow
def test_simsiam_is_a_copy_of_every_step_and_its_gradient_stops():
    byol, through, every = made(target="none"), made(target="none", stop_gradient=False), made(target="periodic:1")
    (start, *_, simsiam), (output, *_) = advanced(byol, 3)
    assert abs(output.metrics["gradient_norm"] - advanced(through, 1)[1][0].metrics["gradient_norm"]) > 1e-3
    copied = advanced(every, 3)[0][-1]
    for one, two in zip(jax.tree.leaves(simsiam.params), jax.tree.leaves(copied.params), strict=True):
        np.testing.assert_allclose(one, two, rtol=1e-4, atol=1e-5)
    assert not equal(start.params, simsiam.params)


@pytest.mark.parametrize("optimizer", ["adamw", "lars"])
def test_biases_and_batch_norm_are_not_decayed(optimizer):
    config = replace(BYOLConfig(), {"optimizer": optimizer, "weight_decay": 0.5, "learning_rate": 0.1})
    params = {"torso/linear": {"w": jnp.ones((2, 2)), "b": jnp.ones(2)}, "projector/batch_norm": {"scale": jnp.ones(2)}}
    rule = make_byol_optimizer(config)
    updates, _ = rule.update(jax.tree.map(jnp.zeros_like, params), rule.init(params), params)
    changed = jax.tree.map(lambda leaf: bool((leaf != 0).any()), updates)
    assert changed == {"torso/linear": {"w": True, "b": False}, "projector/batch_norm": {"scale": False}}


def test_lars_is_that_of_optax():
    config = replace(BYOLConfig(), {"optimizer": "lars", "learning_rate": 0.2, "momentum": 0.5, "weight_decay": 0.0})
    params = {"linear": {"w": jnp.array([[3.0], [4.0]])}}
    gradients = {"linear": {"w": jnp.array([[0.0], [2.0]])}}
    rule = make_byol_optimizer(config)
    updates, _ = rule.update(gradients, rule.init(params), params)
    np.testing.assert_allclose(updates["linear"]["w"], [[0.0], [-0.2 * 1e-3 * 5.0]], rtol=1e-5)
    assert isinstance(config.optimizer, LARS)
    assert isinstance(rule, optax.GradientTransformation)


def test_metrics_and_readings():
    byol = made(steps=4, target="incremental:cosine(0.5)")
    states, outputs = advanced(byol, 2)
    metrics = outputs[-1].metrics
    assert metrics["prediction_cosine"] == pytest.approx(1 - float(metrics["loss"]) / 2)
    assert 0 < metrics["projection_spread"] < 1
    found = jax.eval_shape(byol.read, KEY, states[-1], BATCH)
    assert set(found) == {
        "feature_spread",
        "dormant_units",
        *(f"feature_rank/{part}" for part in ("0.1", "0.01", "0.001")),
    }
    assert jax.eval_shape(byol.encode, states[-1], BATCH).shape == (8, 4)


def test_every_option_is_read():
    base = program({})
    assert set(OTHERS) == set(leaves(BYOLConfig()))
    assert bringers(BYOLConfig).keys() - leaves(BYOLConfig()) == {"momentum", "trust_coefficient"}
    for name, value in OTHERS.items():
        assert program({name: value} | BESIDE.get(name, {})) != base, name
    lars = program({"optimizer": "lars"})
    for name in ("momentum", "trust_coefficient", "weight_decay"):
        assert program({"optimizer": "lars", name: 0.25}) != lars, name
    assert program({"target": "none", "stop_gradient": False}) != program({"target": "none"})


OTHERS = {
    "torso": "minatar",
    "hidden_sizes": (3,),
    "activation": "tanh",
    "projector_hidden": 3,
    "projection_size": 2,
    "predictor": "none",
    "predictor_hidden": 3,
    "max_rotation": 1.0,
    "max_scaling": 1.0,
    "max_shift": 1.0,
    "erase_probability": 1.0,
    "erase_side": 1.0,
    "optimizer": "lars",
    "optimizer_epsilon": 0.5,
    "weight_decay": 0.5,
    "learning_rate": 0.5,
    "target": "none",
    "stop_gradient": False,
}
BESIDE = {"stop_gradient": {"target": "none"}}


def program(fields):
    """The jaxpr of a gradient step, as a text."""
    byol = make_byol(replace(BYOLConfig(), {"torso": "mlp"} | fields), IMAGE, total_learner_steps=10)
    state = jax.eval_shape(byol.init, KEY)
    return str(jax.make_jaxpr(byol.learner.step)(KEY, state, BATCH))


def test_the_config_is_written_and_read():
    config = replace(BYOLConfig(), {"optimizer": "lars", "predictor": "none", "learning_rate": "linear(0.2,0,50%)"})
    assert from_json(BYOLConfig(), to_json(config)) == config
    for field in ("predictor", "optimizer"):
        assert kinds_of(BYOLConfig.__dataclass_fields__[field])


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"stop_gradient": False}, "^stop_gradient: got False with the target 'incremental:cosine.*Try --target none"),
        ({"target": "often"}, "^target: got 'often'; expected one of"),
        ({"target": "q=periodic:5"}, "^target: got the name 'q'; this agent's targets are target"),
        ({"target": "frozen target/head=none"}, "^target: no parameter matches 'target/head'"),
        ({"learning_rate": 0}, "^learning_rate: got 0, with which nothing is learnt"),
        ({"predictor": "none", "predictor_hidden": 3}, "^predictor_hidden: got 3, but predictor is 'none'"),
        ({"momentum": 0.5}, "^momentum: got 0.5, but optimizer is 'adamw'; only lars has it. Try --optimizer lars"),
        ({"erase_side": 0.0}, "^erase_side: got 0.0; expected 0 < erase_side <= 1"),
        ({"torso": "nature"}, "^observation: got images of 6x6; the nature torso takes 36x36 at least"),
    ],
)
def test_bad_configs(fields, message):
    with pytest.raises(ValueError, match=message):
        jax.eval_shape(make_byol(replace(BYOLConfig(), fields), IMAGE, total_learner_steps=10).init, KEY)
