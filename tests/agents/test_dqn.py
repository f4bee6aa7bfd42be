"""DQN: its loss by hand, its options, its exploration, its errors."""

import dataclasses
import typing

import haiku as hk
import hypothesis
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import strategies
from hypothesis.extra.numpy import arrays

from polyak import networks
from polyak.agents import DQNConfig, dqn, epsilon_greedy, evaluation_state, make_optimizer
from polyak.agents.r2d2 import Remembered
from polyak.agents.shared import network_arguments
from polyak.replay import EnvironmentSpec, Sample, Sequence, TimeStep, Transition

SPEC = EnvironmentSpec(jax.ShapeDtypeStruct((2,), jnp.float32), num_actions=2)
STEPS = 1000


def make(spec=SPEC, network=None, **fields):
    config = DQNConfig(**{"hidden_sizes": (8,), "learning_rate_schedule": "constant", **fields})
    return dqn(config, spec, total_learner_steps=STEPS, network=network)


def table_network():
    """Q-values that are the observation times a diagonal of weights: every number of the loss can be done by hand."""

    def forward(observation):
        return networks.ValueOutput(observation * hk.get_parameter("w", (2,), init=jnp.ones)[None])

    return hk.transform(forward)


def sample(weights=(1.0, 1.0)):
    transition = Transition(
        obs_tm1=np.float32([[1.0, 2.0], [3.0, 4.0]]),
        a_tm1=np.int32([0, 1]),
        r_t=np.float32([0.5, -3.0]),
        discount_t=np.float32([0.5, 0.0]),
        obs_t=np.float32([[2.0, 6.0], [9.0, 9.0]]),
    )
    return Sample(transition, np.float32(weights), np.int64([0, 1]))


def learn_once(agent, batch, params=None, target_params=None):
    state = agent.init(jax.random.key(0))
    if params is not None:
        slow = state.targets["q"]._replace(params={"~": {"w": jnp.asarray(target_params, jnp.float32)}})
        state = state._replace(params={"~": {"w": jnp.asarray(params, jnp.float32)}}, targets={"q": slow})
    return agent.learn(jax.random.key(1), state, batch)


@pytest.mark.parametrize(
    ("double", "loss", "errors"),
    [
        # Online w = (1, 1), target w = (3, 1): the target's greedy action at obs_t = (2, 6) ties at 6 in neither; it
        # values (6, 6) there, while the online network prefers action 1 of (2, 6).
        (False, "squared", (0.5 + 0.5 * 8.0 - 1.0, -3.0 - 4.0)),
        (True, "squared", (0.5 + 0.5 * 6.0 - 1.0, -3.0 - 4.0)),
        (True, "huber", (0.5 + 0.5 * 6.0 - 1.0, -3.0 - 4.0)),
    ],
)
def test_the_loss_by_hand(double, loss, errors):
    agent = make(network=table_network(), double=double, loss=loss)
    _, output = learn_once(agent, sample(), params=[1.0, 1.0], target_params=[4.0, 1.0])
    np.testing.assert_allclose(output.priorities, np.abs(errors), rtol=1e-6)
    penalties = [0.5 * e * e if loss == "squared" else abs(e) - 0.5 for e in errors]
    assert float(output.metrics["loss"]) == pytest.approx(np.mean(penalties), rel=1e-6)
    assert float(output.metrics["td_error"]) == pytest.approx(np.mean(np.abs(errors)), rel=1e-6)
    assert float(output.metrics["q"]) == pytest.approx((2.0 + 4.0) / 2)


def test_importance_weights_weigh_the_loss():
    agent = make(network=table_network(), loss="squared", double=False)
    _, even = learn_once(agent, sample(), [1.0, 1.0], [4.0, 1.0])
    _, first = learn_once(agent, sample((1.0, 0.0)), [1.0, 1.0], [4.0, 1.0])
    _, second = learn_once(agent, sample((0.0, 1.0)), [1.0, 1.0], [4.0, 1.0])
    assert float(first.metrics["loss"]) == pytest.approx(0.5 * 0.5 * 3.5**2)
    assert float(first.metrics["loss"] + second.metrics["loss"]) == pytest.approx(float(even.metrics["loss"]))


def test_no_gradient_flows_through_the_bootstrap_value():
    # With the target none, target and online network are one; the gradient is still that of q(obs_tm1, a_tm1) alone.
    agent = make(
        network=table_network(),
        loss="squared",
        target="none",
        optimizer="sgd",
        learning_rate=1.0,
        max_gradient_norm=None,
    )
    state = agent.init(jax.random.key(0))
    after, _ = agent.learn(jax.random.key(1), state, sample())
    errors = (0.5 + 0.5 * 6.0 - 1.0, -3.0 - 4.0)
    wanted = [1.0 + 0.5 * errors[0] * 1.0, 1.0 + 0.5 * errors[1] * 4.0]
    np.testing.assert_allclose(after.params["~"]["w"], wanted, rtol=1e-6)


def test_epsilon_greedy_frequencies():
    uniform, greedy = jax.random.uniform(jax.random.key(0), (2, 30_000)), jnp.ones(30_000, jnp.int32)
    assert (epsilon_greedy(uniform, greedy, 0.0, 3) == 1).all()
    counts = np.bincount(epsilon_greedy(uniform, greedy, 0.3, 3), minlength=3) / 30_000
    np.testing.assert_allclose(counts, [0.1, 0.8, 0.1], atol=0.01)
    counts = np.bincount(epsilon_greedy(uniform, greedy, 1.0, 3), minlength=3) / 30_000
    np.testing.assert_allclose(counts, [1 / 3] * 3, atol=0.012)


@hypothesis.settings(deadline=None, derandomize=True)
@hypothesis.given(
    uniform=arrays(np.float32, (2, 4), elements=strategies.floats(0, float(np.float32(1 - 2**-24)), width=32)),
    epsilon=strategies.floats(0, 1),
    num_actions=strategies.integers(1, 1000),
)
def test_epsilon_greedy_is_the_same_on_host_and_device(uniform, epsilon, num_actions):
    action = np.zeros(4, np.int32)
    host = epsilon_greedy(uniform, action, epsilon, num_actions)
    device = epsilon_greedy(jnp.asarray(uniform), jnp.asarray(action), epsilon, num_actions)
    assert host.tolist() == device.tolist()
    assert host.dtype == device.dtype == np.int32
    assert ((host >= 0) & (host < num_actions)).all()


@pytest.mark.parametrize(
    ("fields", "of_online", "draws"),
    [
        ({"head": "implicit_quantile", "double": False}, [True, False, False], 3),
        ({"head": "implicit_quantile", "double": True}, [True, False, True], 3),
        ({"noisy": True, "double": False}, [True, False], 2),
        ({"noisy": True, "double": True}, [True, False, True], 3),
    ],
)
def test_whose_values_are_read_and_by_which_draw(fields, of_online, draws):
    # With implicit quantiles the action is chosen by other fractions than its value is bootstrapped from.
    config = DQNConfig(hidden_sizes=(8,), **fields)
    network, read = networks.value_network(**network_arguments(config, SPEC)), []

    def apply(params, key, observation):
        if key is not None:
            differentiated = isinstance(jax.tree.leaves(params)[0], jax.core.Tracer)
            read.append((differentiated, tuple(jax.random.key_data(key).tolist())))
        return network.apply(params, key, observation)

    agent = dqn(config, SPEC, total_learner_steps=10, network=hk.Transformed(network.init, apply))
    agent.learn(jax.random.key(1), agent.init(jax.random.key(0)), sample())
    assert [differentiated for differentiated, _ in read] == of_online
    assert len({key for _, key in read}) == draws


def test_keys_of_the_old_kind_are_keys():
    agent = make()
    old, new = agent.init(jax.random.PRNGKey(3)), agent.init(jax.random.key(3))
    jax.tree.map(np.testing.assert_array_equal, old.params, new.params)


def test_seeds_differ_and_one_seed_repeats():
    agent = make()
    first, again, other = (agent.init(jax.random.key(seed)) for seed in (0, 0, 1))
    same = jax.tree.map(lambda x, y: bool((x == y).all()), first.params, again.params)
    assert all(jax.tree.leaves(same))
    differ = jax.tree.map(lambda x, y: bool((x != y).any()), first.params, other.params)
    assert differ["torso/mlp/~/linear_0"]["w"]


def test_the_target_starts_as_a_copy_and_the_average_is_what_is_evaluated():
    agent = make(average="incremental:0.5", target="periodic:2", learning_rate=0.1)
    state = agent.init(jax.random.key(0))
    for name in ("q", "average"):
        for x, y in zip(jax.tree.leaves(state.params), jax.tree.leaves(state.targets[name].params), strict=True):
            assert (x == y).all()
    before = state.params
    state, _ = agent.learn(jax.random.key(1), state, sample())
    evaluated = evaluation_state(state).params
    for first, online, average in zip(*map(jax.tree.leaves, (before, state.params, evaluated)), strict=True):
        np.testing.assert_allclose(average, (first + online) / 2, rtol=1e-5, atol=1e-7)
    assert evaluation_state(make().init(jax.random.key(0))).targets.keys() == {"q"}


def test_images_go_through_the_nature_torso():
    spec = EnvironmentSpec(jax.ShapeDtypeStruct((84, 84, 4), jnp.uint8), num_actions=3)
    params = jax.eval_shape(make(spec).init, jax.random.key(0)).params
    assert any("conv" in name for name in params)
    assert not any("conv" in name for name in jax.eval_shape(make(spec, torso="mlp").init, jax.random.key(0)).params)


EFFECTS = {
    "hidden_sizes": (9,),
    "activation": "tanh",
    "head": "quantile",
    "dueling": True,
    "noisy": True,
    "noisy_sigma": 0.1,
    "num_atoms": 7,
    "v_min": -2.0,
    "v_max": 5.0,
    "num_quantiles": 7,
    "num_heads": 3,
    "prior_scale": 2.0,
    "memory": "lstm",
    "lstm_size": 3,
    "double": False,
    "loss": "huber",
    "value_rescaling": True,
    "munchausen": True,
    "munchausen_weight": 0.5,
    "munchausen_temperature": 1.0,
    "munchausen_clip": -1e-3,
    "optimizer": "sgd",
    "optimizer_epsilon": 0.1,
    "learning_rate": 0.05,
    "learning_rate_schedule": "linear",
    "max_gradient_norm": 1e-3,
    "target": "incremental:0.9",
    "average": "incremental:0.5",
}
MUNCHAUSEN = {"munchausen": True, "double": False, "n_steps": 1}
# What a field needs to be read at all.
NEEDS = {
    "noisy_sigma": {"noisy": True},
    "num_atoms": {"head": "categorical"},
    "v_min": {"head": "categorical"},
    "v_max": {"head": "hl_gauss"},
    "num_quantiles": {"head": "implicit_quantile"},
    "num_heads": {"head": "ensemble"},
    "prior_scale": {"head": "ensemble"},
    "munchausen": {"double": False, "n_steps": 1},
    "memory": {"n_steps": 1},
    "lstm_size": {"n_steps": 1, "memory": "lstm", "sequence_length": 2},
    "munchausen_weight": MUNCHAUSEN,
    "munchausen_temperature": MUNCHAUSEN,
    "munchausen_clip": MUNCHAUSEN,
}
ALONG = {"memory": {"sequence_length": 2}}  # what must change with a field
# The rest of the fields are the loop's; tests/experiments/loops/test_host.py shows that each of them matters.
OF_THE_LOOP = {
    "discount",
    "n_steps",
    "batch_size",
    "frame_stack",
    "sequence_length",
    "burn_in",
    "sequence_period",
    "mask_probability",
    "priority_exponent",
    "importance_exponent_initial",
    "importance_exponent_final",
    "replay_capacity",
    "learning_starts",
    "train_every",
    "learner_steps",
    "epsilon_initial",
    "epsilon_final",
    "epsilon_fraction",
    "normalize_observations",
    "normalize_rewards",
}


def test_every_field_is_listed():
    # tests/updates/test_skip_nonfinite.py has skip_nonfinite, which matters where something is not finite, and
    # tests/agents/test_augmentation.py augmentation.
    assert {field.name for field in dataclasses.fields(DQNConfig)} == {
        *EFFECTS,
        *OF_THE_LOOP,
        "torso",
        "skip_nonfinite",
        "augmentation",
    }


@pytest.mark.parametrize("field", EFFECTS)
def test_every_field_matters(field):
    def trained(**fields):
        fields = {"learning_rate": 0.1, "target": "periodic:7", **NEEDS.get(field, {}), **fields}
        agent = make(**fields)
        state, batch = agent.init(jax.random.key(0)), sample_for(agent, fields)
        learn = jax.jit(agent.learn)
        for key in jax.random.split(jax.random.key(1), 12):
            state, _ = learn(key, state, batch)
        return jax.tree.leaves((state.params, state.targets))

    base, changed = trained(), trained(**{field: EFFECTS[field]}, **ALONG.get(field, {}))
    same = [x.shape for x in base] == [x.shape for x in changed] and all(
        np.array_equal(x, y) for x, y in zip(base, changed, strict=True)
    )
    assert not same


def sample_for(agent, fields):
    """The two transitions, as steps of sequences for an agent with memory, and with masks for an ensemble."""
    batch = sample()
    if fields.get("head") == "ensemble":
        masks = np.ones((2, fields.get("num_heads", DQNConfig().num_heads)), np.float32)
        return batch._replace(transition=batch.transition._replace(extras_tm1={"mask": masks}))
    if fields.get("memory") != "lstm":
        return batch
    drawn, memory = batch.transition, agent.initial_memory(jax.random.key(0), 2)
    twice = (drawn.a_tm1, drawn.r_t, drawn.discount_t, np.ones(2, bool))
    steps = [np.stack([leaf, leaf], axis=1) for leaf in twice]
    obs = np.stack([drawn.obs_tm1, drawn.obs_t, drawn.obs_tm1], axis=1)
    extras = Remembered(memory, np.zeros(2, np.int32), np.zeros(2, np.float32))
    sequence = Sequence(obs, *steps, first=np.ones(2, bool), complete=np.ones(2, bool), extras=extras)
    return batch._replace(transition=sequence)


def test_one_trace_and_stable_dtypes():
    agent, traces = make(target="incremental:0.1", average="incremental:0.1"), []

    @jax.jit
    def learn(key, state, batch):
        traces.append(1)
        return agent.learn(key, state, batch)

    state = agent.init(jax.random.key(0))
    for _ in range(5):
        after, output = learn(jax.random.key(1), state, sample())
        assert jax.tree.map(lambda x: (x.shape, x.dtype), after) == jax.tree.map(lambda x: (x.shape, x.dtype), state)
        state = after
    assert len(traces) == 1
    assert np.isfinite(output.priorities).all()
    assert (output.priorities >= 0).all()


@pytest.mark.parametrize(
    ("fields", "error", "message"),
    [
        ({"hidden_sizes": ()}, ValueError, "hidden_sizes: got no layer"),
        ({"hidden_sizes": (0,)}, ValueError, r"hidden_sizes\[0\]: got 0"),
        ({"batch_size": 0}, ValueError, "batch_size: got 0; expected an integer >= 1"),
        ({"batch_size": 21_000}, ValueError, "batch_size: got 21000; expected at most replay_capacity, 20000"),
        ({"n_steps": 0}, ValueError, "n_steps: got 0"),
        ({"n_steps": 2.0}, TypeError, r"n_steps: got 2.0 \(float\)"),
        ({"train_every": -1}, ValueError, "train_every: got -1"),
        ({"learner_steps": 0}, ValueError, "learner_steps: got 0"),
        ({"learning_starts": -1}, ValueError, "learning_starts: got -1; expected an integer >= 0"),
        ({"discount": 1.1}, ValueError, "discount: got 1.1; expected 0 <= discount <= 1"),
        ({"discount": float("nan")}, ValueError, "discount: got nan"),
        ({"epsilon_final": -0.1}, ValueError, "epsilon_final: got -0.1"),
        ({"loss": "l1"}, ValueError, "loss: got 'l1'; expected huber or squared"),
        ({"optimizer": "adagrad"}, ValueError, "optimizer: got 'adagrad'; expected one of adam"),
        ({"learning_rate": 0.0}, ValueError, "learning_rate: got 0.0; expected a finite number > 0"),
        ({"max_gradient_norm": -1.0}, ValueError, "max_gradient_norm: got -1.0"),
        ({"learning_rate_schedule": "step"}, ValueError, "learning_rate_schedule: got 'step'"),
        ({"torso": "resnet"}, ValueError, "torso: got 'resnet'"),
        ({"target": "periodic:0.005"}, ValueError, "Did you mean 'incremental:0.005'"),
        ({"target": "encoder=frozen"}, ValueError, "got the name 'encoder'; this agent's targets are q"),
        ({"average": "incremental:3"}, ValueError, "average: .*Did you mean 'periodic:3'"),
        ({"target": "periodic:3env"}, ValueError, "The nearest that are: 2env or 4env"),
    ],
)
def test_bad_fields(fields, error, message):
    with pytest.raises(error, match=message):
        make(**fields)


def test_a_schedule_needs_the_length_of_the_run():
    with pytest.raises(
        ValueError, match="'cosine' falls over the learner steps of the run, and total_learner_steps is"
    ):
        make_optimizer(DQNConfig(learning_rate_schedule="cosine"), None)


def test_a_network_that_does_not_match_the_actions():
    def forward(observation):
        return networks.ValueOutput(hk.Linear(5)(observation))

    with pytest.raises(ValueError, match=r"q_values have shape \(1, 5\).*expected \(1, 2\).*num_actions=2"):
        make(network=hk.transform(forward))


def test_annotations_are_the_types_of_the_defaults():
    hints = typing.get_type_hints(DQNConfig)
    assert set(hints) == {field.name for field in dataclasses.fields(DQNConfig)}


def test_acting_takes_a_batch_of_environments():
    agent = make()
    state = agent.init(jax.random.key(0))
    timestep = TimeStep(jnp.ones((3, 2)), jnp.zeros(3), jnp.zeros(3, bool))
    acted = agent.act(jax.random.key(1), state, (), timestep)
    assert acted.action.shape == (3,)
    assert acted.action.dtype == jnp.int32
    assert acted.memory == acted.extras == ()
