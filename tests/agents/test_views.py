"""Views: windows of sequences against brute force and the replay, draws, module state, and gradients of the burn-in."""

import haiku as hk
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from agent_samples import SPEC, equal, learn, make, make_config, random_sample, random_variables
from polyak import networks
from polyak.agents.agent_network import network_arguments
from polyak.agents.views import look, n_step_windows, steps_of, values_tm1
from polyak.replay import Sample, Transition, _walk
from polyak.updates import Variables
from replay_record import filled

DISCOUNT = 0.9


def windows_by_hand(r_t, discount_t, valid, n_steps):
    """Sum, factor and end of the window of each step, in Python."""
    found = np.zeros((3, *r_t.shape))
    for row in range(len(r_t)):
        count = int(valid[row].sum())
        for begin in range(r_t.shape[1]):
            end = min(begin + int(n_steps[row]), count)
            total, factor = 0.0, 1.0
            for step in range(begin, end):
                total, factor = total + factor * r_t[row, step], factor * discount_t[row, step]
            found[:, row, begin] = total, factor, end
    return found


@pytest.mark.parametrize("seed", range(4))
def test_windows_by_brute_force(seed):
    rng, batch, length = np.random.default_rng(seed), 20, 7
    valid = np.arange(length)[None] < rng.integers(1, length + 1, size=(batch, 1))
    r_t = np.where(valid, rng.normal(size=(batch, length)), 0).astype(np.float32)
    discount_t = np.where(valid, DISCOUNT * (rng.random((batch, length)) < 0.8), 0).astype(np.float32)
    n_steps = rng.integers(1, length + 3, size=batch).astype(np.int32)
    found = jax.jit(n_step_windows)(r_t, discount_t, valid, n_steps)
    expected = windows_by_hand(r_t, discount_t, valid, n_steps)
    assert [leaf.dtype.name for leaf in found] == ["float32", "float32", "int32"]
    for name, ours, theirs in zip(("r_t", "discount_t", "end"), found, expected, strict=True):
        np.testing.assert_allclose(ours, theirs, rtol=1e-5, atol=1e-6, err_msg=name)


@pytest.mark.parametrize("n_steps", [1, 3, 5])
def test_windows_of_sequences_are_the_transitions_of_the_replay(n_steps):
    length = 5
    _, _, state = filled(2, 60, 100, sequence_length=length, sequence_period=1)
    rows = np.flatnonzero(~state.boundary)
    drawn = _walk.sequences(state, rows, length, n_steps, DISCOUNT)
    steps, end = steps_of(Sample(drawn, np.ones(len(rows), np.float32), rows), 0)
    per_lane, checked = len(state.boundary) // len(state.head), 0
    for step in range(length):
        valid = drawn.valid[:, step]
        starts = (rows - rows % per_lane + (rows % per_lane + step) % per_lane)[valid]
        # A window of the sequence ends with it; a transition from the same row is as long.
        transition = _walk.transitions(state, starts, min(n_steps, length - step), DISCOUNT)
        np.testing.assert_allclose(steps.r_t[valid, step], transition.r_t, rtol=1e-6, atol=1e-5)
        np.testing.assert_allclose(steps.discount_t[valid, step], transition.discount_t, rtol=1e-6)
        np.testing.assert_array_equal(steps.a_tm1[valid, step], transition.a_tm1)
        np.testing.assert_array_equal(steps.action_mask_tm1[valid, step], transition.action_mask_tm1)
        np.testing.assert_array_equal(steps.action_mask_t[valid, step], transition.action_mask_t)
        obs_t = drawn.obs[np.flatnonzero(valid), np.asarray(end)[valid, step]]
        np.testing.assert_array_equal(obs_t, transition.obs_t)
        checked += valid.sum()
    assert checked > 100
    assert (np.asarray(steps.discount_t)[drawn.valid] == 0).any()


def test_learning_from_a_sequence_is_learning_from_its_transitions():
    fields = {"optimizer": "sgd", "learning_rate": 0.1, "double": True, "hidden_sizes": (4,)}
    agent, batch, length = make(**fields), 3, 4
    sequences = random_sample(make_config(**fields), steps=length, batch=batch, n_steps=3)
    steps, end = steps_of(sequences, 0)
    obs = sequences.transition.obs
    obs_t = obs[np.arange(batch)[:, None], np.asarray(end)]
    flat = [np.asarray(leaf).reshape(batch * length, *leaf.shape[2:]) for leaf in (obs[:, :-1], *steps[:3], obs_t)]
    transitions = Sample(Transition(*flat), np.ones(batch * length, np.float32), np.arange(batch * length))
    of_sequences, output = learn(agent, sequences, steps=1)
    of_transitions, other = learn(agent, transitions, steps=1)
    assert float(output.metrics["loss"]) == pytest.approx(float(other.metrics["loss"]), rel=1e-6)
    for ours, theirs in zip(*map(jax.tree.leaves, (of_sequences.params, of_transitions.params)), strict=True):
        np.testing.assert_allclose(ours, theirs, rtol=1e-5, atol=1e-7)
    errors = np.asarray(other.priorities).reshape(batch, length)
    wanted = 0.9 * errors.max(axis=1) + 0.1 * errors.mean(axis=1)
    np.testing.assert_allclose(output.priorities, wanted, rtol=1e-5)


# --- Draws and module state -------------------------------------------------------------------------------------------


def drawing_network():
    """Values that are one draw in every row, and averages of the observations that training moves."""

    def encode(observation, is_training):
        return hk.BatchNorm(False, False, 0.5)(observation, is_training)

    def value(hidden, observation, is_training):
        key = hk.maybe_next_rng_key()
        noise = jnp.zeros(()) if key is None else jax.random.normal(key, ())
        return networks.ValueOutput(noise + 0.0 * hidden[:, :1] + jnp.zeros((1, 3)))

    return networks.compose(encode, value)


def looked(network, sample, own=frozenset()):
    variables = Variables(*random_variables(network.init, jnp.zeros((1, 2))))
    return jax.jit(lambda key, sample: look(network, key, variables, {"q": variables}, own, sample, 0))(
        jax.random.key(2), sample
    )


def average(state):
    return float(state["torso/batch_norm/~/mean_ema"]["average"][0, 0])


@pytest.mark.parametrize("steps", [None, 3])
def test_draws_of_the_views(steps):
    views, _, _ = looked(drawing_network(), random_sample(make_config(), steps=steps))
    draws = {
        (name, field): float(getattr(outputs, field).q_values[0, 0, 0])
        for name, outputs in {"online": views.online, **views.targets}.items()
        for field in outputs._fields
    }
    # Each of these has a draw of its own.
    read = [("online", "tm1"), ("online", "t_again"), ("q", "t"), *([] if steps else [("q", "tm1")])]
    assert len({draws[name] for name in read}) == len(read)
    assert draws["q", "t"] != draws["q", "t_again"]
    again, _, _ = looked(drawing_network(), random_sample(make_config(), steps=steps))
    assert equal(views.online, again.online)


def test_without_draws_there_is_one_value_of_an_observation():
    network = networks.make_network(**network_arguments(make_config(), SPEC))
    views, _, _ = looked(network, random_sample(make_config()))
    assert equal(views.online.t, views.online.t_again)
    assert equal(views.targets["q"].t, views.targets["q"].t_again)
    assert equal(views.online, views.targets["q"])


@pytest.mark.parametrize("steps", [None, 3])
def test_whose_module_state_moves(steps):
    sample, network = random_sample(make_config(), steps=steps), drawing_network()
    _, state, own = looked(network, sample)
    drawn = sample.transition
    observations = drawn.obs_tm1 if steps is None else drawn.obs
    assert average(state) == pytest.approx(float(observations[..., 0].mean()), rel=1e-5)
    assert own == {}
    _, state, own = looked(network, sample, own=frozenset({"q"}))
    assert set(own) == {"q"}
    assert average(own["q"]) == pytest.approx(float(observations[..., 0].mean()), rel=1e-5)


def test_values_of_the_observations_acted_on():
    config = make_config()
    network = networks.make_network(**network_arguments(config, SPEC))
    params, state = random_variables(network.init, jnp.zeros((1, 2)))
    sample = random_sample(config)
    hidden, _ = network.encode(params, state, None, sample.transition.obs_tm1, False)
    expected, _ = network.value(params, state, None, hidden, sample.transition.obs_tm1, False)
    found = values_tm1(network, Variables(params, state), sample, 0)
    np.testing.assert_allclose(found.q_values[:, 0], expected.q_values, rtol=1e-6)


def test_a_core_sees_no_single_transitions():
    agent, sample = make(core="lstm"), random_sample(make_config())
    state = jax.eval_shape(agent.init, jax.random.key(0))
    message = r"sample: got a Transition, .* expected a Sequence.*windows='sequences'"
    with pytest.raises(ValueError, match=message):
        jax.eval_shape(agent.learn, jax.random.key(0), state, sample)
    with pytest.raises(ValueError, match=message):
        jax.eval_shape(agent.greedy_actions, Variables(state.params, state.state), sample)


# --- Burn-in ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("burn_in", [0, 2])
def test_no_gradient_passes_the_end_of_the_burn_in(burn_in):
    config = make_config(core="lstm", lstm_size=3, burn_in=burn_in, hidden_sizes=(4,))
    network = networks.make_network(**network_arguments(config, SPEC))
    sample = random_sample(config, steps=4, batch=2)
    params, state = random_variables(network.init, jnp.zeros((1, 2)))
    variables = Variables(params, state)

    @jax.jit
    @jax.grad
    def gradient(obs):
        drawn = sample._replace(transition=sample.transition._replace(obs=obs))
        views, _, _ = look(network, jax.random.key(1), variables, {"q": variables}, frozenset(), drawn, burn_in)
        return views.online.tm1.q_values[:, 2:].sum() + views.online.t.q_values[:, 2:].sum()

    found = np.asarray(gradient(sample.transition.obs))
    assert (found[:, 2:] != 0).any()
    assert (found[:, :2] == 0).all() == bool(burn_in)


def test_outputs_of_targets_are_under_stop_gradient():
    network = networks.make_network(**network_arguments(make_config(), SPEC))
    sample = random_sample(make_config())
    params, state = random_variables(network.init, jnp.zeros((1, 2)))

    def total(params, field):
        variables = Variables(params, state)
        views, _, _ = look(network, jax.random.key(1), variables, {"q": variables}, frozenset(), sample, 0)
        outputs = {"online": views.online, "target": views.targets["q"]}[field]
        return sum(leaf.sum() for leaf in jax.tree.leaves(outputs))

    gradients = [jax.tree.leaves(jax.jit(jax.grad(total), static_argnums=1)(params, f)) for f in ("online", "target")]
    assert any((leaf != 0).any() for leaf in gradients[0])
    assert all((leaf == 0).all() for leaf in gradients[1])
