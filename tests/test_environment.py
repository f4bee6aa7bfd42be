"""The adapters give the steps of a plain rollout, whatever the backend and the end of an episode."""

import io
import sys
import types

import cloudpickle
import gymnasium as gym
import jax
import numpy as np
import pytest
from gymnasium.vector import AsyncVectorEnv, AutoresetMode, SyncVectorEnv

from polyak.experiments import lanes
from polyak.experiments.environment import Environments, VectorEnvironments, adapt, make

# The workers of an AsyncVectorEnv get the classes of this file by value: they need not find the file.
cloudpickle.register_pickle_by_value(sys.modules[__name__])

MODES = list(AutoresetMode)


class Story(gym.Env):
    """Observations tell (environment, episode, step), rewards the same and the action; lengths are told."""

    def __init__(self, number=0, lengths=(3, 1, 4, 2), in_place=False, dtype=np.float32):
        self.observation_space = gym.spaces.Box(-np.inf, np.inf, (3,), dtype)
        self.action_space = gym.spaces.Discrete(4)
        self.number, self.lengths, self.in_place = number, lengths, in_place
        self.episode, self.buffer = -1, np.zeros(3, dtype)

    def observe(self):
        values = (self.number, self.episode, self.t)
        if not self.in_place:
            return np.array(values, self.buffer.dtype)
        self.buffer[:] = values
        return self.buffer

    def reset(self, *, seed=None, options=None):
        super().reset(seed=seed)
        self.episode, self.t = self.episode + 1, 0
        return self.observe(), {}

    def step(self, action):
        self.t += 1
        end = self.t == self.lengths[self.episode % len(self.lengths)]
        kind = self.episode % 3  # terminated, truncated, both
        reward = 100.0 * self.episode + 10 * self.t + int(action)
        return self.observe(), reward, end and kind != 1, end and kind != 0, {}


class Walk(gym.Env):
    """A random walk drawn from the environment's own generator; ``noise`` makes it forget its seed."""

    def __init__(self, noise=0.0):
        self.observation_space = gym.spaces.Box(-np.inf, np.inf, (2,), np.float32)
        self.action_space = gym.spaces.Discrete(2)
        self.noise, self.tremor = noise, np.random.default_rng()

    def reset(self, *, seed=None, options=None):
        super().reset(seed=seed)
        self.position = self.np_random.normal(size=2)
        return self.position.astype(np.float32), {}

    def step(self, action):
        self.position += (action - 0.5) + self.np_random.normal(size=2) + self.noise * self.tremor.normal(size=2)
        return self.position.astype(np.float32), float(self.position[0]), bool(self.np_random.random() < 0.1), False, {}


class Told(gym.Env):
    """Returns what it is told to: an observation, and reward, terminated, truncated."""

    def __init__(self, space=None, first=0.0, then=0.0, reward=0.0, ends=(False, False), actions=None):
        self.observation_space = space or gym.spaces.Box(-np.inf, np.inf, (), np.float32)
        self.action_space = actions or gym.spaces.Discrete(2)
        self.first, self.then, self.reward, self.ends, self.taken = first, then, reward, ends, []

    def reset(self, *, seed=None, options=None):
        self.seed = seed
        return self.first, {}

    def step(self, action):
        self.taken.append(action)
        return self.then, self.reward, *self.ends, {}


LANES = [
    {"number": 0, "lengths": (3, 1, 4, 2)},
    {"number": 1, "lengths": (1, 5, 2), "in_place": True},
    {"number": 2, "lengths": (1, 1, 3), "in_place": True},
]


def story(index, **changes):
    return Story(**LANES[index], **changes)


def reference(env, actions, seed=None):
    """What one environment does under actions, by hand: (obs_tm1, a, r, discount, last, obs_t) a step."""
    steps = []
    obs, _ = env.reset(seed=None if seed is None else seed(0))
    obs, episode = np.array(obs, np.float32).tolist(), 0
    for action in actions:
        nxt, reward, terminated, truncated, _ = env.step(action)
        nxt, last = np.array(nxt, np.float32).tolist(), terminated or truncated
        steps.append((obs, action, np.float32(reward), 0.0 if terminated else 1.0, last, nxt))
        obs = nxt
        if last:
            episode += 1
            obs, _ = env.reset(seed=None if seed is None else seed(episode))
            obs = np.array(obs, np.float32).tolist()
    return steps


def rollout(environments, actions, timestep=None):
    """The valid steps of each lane, and checks what the agent sees at every call."""
    streams = [[] for _ in range(environments.num_envs)]
    timestep = timestep or environments.reset()
    for chosen in actions:
        step = environments.step(chosen)
        for lane, stream in enumerate(streams):
            now, then = timestep.observation[lane].tolist(), step.timestep.observation[lane].tolist()
            record = (now, chosen[lane], step.r_t[lane], step.discount_t[lane], step.last[lane])
            if step.valid[lane]:
                stream.append((*record, step.obs_t[lane].tolist()))
            else:
                assert (step.r_t[lane], step.discount_t[lane], step.last[lane]) == (0, 1, False)
                assert step.timestep.first[lane]
            if not step.timestep.first[lane]:
                assert then == step.obs_t[lane].tolist()
            expected = 0 if step.timestep.first[lane] else step.r_t[lane]
            assert step.timestep.reward[lane] == expected
        dtypes = (step.r_t, step.discount_t, step.last, step.valid, step.timestep.reward, step.timestep.first)
        assert [str(x.dtype) for x in dtypes] == ["float32", "float32", "bool", "bool", "float32", "bool"]
        timestep = step.timestep
    return streams


def draw(num_steps, num_envs, num_actions=4):
    return np.random.default_rng(7).integers(num_actions, size=(num_steps, num_envs))


def assert_equals_reference(environments, num_steps=40):
    for lane, stream in enumerate(rollout(environments, draw(num_steps, environments.num_envs))):
        assert len(stream) >= num_steps // 2
        assert stream == reference(story(lane), [step[1] for step in stream])


# Steps


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
@pytest.mark.parametrize("num_envs", [1, 2, 3])
def test_list_equals_plain_rollout(num_envs, dtype):
    assert_equals_reference(Environments([story(i, dtype=dtype) for i in range(num_envs)]))


@pytest.mark.parametrize("copy", [True, False])
@pytest.mark.parametrize("mode", MODES)
def test_sync_equals_plain_rollout(mode, copy):
    env = SyncVectorEnv([lambda i=i: story(i) for i in range(3)], copy=copy, autoreset_mode=mode)
    assert_equals_reference(adapt(env))


@pytest.mark.parametrize("mode", MODES)
def test_async_equals_plain_rollout(mode):
    def build(i):
        # In the worker of a SAME_STEP vector, nobody but the environment's maker can save the last observation.
        env = story(i)
        return gym.wrappers.TransformObservation(env, np.copy, None) if mode == AutoresetMode.SAME_STEP else env

    fns = [lambda i=i: build(i) for i in range(3)]
    shared = mode != AutoresetMode.DISABLED
    env = AsyncVectorEnv(fns, context="forkserver", autoreset_mode=mode, shared_memory=shared)
    environments = adapt(env)
    try:
        assert_equals_reference(environments)
    finally:
        environments.close()


def test_async_same_step_refuses_observations_overwritten_in_the_worker():
    env = AsyncVectorEnv([lambda: story(1)], context="forkserver", autoreset_mode=AutoresetMode.SAME_STEP)
    environments = adapt(env)
    environments.reset()
    try:
        with pytest.raises(ValueError, match=r"environment 0, episode 0, step 1: the last .*TransformObservation"):
            environments.step(np.array([0]))
    finally:
        environments.close()


def test_equal_last_and_first_observation_passes_once_a_lane_has_proven_itself():
    env = Foreign([lambda: Told(first=1.0, then=2.0, ends=(True, False))])
    environments = adapt(env)
    environments.reset()
    assert environments.step(np.array([0])).obs_t == [2.0]
    env.sync.envs[0].then = 1.0
    assert environments.step(np.array([0])).obs_t == [1.0]


def test_equal_numbers_of_a_discrete_space_cannot_have_been_overwritten():
    environments = adapt(Foreign([lambda: Told(gym.spaces.Discrete(2), first=1, then=1, ends=(True, False))]))
    environments.reset()
    assert environments.step(np.array([0])).obs_t.tolist() == [[0, 1]]


class Foreign(gym.vector.VectorEnv):
    """A vector environment of another package: SAME_STEP, a dense final_obs without a mask, one seed for all."""

    def __init__(self, fns):
        self.sync = SyncVectorEnv(fns, autoreset_mode=AutoresetMode.SAME_STEP)
        self.metadata = {"autoreset_mode": AutoresetMode.SAME_STEP}
        self.num_envs = self.sync.num_envs
        for name in ("observation_space", "action_space", "single_observation_space", "single_action_space"):
            setattr(self, name, getattr(self.sync, name))

    def reset(self, *, seed=None, options=None):
        assert seed is None or isinstance(seed, int)
        return self.sync.reset(seed=seed)

    def step(self, actions):
        obs, reward, terminated, truncated, info = self.sync.step(actions)
        final = obs.copy()
        for lane in np.flatnonzero(terminated | truncated):
            final[lane] = info["final_obs"][lane]
        return obs, reward, terminated, truncated, {"final_obs": final}


def test_foreign_vector_with_dense_final_observations():
    fns = [lambda i=i: gym.wrappers.TransformObservation(story(i), np.copy, None) for i in range(3)]
    assert_equals_reference(adapt(Foreign(fns)))


def test_vector_wrappers_are_kept():
    env = SyncVectorEnv([lambda i=i: story(i) for i in range(3)], autoreset_mode=AutoresetMode.SAME_STEP)
    assert_equals_reference(adapt(gym.wrappers.vector.RecordEpisodeStatistics(env)))


def test_masked_reset_leaves_the_other_lanes_alone():
    class Drifting(gym.vector.VectorObservationWrapper):
        """As one that normalizes with running statistics: every call returns something else."""

        calls = 0

        def observations(self, observations):
            self.calls += 1
            return observations + self.calls

    fns = [lambda: Story(0, (2,)), lambda: Story(1, (3,))]
    environments = adapt(Drifting(SyncVectorEnv(fns, autoreset_mode=AutoresetMode.DISABLED)))
    rollout(environments, draw(20, 2))  # it checks that the agent sees obs_t where no episode ended


def test_next_step_spends_the_call_after_an_end_on_a_reset():
    env = SyncVectorEnv([lambda: Story(0, (2,)), lambda: Story(1, (3,))], autoreset_mode=AutoresetMode.NEXT_STEP)
    environments = adapt(env)
    environments.reset()
    steps = [environments.step(np.zeros(2, np.int64)) for _ in range(5)]
    assert [s.valid.tolist() for s in steps] == [[1, 1], [1, 1], [0, 1], [1, 0], [1, 1]]
    assert [s.last.tolist() for s in steps] == [[0, 0], [1, 0], [0, 1], [0, 0], [1, 0]]
    assert [s.timestep.first.tolist() for s in steps] == [[0, 0], [0, 0], [1, 0], [0, 1], [0, 0]]
    assert [s.obs_t[0].tolist() for s in steps] == [[0, 0, 1], [0, 0, 2], [0, 1, 0], [0, 1, 1], [0, 1, 2]]


def test_two_vectors_of_one_class_keep_their_modes():
    first = SyncVectorEnv([lambda: story(0)], autoreset_mode=AutoresetMode.SAME_STEP)
    second = SyncVectorEnv([lambda: story(0)], autoreset_mode=AutoresetMode.DISABLED)
    first.metadata = second.metadata  # as Gymnasium does by itself before 1.4
    assert_equals_reference(adapt(first), 20)


def test_async_without_shared_memory_refuses_the_reset_that_gymnasium_repeats():
    env = AsyncVectorEnv([lambda: story(1)], context="forkserver", shared_memory=False)
    environments = adapt(env)
    try:
        environments.reset()
        assert environments.step(np.array([0])).last
        with pytest.raises(RuntimeError, match=r"environments \[0\] have just ended"):
            environments.reset()
        assert environments.step(np.array([0])).timestep.first
        environments.reset()
    finally:
        environments.close()


def test_returned_arrays_are_kept_safe():
    for environments in (Environments([story(1)]), adapt(SyncVectorEnv([lambda: story(1)], copy=False))):
        kept = [environments.reset(), *(environments.step(np.array([0])) for _ in range(6))]
        flat = [jax.tree.leaves(x) for x in kept]
        before = [[np.array(x) for x in leaves] for leaves in flat]
        for _ in range(6):
            environments.step(np.array([1]))
        environments.reset()
        jax.tree.map(np.testing.assert_array_equal, flat, before)
        for i, leaves in enumerate(flat):
            assert not any(np.shares_memory(a, b) for a in leaves for other in flat[:i] for b in other)


# Spaces


def one(env):
    environments = Environments([env])
    return environments, environments.reset(), environments.step(np.array([1]))


def test_actions_are_counted_from_zero():
    env = Told(actions=gym.spaces.Discrete(3, start=3))
    environments, _, _ = one(env)
    environments.step(np.array([0], np.int32))
    environments.step(jax.numpy.array([2]))
    assert env.taken == [4, 3, 5]
    assert environments.spec.num_actions == 3
    vector = SyncVectorEnv([lambda: env, lambda: Told(actions=env.action_space)])
    environments = adapt(vector)
    environments.reset()
    environments.step(np.array([2, 0]))
    assert [single.taken for single in vector.envs] == [[4, 3, 5, 5], [3]]


def test_discrete_observations_are_one_hot():
    space = gym.spaces.Discrete(3, start=-1)
    environments, timestep, step = one(Told(space, first=-1, then=np.uint8(1), ends=(True, False)))
    assert environments.spec.observation == jax.ShapeDtypeStruct((3,), np.float32)
    assert (timestep.observation.tolist(), step.obs_t.tolist()) == ([[1, 0, 0]], [[0, 0, 1]])
    for mode in MODES:
        ends = [Told(space, first=-1, then=i, ends=(i == 1, False)) for i in (0, 1)]
        environments = adapt(SyncVectorEnv([lambda e=e: e for e in ends], autoreset_mode=mode))
        environments.reset()
        step = environments.step(np.array([0, 0]))
        assert step.obs_t.tolist() == [[0, 1, 0], [0, 0, 1]]
        assert step.obs_t.dtype == np.float32


@pytest.mark.parametrize("given", [np.float64, np.float32, np.float16, np.int64, np.int8, np.bool_, np.uint8])
def test_boxes_are_stored_as_float32_or_uint8(given):
    stored = np.uint8 if given == np.uint8 else np.float32
    value = np.array([[1, 0], [0, 1]], given)
    space = gym.spaces.Box(0, 1, (2, 2), given)
    environments, timestep, step = one(Told(space, first=value, then=value))
    assert environments.spec.observation == jax.ShapeDtypeStruct((2, 2), stored)
    for found in (timestep.observation, step.obs_t, step.timestep.observation):
        assert found.dtype == stored
        np.testing.assert_array_equal(found, value[None])


@pytest.mark.parametrize("reward", [2, 2.0, True, np.float64(2), np.int32(2), np.array([2.0]), np.array(2), [2.0]])
def test_rewards_are_coerced(reward):
    _, _, step = one(Told(reward=reward))
    assert step.r_t.tolist() == [float(np.asarray(reward).item())]


def test_rewards_of_shape_one_in_a_vector():
    env = Foreign([lambda: Told(reward=1.5)])
    environments = adapt(env)
    environments.reset()
    plain = environments._env.sync.step
    environments._env.sync.step = lambda actions: tuple(
        x[:, None] if i == 1 else x for i, x in enumerate(plain(actions))
    )
    assert environments.step(np.array([0])).r_t.tolist() == [1.5]


@pytest.mark.parametrize(("ends", "discount"), [((True, True), 0), ((True, False), 0), ((False, True), 1)])
def test_terminated_wins_over_truncated(ends, discount):
    _, _, step = one(Told(ends=ends))
    assert (step.discount_t.tolist(), step.last.tolist()) == ([discount], [True])


# Seeds


def seeds_of(num_envs, seed, episodes=4):
    envs = [Told(ends=(True, False)) for _ in range(num_envs)]
    environments = Environments(envs, seed)
    environments.reset()
    found = [[env.seed for env in envs]]
    for _ in range(episodes):
        environments.step(np.zeros(num_envs, np.int64))
        found.append([env.seed for env in envs])
    return np.array(found)


def test_every_lane_and_episode_has_a_seed_of_its_own():
    found = seeds_of(3, seed=5)
    assert len(np.unique(found)) == found.size
    assert ((found >= 0) & (found < 2**31)).all()
    np.testing.assert_array_equal(found, seeds_of(3, seed=5))
    np.testing.assert_array_equal(found[:, :2], seeds_of(2, seed=5))
    assert not np.isin(found, seeds_of(3, seed=6)).any()


@pytest.mark.parametrize("vector", [False, True])
def test_cartpole_lanes_equal_plain_rollouts(vector):
    if vector:
        fns = [lambda: gym.make("CartPole-v1", max_episode_steps=15)] * 3
        environments = adapt(SyncVectorEnv(fns, autoreset_mode=AutoresetMode.DISABLED), seed=11)
    else:
        environments = make("CartPole-v1", num_envs=3, seed=11, max_episode_steps=15)
    actions = draw(100, 3, 2)
    kinds = set()
    for lane, stream in enumerate(rollout(environments, actions)):
        env = gym.make("CartPole-v1", max_episode_steps=15)
        seeds = [lanes.episode_seed(11, lane, episode) for episode in range(100)]
        assert stream == reference(env, actions[:, lane].tolist(), seeds.__getitem__)
        kinds |= {(float(discount), bool(last)) for *_, discount, last, _ in stream}
    assert kinds == {(1, False), (1, True), (0, True)}


def test_cartpole_of_gymnasium_as_a_vector_of_its_own():
    env = gym.make_vec("CartPole-v1", num_envs=3, vectorization_mode="vector_entry_point")
    environments = adapt(env, seed=1)
    streams = rollout(environments, draw(60, 3, 2))
    single = gym.make("CartPole-v1").unwrapped
    for stream in streams:
        assert any(step[4] for step in stream)
        for obs_tm1, action, _, _, _, obs_t in stream:
            single.reset()
            single.state = obs_tm1
            np.testing.assert_allclose(single.step(action)[0], obs_t, rtol=1e-5, atol=1e-6)


# Snapshots


def stored(snapshot):
    """The snapshot after a journey through a file, without pickle."""
    file = io.BytesIO()
    np.savez(file, **snapshot)
    file.seek(0)
    return dict(np.load(file, allow_pickle=False))


BACKENDS = {
    "list": lambda n, seed: Environments([Walk() for _ in range(n)], seed),
    "sync": lambda n, seed: adapt(SyncVectorEnv([Walk] * n, autoreset_mode=AutoresetMode.DISABLED), seed),
    "cartpole": lambda n, seed: make("CartPole-v1", n, seed),
}


@pytest.mark.parametrize("num_envs", [1, 3])
@pytest.mark.parametrize("backend", BACKENDS)
def test_restored_run_equals_uninterrupted(backend, num_envs):
    actions = draw(60, num_envs, 2)
    whole = BACKENDS[backend](num_envs, 3)
    kept = [(whole.reset(), stored(whole.snapshot()))]
    for chosen in actions:
        step = whole.step(chosen)
        kept.append((step, stored(whole.snapshot())))
    lengths = np.array([snapshot["length"] for _, snapshot in kept])
    assert num_envs == 1 or ((lengths == 0).any(axis=1) & (lengths > 0).any(axis=1)).any()
    again = BACKENDS[backend](num_envs, seed=99)
    for start, (expected, snapshot) in enumerate(kept):
        timestep, restarted = again.restore(snapshot)
        assert not restarted.any()
        jax.tree.map(np.testing.assert_array_equal, timestep, expected.timestep if start else expected)
        for chosen, (expected, snapshot) in zip(actions[start : start + 9], kept[start + 1 :], strict=False):
            jax.tree.map(np.testing.assert_array_equal, again.step(chosen), expected)
            jax.tree.map(np.testing.assert_array_equal, again.snapshot(), snapshot)


@pytest.mark.parametrize("vector", [False, True])
def test_lane_that_cannot_come_back_starts_a_new_episode(vector):
    def build():
        envs = [Walk(), Walk(noise=1.0), Walk()]
        if not vector:
            return Environments(envs)
        return adapt(SyncVectorEnv([lambda e=e: e for e in envs], autoreset_mode=AutoresetMode.DISABLED))

    first = build()
    first.reset()
    for chosen in draw(5, 3, 2):
        step = first.step(chosen)
    snapshot = first.snapshot()
    assert snapshot["length"][1] > 0
    second = build()
    with pytest.warns(UserWarning, match=r"environments \[1\] did not come back"):
        timestep, restarted = second.restore(snapshot)
    assert restarted.tolist() == [False, True, False]
    assert timestep.first.tolist() == (restarted | step.timestep.first).tolist()
    assert timestep.reward[1] == 0
    np.testing.assert_array_equal(timestep.observation[[0, 2]], step.timestep.observation[[0, 2]])
    new_start, _ = Walk().reset(seed=lanes.episode_seed(0, 1, int(snapshot["episode"][1]) + 1))
    np.testing.assert_array_equal(timestep.observation[1], new_start)
    assert second.step(np.zeros(3, np.int64)).valid.all()


@pytest.mark.parametrize("change", [{"ends": (True, False)}, {"then": 1.0}, {"then": -0.0}, {"reward": 1.0}])
@pytest.mark.parametrize("vector", [False, True])
def test_any_difference_counts_as_not_come_back(vector, change):
    def build(**told):
        env = Told(**told)
        if not vector:
            return Environments([env])
        return adapt(SyncVectorEnv([lambda: env], autoreset_mode=AutoresetMode.DISABLED))

    first = build()
    first.reset()
    first.step(np.array([0]))
    with pytest.warns(UserWarning, match="did not come back"):
        _, restarted = build(**change).restore(first.snapshot())
    assert restarted.all()


@pytest.mark.parametrize("mode", [AutoresetMode.NEXT_STEP, AutoresetMode.SAME_STEP])
def test_vectors_that_reset_themselves_start_new_episodes(mode):
    def build():
        return adapt(SyncVectorEnv([Walk, Walk], autoreset_mode=mode), seed=4)

    first = build()
    begin = first.reset()
    first.step(np.array([0, 1]))
    with pytest.warns(UserWarning, match=r"AutoresetMode.DISABLED"):
        timestep, restarted = build().restore(stored(first.snapshot()))
    assert restarted.all()
    assert timestep.first.all()
    assert not np.isin(timestep.observation, begin.observation).any()


def test_snapshot_of_other_environments_is_refused():
    environments = make("CartPole-v1")
    environments.reset()
    snapshot = environments.snapshot()
    with pytest.raises(ValueError, match=r"snapshot: got observations float32\[1, 4\]; expected float32\[2, 4\]"):
        make("CartPole-v1", 2).restore(snapshot)
    with pytest.raises(ValueError, match=r"expected float32\[1, 2\]"):
        Environments([Walk()]).restore(snapshot)
    del snapshot["seed"]
    with pytest.raises(ValueError, match="snapshot: got the entries"):
        environments.restore(snapshot)


# Errors


@pytest.mark.parametrize(
    ("space", "hint"),
    [
        (gym.spaces.Dict(a=gym.spaces.Discrete(2)), "FlattenObservation"),
        (gym.spaces.Tuple([gym.spaces.Discrete(2)]), "FlattenObservation"),
        (gym.spaces.MultiDiscrete([2, 2]), "FlattenObservation"),
        (gym.spaces.Sequence(gym.spaces.Discrete(2)), "no fixed shape"),
        (gym.spaces.Graph(gym.spaces.Discrete(2), None), "no fixed shape"),
        (gym.spaces.Text(3), "expected Box or Discrete"),
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
        environments = adapt(SyncVectorEnv([lambda e=e: e for e in envs])) if vector else Environments(envs)
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


def test_errors_of_an_environment_pass_through():
    class Broken(Told):
        def step(self, action):
            raise ValueError("out of fuel")

        def reset(self, *, seed=None, options=None):
            if self.reward:
                raise TypeError("no road")
            return 0.0, {}

    with pytest.raises(ValueError, match=r"^out of fuel$"):
        one(Broken())
    with pytest.raises(TypeError, match=r"^no road$"):
        one(Broken(reward=1.0))


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
        ("nomodule:Foo-v0", "pip install nomodule"),
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
        with pytest.raises(gym.error.Error, match="no ROM"):
            make("Failing-v0")
        with pytest.raises(ValueError, match=r"'ALE/Pong-v5' needs a package .*`pip install ale-py`"):
            make("ALE/Pong-v5")
    finally:
        del gym.registry["Missing-v0"], gym.registry["Failing-v0"]


@pytest.mark.parametrize("num_envs", [0, -1, 1.5, True])
def test_bad_num_envs(num_envs):
    with pytest.raises(ValueError, match=r"num_envs: got .*; expected an integer >= 1"):
        make("CartPole-v1", num_envs)
