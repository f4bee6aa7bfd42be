"""Functional environments of other packages do under polyak's type what they do by themselves."""

import importlib.util
import sys
from types import SimpleNamespace
from typing import NamedTuple

import gymnasium as gym
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from gymnasium.experimental.functional import FuncEnv

from polyak.experiments.environments.functional.adapters import from_func_env, from_gymnax
from polyak.experiments.environments.functional.lanes import FunctionalEnvironments

KEY = jax.random.key(7)


class WalkState(NamedTuple):
    place: object
    steps: object


class Walk(FuncEnv):
    """A walk between 5 and 9 that slips at times; it terminates at 9. Its numbers begin at 5, its actions at -1."""

    observation_space = gym.spaces.Discrete(5, start=5)
    action_space = gym.spaces.Discrete(3, start=-1)

    def initial(self, rng, params=None):
        return WalkState(jax.random.randint(rng, (), 5, 8), 0)  # a Python number, as in Gymnasium's own

    def transition(self, state, action, rng, params=None):
        slip = jax.random.bernoulli(rng, 0.25 if params is None else params["slip"])
        return WalkState(jnp.clip(state.place + jnp.where(slip, 0, action), 5, 9), state.steps + 1)

    def observation(self, state, rng, params=None):
        return state.place

    def reward(self, state, action, next_state, rng, params=None):
        return 10 * action + (next_state.place - state.place)

    def terminal(self, state, rng, params=None):
        return state.place == 9


class Board(Walk):
    observation_space = gym.spaces.Box(0, 1, (2,), np.int8)

    def observation(self, state, rng, params=None):
        return jnp.stack([state.place > 6, jax.random.bernoulli(rng)])


def test_a_func_env_steps_as_its_methods_say():
    environment = from_func_env(Walk())
    assert environment.spec.observation == jax.ShapeDtypeStruct((5,), np.float32)
    assert (environment.spec.num_actions, environment.name) == (3, "Walk")
    state, observation = environment.init(KEY)
    assert observation.tolist() == [float(place == state.place) for place in range(5, 10)]
    state = state._replace(place=jnp.int32(7))
    keys = jax.random.split(KEY, 200)
    for action, number in ((0, -1), (1, 0), (2, 1)):
        after, outcome = jax.vmap(environment.step, (0, None, None))(keys, state, jnp.int32(action))
        assert set(np.asarray(after.place)) == {7, 7 + number}
        np.testing.assert_array_equal(outcome.obs_t.argmax(1) + 5, after.place)
        np.testing.assert_array_equal(outcome.r_t, 10 * number + (after.place - 7))
        slipped = (after.place == 7).mean()
        assert number == 0 or 0.1 < slipped < 0.4
        assert not (outcome.terminated | outcome.truncated).any()
    _, outcome = jax.vmap(environment.step, (0, None, None))(keys, state._replace(place=jnp.int32(8)), jnp.int32(2))
    np.testing.assert_array_equal(outcome.terminated, outcome.obs_t[:, 4] == 1)
    assert outcome.terminated.any()
    assert outcome.r_t.dtype == np.float32
    assert jax.eval_shape(environment.init, KEY)[0].steps.weak_type is False


def test_parameters_reach_the_methods_and_a_limit_truncates():
    environment = from_func_env(Walk(), params={"slip": 1.0}, max_episode_steps=3, name="mud")
    assert environment.name == "mud"
    environments = FunctionalEnvironments(environment, 2)
    start = environments.reset().observation
    lasts = []
    for _ in range(6):
        step = environments.step(np.array([2, 0]))
        lasts.append(step.last.tolist())
        np.testing.assert_array_equal(step.obs_t, start)  # all steps slip
        assert (step.discount_t == 1).all()
        start = step.timestep.observation
    assert lasts == [[False] * 2, [False] * 2, [True] * 2] * 2


def test_numbers_that_are_no_images_become_float32():
    environment = from_func_env(Board())
    assert environment.spec.observation == jax.ShapeDtypeStruct((2,), np.float32)
    _, outcome = jax.vmap(environment.step, (0, None, None))(
        jax.random.split(KEY, 50), environment.init(KEY)[0], jnp.int32(2)
    )
    assert outcome.obs_t.dtype == np.float32
    assert set(np.asarray(outcome.obs_t)[:, 1]) == {0.0, 1.0}  # the observation has a key of its own


def test_gymnasiums_own_functional_cartpole():
    pytest.importorskip("flax", reason="Gymnasium's functional CartPole needs flax")
    from gymnasium.envs.phys2d.cartpole import CartPoleFunctional, CartPoleParams

    env = CartPoleFunctional()
    for params in (None, CartPoleParams(x_threshold=0.01)):
        environment = from_func_env(env, params=params)
        state, observation = environment.init(KEY)
        np.testing.assert_array_equal(observation, state)
        assert (np.abs(state) <= 0.05).all()
        extra = () if params is None else (params,)
        for action in (0, 1):
            after, outcome = environment.step(KEY, state, jnp.int32(action))
            wanted = env.transition(state, action, None, *extra)
            np.testing.assert_allclose(after, wanted, rtol=1e-6)
            np.testing.assert_allclose(outcome.obs_t, wanted, rtol=1e-6)
            assert outcome.terminated == env.terminal(wanted, None, *extra)
            assert outcome.r_t == env.reward(state, action, wanted, None, *extra)


def changed(**members):
    return type("Changed", (Walk,), members)()


def branching(self, state, action, rng, params=None):
    return state._replace(place=state.place + 1 if action > 0 else state.place)


def floating(self, state, action, rng, params=None):
    return state._replace(place=state.place + 0.5)


WRONG = {
    "class": (lambda: Walk, TypeError, "expected an instance of gymnasium.experimental.functional.FuncEnv"),
    "actions": (lambda: changed(action_space=gym.spaces.Box(0, 1)), ValueError, r"action_space: .* expected Discrete"),
    "shape": (
        lambda: changed(observation_space=gym.spaces.Box(0, 1, (3,))),
        ValueError,
        r"Changed: .*observation: got shape \(\); expected \(3,\)",
    ),
    "dtype": (
        lambda: changed(observation_space=gym.spaces.Box(0, 255, (), np.uint8)),
        ValueError,
        r"Changed: .*got dtype int32; expected uint8",
    ),
    "branch": (lambda: changed(transition=branching), ValueError, r"Changed: JAX cannot trace .*jax\.numpy"),
    "state": (
        lambda: changed(transition=floating),
        ValueError,
        r"a step changes the state.place from .*int32.*float32",
    ),
}


@pytest.mark.parametrize("case", WRONG)
def test_a_func_env_that_does_not_fit_is_an_error_before_any_step(case):
    make, error, message = WRONG[case]
    with pytest.raises(error, match=message):
        from_func_env(make())


class Params(NamedTuple):
    max_steps_in_episode: int = 5


class GymnaxLike:
    """An environment with the methods of gymnax 1.x: bool images; terminates at 3, truncates at the limit."""

    name, default_params = "Like", Params()

    def action_space(self, params):
        return gym.spaces.Discrete(2)

    def observation_space(self, params):
        return gym.spaces.Box(0, 1, (2, 2, 1))

    def shown(self, state):
        return jnp.arange(4).reshape(2, 2, 1) < state["place"]

    def reset_env(self, key, params):
        return self.shown({"place": 0}), {"place": 0, "time": 0}

    def step_env(self, key, state, action, params):
        state = {"place": state["place"] + action, "time": state["time"] + 1}
        return self.shown(state), state, 2 * action, state["place"] >= 3, {}

    def is_truncated(self, state, params):
        return state["time"] >= params.max_steps_in_episode

    def step(self, *arguments):
        raise AssertionError("it would reset")


def test_termination_and_truncation_of_gymnax_stay_apart():
    environment = from_gymnax(GymnaxLike())
    assert environment.spec.observation == jax.ShapeDtypeStruct((2, 2, 1), np.float32)  # not uint8
    environments = FunctionalEnvironments(environment, 2)
    assert not environments.reset().observation.any()
    steps = [environments.step(np.array(actions)) for actions in ([1, 0], [1, 0], [1, 0], [0, 1], [0, 1])]
    assert [step.last.tolist() for step in steps] == [[False] * 2] * 2 + [[True, False]] + [[False] * 2, [False, True]]
    assert steps[2].discount_t.tolist() == [0, 1]
    assert steps[4].discount_t.tolist() == [1, 1]
    assert steps[2].obs_t[0].sum() == 3  # the last observation
    assert steps[4].obs_t[1].sum() == 2
    assert not steps[2].timestep.observation[0].any()
    assert [step.r_t.tolist() for step in steps[2:4]] == [[2, 0], [0, 2]]
    both = from_gymnax(GymnaxLike(), Params(max_steps_in_episode=3))
    ended = FunctionalEnvironments(both, 2)
    ended.reset()
    step = [ended.step(np.array([1, 0])) for _ in range(3)][-1]
    assert step.last.tolist() == [True, True]
    assert step.discount_t.tolist() == [0, 1]


def gymnax_like(**members):
    return type("GymnaxChanged", (GymnaxLike,), members)()


def test_an_environment_of_gymnax_that_does_not_fit_is_an_error():
    old = SimpleNamespace(**{name: getattr(GymnaxLike(), name) for name in ("reset_env", "step_env", "default_params")})
    with pytest.raises(ValueError, match=r"gymnax before 1\.0.*Install gymnax 1\.0 or later"):
        from_gymnax(old)
    with pytest.raises(TypeError, match="expected the name of an environment of gymnax"):
        from_gymnax(3)
    with pytest.raises(ValueError, match=r"gymnax/Like has the action space Box.*expected Discrete"):
        from_gymnax(gymnax_like(action_space=lambda self, params: gym.spaces.Box(0, 1)))
    with pytest.raises(ValueError, match=r"gymnax/Like has observations of .*expected one array"):
        from_gymnax(gymnax_like(reset_env=lambda self, key, params: ({"a": jnp.zeros(1)}, {"place": 0, "time": 0})))


def test_without_gymnax_the_error_names_the_extra(monkeypatch):
    monkeypatch.setitem(sys.modules, "gymnax", None)
    with pytest.raises(ValueError, match=r'needs the package gymnax.*pip install "polyak\[gymnax\]".*Gymnasium < 1\.4'):
        from_gymnax("Breakout-MinAtar")


needs_gymnax = pytest.mark.skipif(
    importlib.util.find_spec("gymnax") is None, reason="needs the extra gymnax: pip install '.[gymnax]'"
)


@needs_gymnax
@pytest.mark.parametrize(
    ("name", "kwargs"),
    [
        ("CartPole-v1", {"max_steps_in_episode": 20}),
        ("Breakout-MinAtar", {"use_minimal_action_set": False, "max_steps_in_episode": 9}),
        ("FrozenLake-misc", {}),
        ("DeepSea-bsuite", {"size": 6}),
    ],
)
def test_every_step_equals_that_of_gymnax(name, kwargs):
    import gymnax

    own = {key: value for key, value in kwargs.items() if key != "max_steps_in_episode"}
    env, params = gymnax.make(name, **own)
    params = params.replace(**{key: value for key, value in kwargs.items() if key not in own})
    environment = from_gymnax(name, **kwargs)
    assert environment.name == f"gymnax/{name}"
    assert environment.spec.num_actions == env.action_space(params).n
    assert environment.spec.observation.dtype == np.float32

    def stored(observation):
        is_number = name == "FrozenLake-misc"
        return jax.nn.one_hot(observation, 16) if is_number else jnp.asarray(observation, jnp.float32)

    def one(state, key):
        action_key, key = jax.random.split(key)
        action = jax.random.randint(action_key, (), 0, environment.spec.num_actions)
        _, following, r_t, terminated, truncated, info = env.step(key, state, action, params)
        after, outcome = environment.step(jax.random.split(key)[0], state, action)
        wanted = (stored(info["final_observation"]), jnp.float32(r_t), terminated, truncated)
        return jax.tree.map(lambda new, old: jnp.asarray(new, old.dtype), following, after), (outcome, wanted)

    def run(key):
        state, first = environment.init(key)
        steps = jax.lax.scan(one, state, jax.random.split(key, 100))[1]
        return (first, stored(env.reset_env(key, params)[0])), steps

    first, (outcome, wanted) = jax.jit(jax.vmap(run))(jax.random.split(KEY, 8))
    np.testing.assert_array_equal(*first)
    for found, expected in zip(outcome, wanted, strict=True):
        # Some versions of XLA round the two copies of a step in one program differently, in the last digit.
        np.testing.assert_allclose(found, expected, rtol=1e-5, atol=1e-6)
    assert (outcome.terminated | outcome.truncated).any()
    assert outcome.truncated.any() or "max_steps_in_episode" not in kwargs


@needs_gymnax
def test_names_and_keyword_arguments_of_gymnax_that_do_not_exist():
    with pytest.raises(ValueError, match=r"got 'gymnax/Brekout-MinAtar'.*Did you mean 'Breakout-MinAtar'"):
        from_gymnax("Brekout-MinAtar")
    with pytest.raises(ValueError, match=r"env_kwargs: got 'speed'; gymnax/DeepSea-bsuite takes .*size.*max_steps"):
        from_gymnax("DeepSea-bsuite", speed=3)
    with pytest.raises(ValueError, match=r"gymnax/DeepSea-bsuite' could not be made with .*size"):
        from_gymnax("DeepSea-bsuite", size="wide")
