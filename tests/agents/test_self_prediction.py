"""Self-prediction: what is predicted from what, toward which target, and what the gradient sees."""

import gymnasium
import haiku as hk
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from agent_samples import SPEC, copy, make, make_config, random_sample, random_state
from polyak import networks
from polyak.agents import TermOutput, make_configs
from polyak.agents.config import LinearPrediction, MLPPrediction, SelfPrediction
from polyak.agents.latents import predict_latents
from polyak.agents.readings import read_features
from polyak.agents.terms.self_prediction import isotropy_penalty, prediction_errors, spread
from polyak.experiments.environments.make import adapt
from polyak.networks import ValueOutput
from polyak.updates import Variables
from small_runs import run_loop


def predicting(**fields):
    return make(**{"self_prediction": "mlp", **fields})


# --- What is predicted ------------------------------------------------------------------------------------------------


def plain_network():
    """Features are the observation times ``w``; a prediction adds the action + 1 to them, step after step."""

    def encode(params, state, key, observation, is_training):
        return observation * params["w"], state

    def predict(params, hidden, actions):
        return hidden[:, None] + jnp.cumsum(actions + 1.0, axis=1)[..., None]

    return networks.Network(lambda *_: None, encode, None, lambda *_: None, lambda batch: (), False, predict)


@pytest.mark.parametrize("horizon", [1, 3])
def test_the_future_of_transitions_by_brute_force(horizon):
    config = MLPPrediction(horizon=horizon)
    sample = random_sample(make_config(self_prediction=config), batch=5)
    valid = np.tri(5, horizon, k=-1, dtype=bool)  # episodes that end after 0, 1, 2, ... steps
    sample = sample._replace(future=sample.future._replace(valid=valid))
    online, slow = Variables({"w": jnp.float32(2.0)}, {}), Variables({"w": jnp.float32(3.0)}, {})
    hidden = jnp.asarray(2.0 * sample.future.obs[:, :1])
    found = predict_latents(config, plain_network(), online, slow, sample, hidden, None, jnp.ones((5, 1), bool))
    assert found.valid[:, 0].tolist() == valid.tolist()
    for row in range(5):
        z = 2.0 * sample.future.obs[row, 0]
        for step in range(horizon):
            z = z + sample.future.a_tm1[row, step] + 1
            np.testing.assert_allclose(found.predicted[row, 0, step], z, rtol=1e-6)
            np.testing.assert_allclose(found.wanted[row, 0, step], 3.0 * sample.future.obs[row, step + 1], rtol=1e-6)


@pytest.mark.parametrize("horizon", [1, 2, 4])
def test_steps_of_sequences_by_brute_force(horizon):
    config, length = MLPPrediction(horizon=horizon), 4
    sample = random_sample(make_config(), steps=length, batch=3)
    counts = [4, 2, 1]
    drawn = sample.transition._replace(valid=np.arange(length)[None] < np.array(counts)[:, None])
    learns = jnp.asarray(drawn.valid & (np.arange(length) >= 1))  # a burn-in of one step
    online, slow = Variables({"w": jnp.float32(2.0)}, {}), Variables({"w": jnp.float32(3.0)}, {})
    hidden, of_target = jnp.asarray(2.0 * drawn.obs[:, :-1]), jnp.asarray(3.0 * drawn.obs)
    sample = sample._replace(transition=drawn)
    found = predict_latents(config, plain_network(), online, slow, sample, hidden, of_target, learns)
    for row in range(3):
        for step in range(length):
            z = 2.0 * drawn.obs[row, step]
            for ahead in range(horizon):
                there = learns[row, step] and step + ahead < counts[row]
                assert found.valid[row, step, ahead] == there
                if there:
                    z = z + drawn.a_tm1[row, step + ahead] + 1
                    np.testing.assert_allclose(found.predicted[row, step, ahead], z, rtol=1e-6)
                    wanted = 3.0 * drawn.obs[row, step + ahead + 1]
                    np.testing.assert_allclose(found.wanted[row, step, ahead], wanted, rtol=1e-6)


def test_a_linear_model_has_a_matrix_for_each_action_and_is_applied_again_and_again():
    network = networks.make_network(3, torso="mlp", hidden_sizes=(4,), transition="linear")
    params, _ = network.init(jax.random.key(0), jnp.zeros((1, 2)))
    w = np.asarray(params["transition"]["w"])
    assert w.shape == (3, 4, 4)
    features, actions = (
        np.random.default_rng(0).normal(size=(2, 4)).astype(np.float32),
        np.array([[2, 0, 1], [1, 1, 0]]),
    )
    found = network.predict(params, features, actions)
    for row in range(2):
        z = features[row]
        for step, action in enumerate(actions[row]):
            z = z @ w[action]
            np.testing.assert_allclose(found[row, step], z, rtol=1e-5)
    free = networks.make_network(3, torso="mlp", hidden_sizes=(4,), transition="linear", action_conditional=False)
    params, _ = free.init(jax.random.key(0), jnp.zeros((1, 2)))
    assert params["transition"]["w"].shape == (1, 4, 4)
    one, other = (free.predict(params, features, jnp.asarray(a)) for a in (actions, actions[::-1]))
    np.testing.assert_array_equal(one, other)


# --- Losses -----------------------------------------------------------------------------------------------------------


def test_errors_by_hand():
    x, y = jnp.array([3.0, 4.0]), jnp.array([4.0, -3.0])
    squared, cosine = SelfPrediction(), SelfPrediction(prediction_error="cosine")
    assert float(prediction_errors(squared, x, y)) == 1 + 49
    for other, wanted in ((2 * x, 0.0), (y, 2.0), (-x, 4.0)):  # equal, orthogonal and opposite directions
        assert float(prediction_errors(cosine, x, other)) == pytest.approx(wanted, abs=1e-6)
    gradient = jax.grad(lambda x: prediction_errors(cosine, x, y))(jnp.zeros(2))
    assert np.isfinite(gradient).all()


def test_spread_and_isotropy_by_hand_and_rows_that_do_not_count():
    both, first = jnp.ones(2, bool), jnp.array([True, True, False])
    for rows, wanted in (([[1.0, 0.0], [5.0, 0.0]], 0.0), ([[1.0, 0.0], [-2.0, 0.0]], 1.0)):
        assert float(spread(jnp.array(rows), both)) == pytest.approx(wanted)
        assert float(spread(jnp.array([*rows, [0.0, 7.0]]), first)) == pytest.approx(wanted)
    same = [[1.0, 2.0], [-1.0, -2.0]]  # two features with a correlation of 1
    assert float(isotropy_penalty(jnp.array(same), both)) == pytest.approx(0.5)
    assert float(isotropy_penalty(jnp.array([*same, [9.0, -9.0]]), first)) == pytest.approx(0.5)
    assert np.isfinite(jax.grad(isotropy_penalty)(jnp.ones((3, 2)), first)).all()
    gradient = jax.grad(isotropy_penalty)(jnp.array([*same, [9.0, -9.0]]), first)
    assert gradient[2].tolist() == [0.0, 0.0]


def test_the_loss_is_masked_and_averaged_over_the_horizon_and_weighted():
    def spy(key, views):
        return TermOutput(jnp.zeros(4), {"predicted": views.latents.predicted, "wanted": views.latents.wanted})

    agent = make(options={"terms": {"spy": (1.0, spy)}}, self_prediction="mlp", horizon=3, prediction_weight=0.5)
    sample = random_sample(make_config(self_prediction=MLPPrediction(horizon=3)))
    valid = np.array([[True, True, True], [True, True, False], [True, False, False], [False, False, False]])
    sample = sample._replace(future=sample.future._replace(valid=valid))
    _, output = jax.jit(agent.learn)(jax.random.key(0), random_state(agent), sample)
    metrics = {name: np.asarray(value) for name, value in output.metrics.items()}
    errors = np.sum((metrics["predicted"] - metrics["wanted"]) ** 2, axis=-1)[:, 0]
    wanted = np.mean(np.sum(np.where(valid, errors, 0), axis=1) / 3)
    assert metrics["loss/self_prediction"] == pytest.approx(wanted, rel=1e-5)
    assert metrics["loss"] == pytest.approx(metrics["loss/value"] + 0.5 * wanted, rel=1e-5)
    for step in range(3):
        mean = np.mean(errors[: 3 - step, step])
        assert metrics[f"prediction_loss/{step + 1}"] == pytest.approx(mean, rel=1e-5)


# --- Targets ----------------------------------------------------------------------------------------------------------


def trained(agent, sample, steps=3):
    state, step = copy(random_state(agent)), jax.jit(agent.learn)
    for key in jax.random.split(jax.random.key(2), steps):
        state, output = step(key, state, sample)
    return state, output


def sample_of(steps=None, **fields):
    return random_sample(make_config(self_prediction="mlp", **fields), steps=steps)


@pytest.mark.parametrize(
    ("steps", "fields"),
    [
        (None, {}),
        pytest.param(4, {}, marks=pytest.mark.slow),
        pytest.param(None, {"dueling": True, "projection": "streams"}, marks=pytest.mark.slow),
        pytest.param(None, {"projection": "shared"}, marks=pytest.mark.slow),
    ],
)
def test_none_is_a_copy_at_every_step_to_the_bit(steps, fields):
    fields, sample = {"horizon": 2, **fields}, sample_of(steps, horizon=2)
    one, other = (predicting(target=f"periodic:2 encoder={rule}", **fields) for rule in ("none", "periodic:1"))
    for name in ("params", "optimizer_state"):
        x, y = (getattr(trained(agent, sample)[0], name) for agent in (one, other))
        jax.tree.map(np.testing.assert_array_equal, x, y)


def test_the_encoder_is_a_target_of_the_modules_below_the_head_and_what_is_predicted():
    sample, losses = sample_of(), {}
    for rule in ("frozen", "periodic:1", "incremental:0.5"):
        agent = predicting(target=f"periodic:100 encoder={rule}")
        state, output = trained(agent, sample)
        assert {name.split("/")[0] for name in state.targets["encoder"].params} == {"torso"}
        losses[rule] = float(output.metrics["prediction_loss/1"])
    without, output = trained(predicting(target="periodic:100"), sample)
    losses["q"] = float(output.metrics["prediction_loss/1"])
    assert set(without.targets) == {"q"}
    assert losses["frozen"] == losses["q"]  # no copy was due in three steps
    assert len(set(losses.values())) == 3


@pytest.mark.parametrize(
    ("projection", "steps"),
    [
        ("streams", None),
        ("shared", 4),
        *(pytest.param(*case, marks=pytest.mark.slow) for case in (("streams", 4), ("shared", None))),
    ],
)
def test_the_encoder_has_the_layers_that_features_are_projected_by(projection, steps):
    def spy(key, views):
        return TermOutput(jnp.zeros(4), {"predicted": views.latents.predicted, "wanted": views.latents.wanted})

    fields = {"dueling": True, "projection": projection, "horizon": 2, "target": "periodic:100 encoder=frozen"}
    agent, sample = predicting(options={"terms": {"spy": (0.0, spy)}}, **fields), sample_of(steps, horizon=2)
    state, names = random_state(agent), {"streams": ["advantage", "value"], "shared": ["mlp"]}[projection]
    projected = [f"head/{name}/~/linear_0" for name in names]
    assert {name for name in state.targets["encoder"].params if name.startswith("head")} == set(projected)
    copied = state.targets["encoder"]
    other = copied._replace(params=jax.tree.map(lambda leaf: 1.5 * leaf, copied.params))  # not as the online encoder
    state = state._replace(targets={**state.targets, "encoder": other})
    _, output = jax.jit(agent.learn)(jax.random.key(0), state, sample)
    # By hand, from the parameters of the copy: the torso's features of what came next, through the layers of the head.
    slow = state.targets["encoder"].params
    obs = sample.future.obs[:, None, 1:] if steps is None else None
    if steps is not None:
        at = np.minimum(np.arange(steps)[:, None] + np.arange(2)[None], steps - 1)
        obs = sample.transition.obs[:, at + 1]
    torso = [slow[name] for name in slow if name.startswith("torso")]
    for layer in torso:
        obs = np.maximum(obs @ np.asarray(layer["w"]) + np.asarray(layer["b"]), 0)
    order = ["head/value/~/linear_0", "head/advantage/~/linear_0"] if projection == "streams" else projected
    wanted = [obs @ np.asarray(slow[name]["w"]) + np.asarray(slow[name]["b"]) for name in order]
    np.testing.assert_allclose(output.metrics["wanted"], np.concatenate(wanted, axis=-1), rtol=1e-4, atol=1e-5)
    assert output.metrics["predicted"].shape == output.metrics["wanted"].shape


def test_the_gradient_goes_through_what_is_predicted_only_where_it_is_not_stopped():
    """Features are ``w`` times the observation and a prediction is the features times ``p``: by hand."""

    def network():
        def encode(observation, is_training):
            w = hk.get_parameter("w", (), init=jnp.ones)
            return w * observation

        def predict(hidden, actions):
            return (hk.get_parameter("p", (), init=jnp.ones) * hidden)[:, None]

        def value(hidden, observation, is_training):
            return ValueOutput(0.0 * jnp.tile(hidden[:, :1], SPEC.num_actions))

        return networks.compose(encode, value, predict=predict, draws=False)

    sample = sample_of()
    x, y = (np.asarray(sample.future.obs[:, step], np.float64) for step in (0, 1))
    w, p, mask = 1.5, 0.5, sample.future.valid[:, :1]
    for stop_gradient in (True, False):
        agent = make(
            options={"network": network()},
            self_prediction=LinearPrediction(stop_gradient=stop_gradient),
            optimizer="sgd",
            learning_rate=1.0,
            target="none",
        )
        state = random_state(agent)
        state = state._replace(
            params=jax.tree.map(
                lambda leaf: leaf, {"torso": {"w": jnp.float32(w)}, "transition": {"p": jnp.float32(p)}}
            )
        )
        after, _ = jax.jit(agent.learn)(jax.random.key(0), state, sample)
        error = np.where(mask, p * w * x - w * y, 0)
        d_w = np.mean(np.sum(2 * error * (p * x - (0 if stop_gradient else 1) * y), axis=-1))
        d_p = np.mean(np.sum(2 * error * w * x, axis=-1))
        assert float(after.params["torso"]["w"]) == pytest.approx(w - d_w, rel=1e-4)
        assert float(after.params["transition"]["p"]) == pytest.approx(p - d_p, rel=1e-4)


def test_the_predictor_has_a_learning_rate_of_its_own():
    sample, moved = sample_of(), {}
    for rate in (1.0, 10.0):
        agent = predicting(predictor_rate=rate, projection="shared", optimizer="sgd", learning_rate=0.001)
        before = random_state(agent)
        after, _ = jax.jit(agent.learn)(jax.random.key(0), before, sample)
        moved[rate] = jax.tree.map(lambda x, y: np.asarray(y, np.float64) - x, before.params, after.params)
    for module, leaves in moved[1.0].items():
        for name, leaf in leaves.items():
            factor = 10 if module.startswith(("transition", "predictor")) else 1
            np.testing.assert_allclose(moved[10.0][module][name], factor * leaf, rtol=2e-2, atol=2e-6)


def test_a_weight_of_0_leaves_values_and_torso_as_without_self_prediction():
    sample = sample_of()
    plain, _ = trained(make(), sample._replace(future=()))
    agent = predicting(prediction_weight=0.0)
    state = random_state(agent)
    begin = random_state(make())
    state = state._replace(
        params=begin.params | {name: leaves for name, leaves in state.params.items() if name.startswith("transition")}
    )
    targets = {"q": state.targets["q"]._replace(params=copy(state.params))}
    state, step = copy(state._replace(targets=targets)), jax.jit(agent.learn)
    for key in jax.random.split(jax.random.key(2), 3):
        state, _ = step(key, state, sample)
    for module, leaves in plain.params.items():
        for name, leaf in leaves.items():
            np.testing.assert_allclose(state.params[module][name], leaf, rtol=1e-5, atol=1e-7)


# --- Readings ---------------------------------------------------------------------------------------------------------


def test_ranks_and_dormant_units_are_numpys():
    rng = np.random.default_rng(0)
    features = (rng.normal(size=(20, 5)) * [1.0, 1.0, 0.05, 0.005, 0.0]).astype(np.float32)
    valid = rng.random(20) < 0.7
    found = {name: float(value) for name, value in read_features(features, valid).items()}
    values = np.linalg.svd(features[valid], compute_uv=False)
    for tolerance in (0.1, 0.01, 0.001):
        assert found[f"feature_rank/{tolerance}"] == np.sum(values > tolerance * values[0])
    assert [found[f"feature_rank/{tolerance}"] for tolerance in (0.1, 0.01, 0.001)] == [2, 3, 4]
    assert found["dormant_units"] == pytest.approx(2 / 5)


RECURRENT = {"core": "lstm", "lstm_size": 4, "windows": "sequences", "sequence_period": 5}


@pytest.mark.parametrize("fields", [{}, pytest.param(RECURRENT, marks=pytest.mark.slow)])
def test_a_loop_records_them_once_for_each_record(fields):
    fields = {"self_prediction": "mlp", "hidden_sizes": (4,), "batch_size": 8, "replay_capacity": 100, **fields}
    configs = make_configs("dqn", fields={**fields, "learning_starts": 20})
    environment = adapt([gymnasium.make("CartPole-v1")], seed=0)
    _, _, records = run_loop(configs, environment, steps=60, record_every=20, total_learner_steps=20)
    size = 4 if configs.agent.network.core is None else configs.agent.network.core.lstm_size
    for record in records[1:]:
        ranks = [record[f"feature_rank/{tolerance}"] for tolerance in (0.1, 0.01, 0.001)]
        assert ranks == sorted(ranks)
        assert ranks[0] >= 1
        assert ranks[2] <= size
        assert 0 <= record["dormant_units"] < 1
    assert make().features is None
