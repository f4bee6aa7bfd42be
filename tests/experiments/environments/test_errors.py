"""What the adapters refuse, and the place and the way out that they name."""

import sys
import traceback
import types

import gymnasium as gym
import numpy as np
import pytest
from gymnasium.vector import AutoresetMode, SyncVectorEnv

from polyak.experiments.environments.make import adapt, make
from polyak.experiments.environments.types import EnvironmentFailure
from polyak.experiments.environments.vector import VectorEnvironments
from polyak.experiments.environments.worker import Recipe
from scripted_environments import Foreign, Told, Walk


class Mission(gym.Space):
    """Space of a package, as MiniGrid defines one: it does not say whether it can be flattened."""


def one(env):
    environments = adapt([env])
    return environments, environments.reset(), environments.step(np.array([1]))


@pytest.mark.parametrize(
    ("space", "hint"),
    [
        (gym.spaces.Dict(a=gym.spaces.Discrete(2)), "FlattenObservation"),
        (gym.spaces.Tuple([gym.spaces.Discrete(2)]), "FlattenObservation"),
        (gym.spaces.MultiDiscrete([2, 2]), "FlattenObservation"),
        (gym.spaces.Sequence(gym.spaces.Discrete(2)), "no fixed shape"),
        (gym.spaces.Graph(gym.spaces.Discrete(2), None), "no fixed shape"),
        (gym.spaces.Text(3), "expected Box or Discrete"),
        (Mission(), "no fixed shape"),
        (gym.spaces.Dict(image=gym.spaces.Box(0, 1, (2,)), mission=Mission()), "TransformObservation.*'image'"),
    ],
)
def test_observation_space_is_refused(space, hint):
    with pytest.raises(ValueError, match=rf"observation_space: got .*{hint}"):
        adapt(Told(space))


@pytest.mark.parametrize(
    "space", [gym.spaces.Box(0, 1, (2,)), gym.spaces.MultiDiscrete([2, 2]), gym.spaces.MultiBinary(2)]
)
def test_action_space_is_refused(space):
    with pytest.raises(ValueError, match=r"action_space: got .*; expected Discrete.*TransformAction"):
        adapt(Told(actions=space))


@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf, 1e300])
@pytest.mark.parametrize("vector", [False, True])
def test_non_finite_values_are_refused(value, vector):
    space = gym.spaces.Box(-np.inf, np.inf, (), np.float64)

    def build(**told):
        envs = [Told(space), Told(space, **told)]
        environments = adapt(SyncVectorEnv([lambda e=e: e for e in envs])) if vector else adapt(envs)
        return environments, envs[1]

    for name in ("reward", "observation"):
        environments, env = build()
        environments.reset()
        environments.step(np.array([0, 0]))
        setattr(env, {"reward": "reward", "observation": "then"}[name], value)
        with pytest.raises(ValueError, match=rf"environment 1, episode 0, step 2: {name}: got .*not finite"):
            environments.step(np.array([0, 0]))
    environments, _ = build(first=value)
    with pytest.raises(ValueError, match=r"environment 1, episode 0, step 0: observation: got .*not finite"):
        environments.reset()


@pytest.mark.parametrize(
    ("mode", "then", "first", "place"),
    [
        (AutoresetMode.SAME_STEP, np.nan, 0.0, "episode 0, step 1"),
        (AutoresetMode.NEXT_STEP, 0.0, np.nan, "episode 1, step 0"),
        (AutoresetMode.DISABLED, 0.0, np.nan, "episode 1, step 0"),
    ],
)
def test_non_finite_values_at_the_end_of_an_episode(mode, then, first, place):
    env = Told(then=then, ends=(True, False))
    environments = adapt(SyncVectorEnv([lambda: env], autoreset_mode=mode))
    environments.reset()
    env.first = first
    with pytest.raises(ValueError, match=rf"environment 0, {place}: observation: got nan"):
        [environments.step(np.array([0])) for _ in range(2)]


@pytest.mark.parametrize("reward", [None, "1", np.zeros(2)])
def test_reward_that_is_no_number(reward):
    with pytest.raises(TypeError, match=r"environment 0, episode 0, step 1: reward: got .*expected one number"):
        one(Told(reward=reward))


@pytest.mark.parametrize(
    ("space", "first", "then", "message"),
    [
        (gym.spaces.Box(0, 1, (2,)), np.zeros(2), np.zeros(1), r"got shape \(1,\); expected \(2,\)"),
        (gym.spaces.Box(0, 1, (2,)), np.zeros(2), 0.0, r"got shape \(\); expected \(2,\)"),
        (gym.spaces.Box(0, 1, (2,)), [0, 0], [[1], [1, 2]], r"expected an array of shape \(2,\)"),
        (gym.spaces.Box(0, 1, (2,)), [0, 0], ["a", "b"], "got dtype <U1; expected float32"),
        (gym.spaces.Box(0, 255, (2,), np.uint8), np.zeros(2, np.uint8), np.zeros(2), "float64; expected uint8"),
        (gym.spaces.Discrete(3), 0, 3, "got 3; expected 0 <= observation < 3"),
        (gym.spaces.Discrete(3), 0, 1.0, "got 1.0; expected an integer"),
    ],
)
def test_observation_outside_its_space(space, first, then, message):
    with pytest.raises(ValueError, match=f"environment 0, episode 0, step 1: observation: .*{message}"):
        one(Told(space, first=first, then=then))


def test_old_gym_api():
    class OldStep(Told):
        def step(self, action):
            return 0.0, 0.0, False, {}

    class OldReset(Told):
        def reset(self, *, seed=None, options=None):
            return np.zeros(())

    class OldSeed(Told):
        def reset(self):
            return np.zeros(())

    with pytest.raises(TypeError, match=r"step did not return 5 values.*old Gym API"):
        one(OldStep())
    with pytest.raises(TypeError, match=r"step returned 4 values.*old Gym API"):
        one(gym.wrappers.TimeLimit(OldStep(), 3))
    with pytest.raises(TypeError, match=r"reset did not return \(observation, info\).*old Gym API"):
        one(OldReset())
    with pytest.raises(TypeError, match=r"reset takes no seed.*old Gym API"):
        one(OldSeed())
    with pytest.raises(TypeError, match=r"got SimpleNamespace for environment 0.*old Gym API"):
        adapt([types.SimpleNamespace()])


def test_what_an_environment_raises_is_told_with_its_place_and_chained():
    class Broken(Told):
        def step(self, action):
            if action == self.reward:
                raise ValueError("out of fuel")
            return super().step(action)

        def reset(self, *, seed=None, options=None):
            if self.first is None:
                raise AssertionError
            return 0.0, {}

    environments = adapt([Told(), Broken(reward=1)])
    environments.reset()
    environments.step(np.array([1, 0]))
    message = r"^environment 1, episode 0, step 2, action 1: step raised ValueError: out of fuel$"
    with pytest.raises(EnvironmentFailure, match=message) as caught:
        environments.step(np.array([0, 1]))
    assert isinstance(caught.value.__cause__, ValueError)
    assert traceback.extract_tb(caught.value.__cause__.__traceback__)[-1].name == "step"  # nothing of it is lost
    assert caught.value.intact
    assert environments.snapshot()["length"].tolist() == [1, 1]  # as before the step
    with pytest.raises(EnvironmentFailure, match=r"^environment 0, episode 0, step 0: reset raised AssertionError$"):
        one(Broken(first=None))


@pytest.mark.parametrize("vector", [False, True])
def test_bad_actions_and_calls(vector):
    environments = adapt(SyncVectorEnv([Walk, Walk]) if vector else [Walk(), Walk()])
    for call in (lambda: environments.step(np.array([0, 0])), environments.snapshot):
        with pytest.raises(RuntimeError, match="not started; call reset"):
            call()
    environments.reset()
    with pytest.raises(ValueError, match=r"actions: got shape \(1,\); expected \(2,\)"):
        environments.step(np.array([0]))
    with pytest.raises(ValueError, match="actions: got 2 for environment 1; expected 0 <= action < 2"):
        environments.step(np.array([0, 2]))
    with pytest.raises(TypeError, match="actions: got dtype float64; expected integers"):
        environments.step(np.array([0.0, 1.0]))
    snapshot = environments.snapshot()
    environments.close()
    environments.close()
    for call in (
        lambda: environments.step(np.array([0, 0])),
        environments.reset,
        lambda: environments.restore(snapshot),
    ):
        with pytest.raises(RuntimeError, match="already closed"):
            call()


def test_bad_lists():
    with pytest.raises(ValueError, match="envs: got none"):
        adapt([])
    with pytest.raises(ValueError, match="one environment twice"):
        adapt([Walk()] * 2)
    with pytest.raises(ValueError, match=r"for environment 1; expected .* as for environment 0"):
        adapt([Walk(), Told()])


@pytest.mark.parametrize("seed", [-1, 2**63, True])
def test_bad_seed(seed):
    with pytest.raises(ValueError, match=r"seed: got .*; expected an integer, 0 <= seed"):
        adapt(Walk(), seed)


def test_autoreset_mode_must_be_known():
    env = Foreign([Walk])
    env.metadata = {}
    with pytest.raises(ValueError, match=r"autoreset_mode'\]: got None; expected one of AutoresetMode.NEXT_STEP"):
        adapt(env)
    with pytest.raises(TypeError, match=r"got Walk; expected a gymnasium.vector.VectorEnv"):
        VectorEnvironments(Walk())


def test_final_observations_must_be_there():
    env = Foreign([lambda: Told(ends=(True, False))])
    environments = adapt(env)
    environments.reset()
    plain = env.step
    env.step = lambda actions: (*plain(actions)[:4], {})
    with pytest.raises(ValueError, match=r"got no info\['final_obs'\]"):
        environments.step(np.array([0]))


@pytest.mark.parametrize(
    ("env_id", "message"),
    [
        ("CartPol-v1", "'CartPol-v1', which is not registered: .*The closest ids: CartPole-v1"),
        ("CartPole-v9", "which is not registered: .*CartPole-v1"),
        ("Nobody/Nothing-v0", "which is not registered"),
        ("what is this", "which is not registered"),
        ("nomodule:Foo-v0", "there is no module 'nomodule' in the working directory or on Python's path"),
    ],
)
def test_unknown_environment(env_id, message):
    with pytest.raises(ValueError, match=f"env: (got )?.*{message}"):
        make(env_id)


def test_missing_package(monkeypatch):
    def missing():
        raise gym.error.DependencyNotInstalled('Box2D is not installed, run `pip install "gymnasium[box2d]"`')

    def failing():
        raise gym.error.Error("no ROM")

    gym.register("Missing-v0", missing)
    gym.register("Failing-v0", failing)
    monkeypatch.setitem(sys.modules, "ale_py", None)
    try:
        with pytest.raises(ValueError, match=r"'Missing-v0' needs a package .*pip install \"gymnasium\[box2d\]\""):
            make("Missing-v0")
        with pytest.raises(EnvironmentFailure, match="'Failing-v0' could not be made: Error: no ROM"):
            make("Failing-v0")
        with pytest.raises(ValueError, match=r"'ALE/Pong-v5' needs a package .*`pip install ale-py`"):
            make("ALE/Pong-v5")
    finally:
        del gym.registry["Missing-v0"], gym.registry["Failing-v0"]


def test_arguments_that_the_constructor_does_not_take():
    message = r"'CartPole-v1' could not be made with {'gravity': 9}: TypeError: .*gravity"
    with pytest.raises(EnvironmentFailure, match=message):
        make(Recipe("CartPole-v1", {"gravity": 9}))


@pytest.mark.parametrize("num_envs", [0, -1, 1.5, True])
def test_bad_num_envs(num_envs):
    with pytest.raises(ValueError, match=r"num_envs: got .*; expected an integer >= 1"):
        make("CartPole-v1", num_envs)
