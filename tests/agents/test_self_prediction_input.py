"""Self-prediction: configs, samples and networks that are refused, and the message of each."""

import haiku as hk
import jax
import numpy as np
import pytest

from agent_samples import SPEC, make, make_config, random_sample, random_state
from polyak import networks
from polyak.agents import make_agent, make_configs
from polyak.agents.config import LinearPrediction
from polyak.experiments.loops.carry import make_replay
from polyak.networks import ValueOutput
from polyak.replay import EnvironmentSpec

IMAGES = EnvironmentSpec(jax.ShapeDtypeStruct((6, 6, 1), np.dtype(np.uint8)), num_actions=3)


def predicting(**fields):
    return make(**{"self_prediction": "mlp", **fields})


def sample_of(steps=None, **fields):
    return random_sample(make_config(self_prediction="mlp", **fields), steps=steps)


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        (
            {"target": "encoder=none"},
            r"target: got 'encoder=none', which has no rule for q.* 'periodic:200 encoder=none'",
        ),
        (
            {"target": "periodic:5 encoder=periodic:2", "stop_gradient": False},
            r"target: got .* without stop_gradient the online .* Try --target '[^' ]+' with it, or --stop-gradient",
        ),
        ({"target": "periodic:5 encodr=none"}, r"got the name 'encodr'; this agent's targets are q, encoder"),
        ({"horizon": 0}, r"horizon: got 0; expected an integer, 1 <= horizon <= 100"),
        ({"predictor_rate": 0.0}, r"predictor_rate: got 0.0"),
        ({"self_prediction": "linear", "transition_sizes": (3,)}, r"transition_sizes"),
        ({"projection": "streams"}, r"projection: got 'streams', but the head is not dueling; .* Try --dueling"),
        (
            {"projection": "shared", "head": "implicit_quantile"},
            r"projection: got 'shared', but the hidden layer of an implicit quantile head depends on the quantile",
        ),
        (
            {"self_prediction": "conv"},
            r"self_prediction: got 'conv' and observations of shape \(2,\) with the torso mlp",
        ),
        ({"self_prediction": "conv", "core": "lstm"}, r"self_prediction: got 'conv', but the features of a recurrent"),
    ],
)
def test_bad_input(fields, message):
    with pytest.raises(ValueError, match=message):
        predicting(**fields)


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        (
            {"replay_capacity": 20, "batch_size": 4},
            r"horizon: got 12; expected at most 10, the number of steps of one environment",
        ),
        (
            {"windows": "sequences", "sequence_length": 6, "sequence_period": 3},
            r"horizon: got 12; expected at most 6, the sequence_length. Try --horizon 6, or a larger --sequence-length",
        ),
    ],
)
def test_a_horizon_beyond_what_is_kept_or_drawn(fields, message):
    configs = make_configs("dqn", fields={"self_prediction": "mlp", "horizon": 12, **fields})
    agent = make_agent(configs.agent, SPEC, total_learner_steps=10)
    with pytest.raises(ValueError, match=message):
        make_replay(agent, SPEC, configs.loop, num_envs=2)


def test_a_sample_without_the_steps_that_are_predicted():
    agent, sample = predicting(horizon=3), sample_of(horizon=3)
    for future, found in (((), "none"), (sample_of(horizon=2).future, "2 steps")):
        with pytest.raises(ValueError, match=rf"sample.future: got {found}; expected the next 3 steps"):
            jax.eval_shape(agent.learn, jax.random.key(0), random_state(agent), sample._replace(future=future))


def test_without_self_prediction_there_is_no_encoder_to_name():
    with pytest.raises(ValueError, match=r"got the name 'encoder'; this agent's targets are q. Only self-prediction"):
        make(target="periodic:5 encoder=none")


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({}, r"self_prediction: got 'conv' with hidden_sizes \(8,\), but these layers are between .* Try --projection"),
        ({"hidden_sizes": (8, 8), "dueling": True}, r"hidden_sizes \(8, 8\), but the first layers are between"),
    ],
)
def test_a_dense_layer_between_a_map_and_its_prediction(fields, message):
    with pytest.raises(ValueError, match=message):
        make(IMAGES, self_prediction="conv", torso="minatar", **fields)


def test_features_that_are_the_observation_are_not_scaled():
    with pytest.raises(
        ValueError, match=r"hidden_sizes: got \(8,\), but this layer belongs to the head, .* Try --hidden-sizes 120"
    ):
        make(normalize_features=True, dueling=True)
    make(normalize_features=True, dueling=True, hidden_sizes=(8, 8))
    make(normalize_features=True)


def test_a_given_network_predicts_if_the_agent_does():
    plain = networks.make_network(SPEC.num_actions, torso="mlp", hidden_sizes=(8,))
    with pytest.raises(
        ValueError, match=r"network: got a network with no predict function, and self_prediction is MLPPrediction"
    ):
        make(options={"network": plain}, self_prediction="mlp")
    able = networks.make_network(SPEC.num_actions, torso="mlp", hidden_sizes=(8,), transition="linear")
    with pytest.raises(ValueError, match=r"network with a predict function, and self_prediction is None"):
        make(options={"network": able})
    with pytest.raises(ValueError, match=r"action_conditional: got False, which only the built-in network reads"):
        make(options={"network": able}, self_prediction=LinearPrediction(action_conditional=False))


def test_predictions_of_another_shape_are_explained():
    def encode(observation, is_training):
        return hk.Linear(3)(observation)

    def value(hidden, observation, is_training):
        return ValueOutput(hk.Linear(SPEC.num_actions)(hidden))

    network = networks.compose(encode, value, predict=lambda hidden, actions: hidden, draws=False)
    with pytest.raises(
        ValueError, match=r"predict: got predictions of shape \(1, 3\); expected \[B, K, H\], \(1, 1, 3\)"
    ):
        make(options={"network": network}, self_prediction="mlp")
