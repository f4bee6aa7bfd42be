"""SPR, SR-SPR and BBF on the images of Atari: sizes, resets and finite losses."""

import jax
import numpy as np
import pytest

from agent_samples import random_sample
from polyak.agents import make_agent, make_configs
from polyak.replay import EnvironmentSpec

ATARI = EnvironmentSpec(jax.ShapeDtypeStruct((84, 84, 4), np.dtype(np.uint8)), num_actions=6)
NAMES = ("spr", "sr_spr", "bbf")


def atari(name, spec=ATARI, **fields):
    config = make_configs(name, "atari", fields).agent
    return config, make_agent(config, spec, total_learner_steps=100_000)


def sizes(params):
    """Number of parameters of each part of a network."""
    found = {}
    for module, leaves in params.items():
        part = module.split("/")[0]
        found[part] = found.get(part, 0) + sum(leaf.size for leaf in leaves.values())
    return found


def kernel(size, inputs, outputs):
    return size * size * inputs * outputs + outputs


def test_the_network_of_bbf_has_four_times_the_filters_and_a_hidden_layer_of_2048():
    _, agent = atari("bbf")
    found, inputs, torso = sizes(jax.eval_shape(agent.init, jax.random.key(0)).params), 4, 0
    for channels in (64, 128, 128):
        torso += kernel(3, inputs, channels) + 4 * kernel(3, channels, channels)
        inputs = channels
    hidden, atoms = 11 * 11 * 128 * 2048 + 2048, 51
    assert found == {
        "torso": torso,
        "head": hidden + (2048 + 1) * atoms * (1 + 6),
        "transition": kernel(3, 128 + 6, 128) + kernel(3, 128, 128),
        "predictor": 2048 * 2048 + 2048,
    }


def test_the_network_of_spr_is_rainbows_with_a_transition_and_a_predictor():
    _, agent = atari("spr")
    found = jax.eval_shape(agent.init, jax.random.key(0)).params
    own = {"transition/conv_0", "transition/conv_1", "predictor"}
    _, rainbow = atari("rainbow", hidden_sizes=(256,), target="periodic:1")
    shapes = jax.tree.map(np.shape, jax.eval_shape(rainbow.init, jax.random.key(0)).params)
    assert jax.tree.map(np.shape, {name: found[name] for name in found if name not in own}) == shapes
    assert found["transition/conv_0"]["w"].shape == (3, 3, 64 + 6, 64)
    assert found["predictor"]["w"].shape == (512, 512)


@pytest.mark.slow
def test_what_a_reset_of_bbf_touches():
    small = EnvironmentSpec(jax.ShapeDtypeStruct((36, 36, 1), np.dtype(np.uint8)), num_actions=2)
    _, agent = atari("bbf", small, torso="minatar", torso_width=1, hidden_sizes=(4,))
    before = agent.init(jax.random.key(0))
    after = jax.jit(agent.periodic["resets"].apply)(jax.random.key(1), before)
    fresh = agent.init(jax.random.split(jax.random.key(1))[0])
    for module, leaves in after.params.items():
        for name, leaf in leaves.items():
            new, old = fresh.params[module][name], before.params[module][name]
            wanted = new if module.split("/")[0] in ("head", "predictor") else 0.5 * old + 0.5 * new
            np.testing.assert_allclose(leaf, wanted, rtol=1e-6, atol=1e-7)


@pytest.mark.slow
@pytest.mark.parametrize("name", NAMES)
def test_learner_steps_across_resets_are_finite(name):
    resets = {"reset_period": "50"} if name != "spr" else {}
    fields = {"hidden_sizes": (32,), **resets} | ({"torso_width": 1} if name == "bbf" else {})
    config, agent = atari(name, **fields)
    samples = [random_sample(config, ATARI, batch=2, seed=seed) for seed in range(4)]
    learn, state = jax.jit(agent.learn, donate_argnums=1), agent.init(jax.random.key(0))
    losses, operations = [], {name: jax.jit(each.apply) for name, each in agent.periodic.items()}
    for step, key in enumerate(jax.random.split(jax.random.key(1), 200), start=1):
        state, output = learn(key, state, samples[step % 4])
        losses.append({metric: float(value) for metric, value in output.metrics.items()})
        for each, apply in operations.items():
            if agent.periodic[each].count(step) > agent.periodic[each].count(step - 1):
                state = apply(jax.random.key(step), state)
    assert all(np.isfinite(value) for record in losses for value in record.values())
    # Four samples again and again: what is predicted of them is learnt, and is not the same of all.
    before, after = (
        np.mean([record["loss/self_prediction"] for record in some]) for some in (losses[:10], losses[-10:])
    )
    assert after < before
    assert losses[-1]["feature_spread"] > 0.01
