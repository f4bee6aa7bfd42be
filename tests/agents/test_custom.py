"""Given networks and terms: those that an agent accepts, its errors, and module state under both rules."""

import itertools

import haiku as hk
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from agent_samples import SPEC, equal, learn, make, make_config, random_sample, random_state, timestep
from polyak import networks
from polyak.agents import TermOutput
from polyak.networks import ValueOutput


def encode(observation, is_training):
    del is_training
    return jax.nn.relu(hk.Linear(4)(observation))


def value(hidden, observation, is_training):
    del observation, is_training
    return ValueOutput(hk.Linear(3)(hidden))


def composed(**options):
    return make(SPEC, {"network": networks.compose(encode, value, draws=False), **options}, optimizer="sgd")


def learns(agent, steps=None, **fields):
    sample = random_sample(make_config(**fields), steps=steps)
    state = random_state(agent)
    after, output = learn(agent, sample, state=state)
    assert not equal(state.params, after.params)
    assert all(np.isfinite(leaf).all() for leaf in jax.tree.leaves((after, output)))
    return after


# --- Networks ---------------------------------------------------------------------------------------------------------


def test_a_haiku_transform_learns_and_acts():
    agent = make(SPEC, {"network": hk.transform(lambda observation: ValueOutput(hk.nets.MLP([4, 3])(observation)))})
    state = learns(agent)
    assert agent.act(jax.random.key(0), state, (), timestep(make_config())).action.shape == (4,)


@pytest.mark.parametrize("steps", [None, 3])
def test_a_composed_network_learns(steps):
    agent = composed()
    assert set(learns(agent, steps).params) == {"torso/linear", "head/linear"}


def test_a_composed_network_with_a_core():
    core = networks.lstm(num_actions=3, size=4)
    agent = make(SPEC, {"network": networks.compose(encode, value, core, draws=False)}, core="lstm", lstm_size=4)
    assert "lstm/linear" in jax.eval_shape(agent.init, jax.random.key(0)).params
    sample = random_sample(make_config(core="lstm", lstm_size=4), steps=2)
    state = jax.eval_shape(agent.init, jax.random.key(0))
    _, output = jax.eval_shape(agent.learn, jax.random.key(0), state, sample)
    assert output.priorities.shape == (4,)


def plain_array(observation):
    return hk.Linear(3)(observation)


def five_actions(observation):
    return ValueOutput(hk.Linear(5)(observation))


def no_batch(observation):
    return ValueOutput(hk.Linear(3)(observation)[0])


def plain_values(observation):
    return ValueOutput(hk.Linear(3)(observation))


@pytest.mark.parametrize(
    ("function", "fields", "error", "message"),
    [
        (
            plain_array,
            {},
            TypeError,
            r"got a .*from the network; expected a ValueOutput. Return ValueOutput\(",
        ),
        (five_actions, {}, ValueError, r"q_values have shape \(1, 5\).*expected \(1, 3\).*num_actions=3"),
        (no_batch, {}, ValueError, r"got q_values of shape \(3,\); expected \[B, A\] with B = 1"),
        (plain_values, {"head": "categorical"}, ValueError, r"no logits, from which the head Categorical learns"),
        (plain_values, {"head": "hl_gauss"}, ValueError, r"no logits, from which the head HLGauss learns"),
        (plain_values, {"head": "quantile"}, ValueError, r"no quantiles, from which the head Quantile learns"),
        (plain_values, {"head": "ensemble"}, ValueError, r"no members, from which the head Ensemble learns.*members="),
        (plain_values, {"core": "lstm"}, ValueError, r"network with no recurrent core.*expected both or neither.*none"),
    ],
)
def test_networks_whose_outputs_do_not_fit(function, fields, error, message):
    with pytest.raises(error, match=message):
        make(SPEC, {"network": hk.transform(function)}, **fields)


def test_a_network_with_a_core_for_an_agent_without_one():
    network = networks.compose(encode, value, networks.lstm(num_actions=3, size=4))
    with pytest.raises(ValueError, match=r"network with a recurrent core, and core is None.*Set core to lstm"):
        make(SPEC, {"network": network})


def test_a_function_that_is_no_transform():
    with pytest.raises(TypeError, match=r"got a function; expected the result of hk.transform"):
        make(SPEC, {"network": plain_values})


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"hidden_sizes": (8,)}, r"hidden_sizes: got \(8,\), .*network= replaces it; expected \(120, 84\)\."),
        ({"torso": "mlp"}, r"torso: got 'mlp', .*expected 'auto'\. Build torso into the network"),
        ({"activation": "tanh"}, "activation: got 'tanh'"),
        ({"dueling": True}, "dueling: got True, .*expected False"),
        ({"noisy_sigma": 0.5}, "noisy_sigma: got 0.5, .*expected None"),
        ({"head": "categorical", "v_min": -1.0, "v_max": 1.0}, "v_min: got -1.0, .*expected None"),
        ({"head": "ensemble", "prior_scale": 3.0}, "prior_scale: got 3.0, .*expected 1.0 or 0.0"),
    ],
)
def test_fields_that_a_given_network_does_not_read(fields, message):
    with pytest.raises(ValueError, match=message):
        make(SPEC, {"network": hk.transform(plain_values)}, **fields)


def test_a_lowering_that_a_given_network_does_not_read():
    with pytest.raises(ValueError, match=r"lowering: got 'patches', .*expected 'convolution'"):
        make(SPEC, {"network": hk.transform(plain_values), "lowering": "patches"})


def of_every_head(observation):
    """Output of five atoms, quantiles and members."""
    q_values = hk.Linear(3)(observation)
    taus, many = jnp.full((1, 5), 0.5), jnp.zeros((1, 5, 3))
    return ValueOutput(q_values, jnp.arange(5.0), jnp.zeros((1, 3, 5)), many, taus, many)


@pytest.mark.parametrize(
    ("head", "size", "field", "shapes"),
    [
        ("categorical", "num_atoms", "logits", r"\(1, 3, 5\).*expected \(1, 3, 7\)"),
        ("hl_gauss", "num_atoms", "logits", r"\(1, 3, 5\).*expected \(1, 3, 7\)"),
        ("quantile", "num_quantiles", "quantiles", r"\(1, 5, 3\).*expected \(1, 7, 3\)"),
        ("implicit_quantile", "num_quantiles", "quantiles", r"\(1, 5, 3\).*expected \(1, 7, 3\)"),
        ("ensemble", "num_members", "members", r"\(1, 5, 3\).*expected \(1, 7, 3\)"),
    ],
)
def test_numbers_of_a_head_that_a_given_network_does_not_have(head, size, field, shapes):
    options = {"network": hk.transform(of_every_head)}
    make(SPEC, options, head=head, **{size: 5})
    message = (
        f"network: its {field} have shape {shapes}, with {size}=7 .*Build the network with {size}=7, or set {size}"
    )
    with pytest.raises(ValueError, match=message):
        make(SPEC, options, head=head, **{size: 7})


def test_a_wrong_number_of_atoms_beside_the_right_logits():
    def fewer(observation):
        return of_every_head(observation)._replace(atoms=jnp.arange(4.0))

    with pytest.raises(ValueError, match=r"its atoms have shape \(4,\) .*expected \(5,\)"):
        make(SPEC, {"network": hk.transform(fewer)}, head="categorical", num_atoms=5)


# --- Module state -----------------------------------------------------------------------------------------------------


def normalising(observation, is_training):
    return jax.nn.relu(hk.BatchNorm(True, True, 0.5)(hk.Linear(4)(observation), is_training))


def averages(state):
    return np.asarray(state["torso/batch_norm/~/mean_ema"]["average"])


@pytest.mark.parametrize(
    ("rule", "module_state"),
    [
        ("periodic:3", "copied"),
        ("none", "own"),
        *(
            pytest.param(*each, marks=pytest.mark.slow)
            for each in (("periodic:3", "own"), ("incremental:0.5", "copied"), ("frozen", "own"))
        ),
    ],
)
def test_batch_norm_under_both_rules_of_module_state(rule, module_state):
    network = networks.compose(normalising, value, draws=False)
    agent = make(SPEC, {"network": network, "module_state": module_state}, target=rule, learning_rate=0.05)
    state, step = random_state(agent), jax.jit(agent.learn)
    before, online, slow = jax.tree.map(np.asarray, state), [averages(state.state)], []
    for number in range(1, 5):
        state, output = step(jax.random.key(number), state, random_sample(make_config(), seed=number))
        online.append(averages(state.state))
        slow.append(averages(state.targets["q"].state) if rule != "none" else None)
        assert all(np.isfinite(leaf).all() for leaf in jax.tree.leaves(output))
    assert not equal(before.params, state.params)
    assert all((one != other).any() for one, other in itertools.pairwise(online))
    if rule == "none":
        assert jax.tree.leaves(state.targets["q"].state) == []
    elif module_state == "own":
        # It moves at each step by the target's own parameters, whose forward pass is another once they differ.
        assert len({leaf.tobytes() for leaf in slow}) == 4
        assert (slow[-1] != online[-1]).any()
    elif rule == "frozen":
        assert [leaf.tolist() for leaf in slow] == [online[0].tolist()] * 4
    elif rule == "periodic:3":
        assert [leaf.tolist() for leaf in slow] == [online[number].tolist() for number in (0, 0, 3, 3)]
    else:
        assert [leaf.tolist() for leaf in slow] == [leaf.tolist() for leaf in online[1:]]


def test_acting_leaves_the_module_state_and_reads_it():
    network = networks.compose(normalising, value, draws=False)
    agent = make(SPEC, {"network": network})
    state = learns(agent)
    seen = timestep(make_config(), num_envs=16)
    moved = state._replace(state=jax.tree.map(lambda leaf: leaf - 3.0 if leaf.ndim == 2 else leaf, state.state))
    assert not equal(*(agent.act(jax.random.key(0), each, (), seen).action for each in (state, moved)))


# --- Terms ------------------------------------------------------------------------------------------------------------


def decay(key, views):
    """A term that reads the parameters: half their squared norm, for each transition."""
    norm = sum(jnp.sum(leaf**2) for leaf in jax.tree.leaves(views.variables.params)) / 2
    return TermOutput(jnp.full(len(views.sample.weights), norm), {"norm": norm})


def rewards(key, views):
    return TermOutput(views.steps.r_t[:, 0])


def test_the_gradient_of_a_term_is_its_weight_times_that_of_its_loss():
    fields = {"optimizer": "sgd", "learning_rate": 1.0}
    sample, plain = random_sample(make_config()), make(**fields)
    state = random_state(plain)
    without, output_without = learn(plain, sample, steps=1, state=state)
    for weight in (0.25, -0.5):
        agent = make(options={"terms": {"decay": (weight, decay)}}, **fields)
        found, output = learn(agent, sample, steps=1, state=state)
        for before, ours, theirs in zip(
            *map(jax.tree.leaves, (state.params, found.params, without.params)), strict=True
        ):
            np.testing.assert_allclose(ours, theirs - weight * before, rtol=1e-4, atol=1e-6)
        norm = sum(float((leaf**2).sum()) for leaf in jax.tree.leaves(state.params)) / 2
        assert float(output.metrics["norm"]) == pytest.approx(norm, rel=1e-5)
        assert float(output.metrics["loss/decay"]) == pytest.approx(norm, rel=1e-5)
        value_loss = float(output_without.metrics["loss"])
        assert float(output.metrics["loss/value"]) == pytest.approx(value_loss, rel=1e-5)
        assert float(output.metrics["loss"]) == pytest.approx(value_loss + weight * norm, rel=1e-5)
        assert equal(output.priorities, output_without.priorities)


def test_a_term_of_weight_0_changes_the_metrics_alone():
    sample = random_sample(make_config())
    without, output_without = learn(make(), sample, steps=2)
    found, output = learn(make(options={"terms": {"decay": (0.0, decay), "rewards": (0.0, rewards)}}), sample, steps=2)
    assert equal(found.params, without.params)
    assert equal(output.priorities, output_without.priorities)
    assert set(output.metrics) - set(output_without.metrics) == {"norm", "loss/value", "loss/decay", "loss/rewards"}
    for name in output_without.metrics:
        assert float(output.metrics[name]) == pytest.approx(float(output_without.metrics[name]), rel=1e-5)


def test_importance_weights_weight_terms_too():
    agent = make(options={"terms": {"rewards": (2.0, rewards)}})
    sample = random_sample(make_config())._replace(weights=np.float32([1, 0, 0, 0]))
    _, output = learn(agent, sample, steps=1)
    _, plain = learn(make(), sample, steps=1)
    wanted = float(plain.metrics["loss"]) + 2 * float(sample.transition.r_t[0]) / 4
    assert float(output.metrics["loss"]) == pytest.approx(wanted, rel=1e-5)


def test_each_term_has_a_key_of_its_own():
    def noise(key, views):
        return TermOutput(jax.random.normal(key, views.sample.weights.shape))

    terms = {"one": (1.0, noise), "other": (1.0, noise)}
    _, output = learn(make(options={"terms": terms}), random_sample(make_config()), steps=1)
    assert float(output.metrics["loss/one"]) != float(output.metrics["loss/other"])


@pytest.mark.parametrize("loss", [lambda r_t: r_t.mean(), lambda r_t: r_t, lambda r_t: r_t[:2, 0]])
def test_a_term_whose_loss_has_another_shape(loss):
    def term(key, views):
        return TermOutput(loss(views.steps.r_t))

    agent = make(options={"terms": {"mine": (1.0, term)}})
    state = jax.eval_shape(agent.init, jax.random.key(0))
    with pytest.raises(ValueError, match=r"terms.mine: got a loss of shape .*; expected \[B\], \(4,\)\. Return"):
        jax.eval_shape(agent.learn, jax.random.key(0), state, random_sample(make_config()))


@pytest.mark.parametrize(
    ("terms", "error", "message"),
    [
        ({"value": (1.0, rewards)}, ValueError, r"terms: got the name 'value', .*expected another name"),
        ({"mine": rewards}, TypeError, r"terms.mine: got a function; expected a weight and a term.*\{'mine': \(1.0, "),
        ({"mine": (rewards, 1.0)}, TypeError, r"terms.mine: got a tuple; expected a weight and a term"),
        ({"mine": (1.0, rewards, 2.0)}, TypeError, r"terms.mine: got a tuple; expected a weight and a term"),
        ({"mine": (float("nan"), rewards)}, ValueError, r"terms.mine: got the weight nan; expected a finite number"),
        ({"mine": (float("inf"), rewards)}, ValueError, r"terms.mine: got the weight inf; expected a finite number"),
        ({"mine": ("1", rewards)}, ValueError, r"terms.mine: got the weight '1'; expected a finite number"),
    ],
)
def test_terms_that_are_none(terms, error, message):
    with pytest.raises(error, match=message):
        make(options={"terms": terms})


@pytest.mark.parametrize("output", [lambda r_t: r_t[:, 0], lambda r_t: (r_t[:, 0], {}), lambda r_t: None])
def test_a_term_that_returns_no_term_output(output):
    agent = make(options={"terms": {"mine": (1.0, lambda key, views: output(views.steps.r_t))}})
    state = jax.eval_shape(agent.init, jax.random.key(0))
    with pytest.raises(TypeError, match=r"terms.mine: got a .*; expected a TermOutput. Return TermOutput\(loss\)"):
        jax.eval_shape(agent.learn, jax.random.key(0), state, random_sample(make_config()))


# --- Keys -------------------------------------------------------------------------------------------------------------


def bits(key):
    return tuple(jax.random.key_data(key).tolist())


def drawing(keys, num_members=0):
    """A network that draws from each key, and notes the keys that it is given and those that it draws from."""

    def drawn(key, shape):
        if key is None:
            return jnp.zeros(shape)
        keys.append(bits(key))
        keys.append(bits(jax.random.split(key)[1]))  # from which Haiku draws first
        return jax.random.normal(key, shape)

    def encode(params, state, key, observation, is_training):
        return observation + drawn(key, ()), state

    def value(params, state, key, hidden, observation, is_training):
        q_values = hidden[:, :1] * params["w"][None] + drawn(key, ())
        members = jnp.tile(q_values[:, None], (1, num_members, 1)) if num_members else ()
        return ValueOutput(q_values, members=members), state

    def init(key, observation):
        return {"w": jnp.ones(3)}, {}

    return networks.Network(init, encode, None, value, lambda batch: (), draws=True)


@pytest.mark.slow
def test_keys_of_terms_are_no_keys_of_the_network():
    of_network, of_terms = [], []

    def noise(key, views):
        of_terms.append(bits(key))
        return TermOutput(jax.random.normal(key, views.sample.weights.shape))

    agent = make(SPEC, {"network": drawing(of_network), "terms": {"one": (1.0, noise), "two": (1.0, noise)}})
    state = jax.tree.map(jnp.asarray, random_state(agent))
    of_network.clear()
    with jax.disable_jit():
        agent.learn(jax.random.key(0), state, random_sample(make_config()))
    assert len(of_terms) == 2
    assert len(of_network) == 5 * 4  # both networks at tm1 and again at t, the target at t
    assert len(set(of_network)) == 4 * 4  # where both see obs_t again, they share a key
    assert not set(of_network) & set(of_terms)


def test_keys_of_the_members_are_no_keys_of_the_network(monkeypatch):
    of_network, of_members = [], []
    agent = make(SPEC, {"network": drawing(of_network, num_members=3)}, head="ensemble", num_members=3)
    state, seen = random_state(agent), timestep(make_config())
    recurrent_state = agent.initial_recurrent_state(jax.random.key(1), 4)
    for name in ("randint", "bernoulli"):
        draw = getattr(jax.random, name)
        monkeypatch.setattr(
            jax.random,
            name,
            lambda key, *rest, draw=draw: (of_members.append(bits(key)), draw(key, *rest))[1],
        )
    of_network.clear()
    agent.act(jax.random.key(0), state, recurrent_state, seen)
    assert len(of_members) == 2
    assert len(of_network) == 4
    assert len(set(of_network)) == 4
    assert not set(of_network) & set(of_members)
