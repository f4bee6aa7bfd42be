"""A run that is restored from a snapshot goes on as if nothing had been; what cannot come back is said."""

import io

import jax
import numpy as np
import pytest
from gymnasium.vector import AutoresetMode, SyncVectorEnv

from polyak.experiments.environments.history import episode_seed
from polyak.experiments.environments.make import adapt, make
from scripted_environments import Told, Walk, draw


def stored(snapshot):
    """The snapshot after a journey through a file, without pickle."""
    file = io.BytesIO()
    np.savez(file, **snapshot)
    file.seek(0)
    return dict(np.load(file, allow_pickle=False))


BACKENDS = {
    "list": lambda n, seed: adapt([Walk() for _ in range(n)], seed),
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
            return adapt(envs)
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
    new_start, _ = Walk().reset(seed=episode_seed(0, 1, int(snapshot["episode"][1]) + 1))
    np.testing.assert_array_equal(timestep.observation[1], new_start)
    assert second.step(np.zeros(3, np.int64)).valid.all()


@pytest.mark.parametrize("change", [{"ends": (True, False)}, {"then": 1.0}, {"then": -0.0}, {"reward": 1.0}])
@pytest.mark.parametrize("vector", [False, True])
def test_any_difference_counts_as_not_come_back(vector, change):
    def build(**told):
        env = Told(**told)
        if not vector:
            return adapt([env])
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
        adapt([Walk()]).restore(snapshot)
    del snapshot["seed"]
    with pytest.raises(ValueError, match="snapshot: got the entries"):
        environments.restore(snapshot)
