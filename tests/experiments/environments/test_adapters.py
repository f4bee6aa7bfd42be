"""The adapters give the steps of a plain rollout, whatever the backend and the end of an episode."""

import gymnasium as gym
import jax
import numpy as np
import pytest
from gymnasium.vector import AsyncVectorEnv, AutoresetMode, SyncVectorEnv

from polyak.experiments.environments.history import episode_seed
from polyak.experiments.environments.make import adapt, make
from polyak.experiments.environments.worker import Recipe
from polyak.experiments.loops.episodes import EpisodeStatistics
from scripted_environments import Foreign, Story, Told, assert_equals_reference, draw, reference, rollout, story

MODES = list(AutoresetMode)


# Steps


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
@pytest.mark.parametrize("num_envs", [1, 2, 3])
def test_list_equals_plain_rollout(num_envs, dtype):
    assert_equals_reference(adapt([story(i, dtype=dtype) for i in range(num_envs)]))


def test_a_thousand_environments_equal_plain_rollouts_and_are_counted():
    number = 1000
    environments = adapt([Story(lane, (1 + lane % 7, 3)) for lane in range(number)])
    counted = EpisodeStatistics.initial(number)
    actions, step = draw(12, number), environments.step

    def counting(chosen):
        outcome = step(chosen)
        counted.add(0, outcome)
        return outcome

    environments.step = counting
    streams = rollout(environments, actions)
    ends = 0
    for lane, stream in enumerate(streams):
        assert stream == reference(Story(lane, (1 + lane % 7, 3)), actions[:, lane].tolist())
        lasts = [row[4] for row in stream]
        ends += sum(lasts)
        assert counted.running_length[lane] == (lasts[::-1].index(True) if any(lasts) else len(stream))
    assert counted.episodes == ends


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
    for environments in (adapt([story(1)]), adapt(SyncVectorEnv([lambda: story(1)], copy=False))):
        kept = [environments.reset(), *(environments.step(np.array([0])) for _ in range(6))]
        flat = [jax.tree.leaves(x) for x in kept]
        before = [[np.array(x) for x in leaves] for leaves in flat]
        for _ in range(6):
            environments.step(np.array([1]))
        environments.reset()
        jax.tree.map(np.testing.assert_array_equal, flat, before)
        for i, leaves in enumerate(flat):
            pairs = [(a, b) for a in leaves for other in flat[:i] for b in other]
            assert not any(np.shares_memory(a, b) and (a.flags.writeable or b.flags.writeable) for a, b in pairs)


# Spaces


def one(env):
    environments = adapt([env])
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
    environments = adapt(envs, seed)
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
        environments = make(Recipe("CartPole-v1", {"max_episode_steps": 15}), num_envs=3, seed=11)
    actions = draw(100, 3, 2)
    kinds = set()
    for lane, stream in enumerate(rollout(environments, actions)):
        env = gym.make("CartPole-v1", max_episode_steps=15)
        seeds = [episode_seed(11, lane, episode) for episode in range(100)]
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
