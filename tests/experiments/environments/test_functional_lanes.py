"""Lanes of a functional environment: exact steps, resets, randomness and snapshots."""

import io

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from functional_environments import kind_of, legal_at, length_of, tale
from polyak.experiments.environments.functional.lanes import FunctionalEnvironments, advance, start
from polyak.experiments.environments.functional.names import NAMES
from polyak.experiments.environments.functional.types import FunctionalEnvironment, FunctionalStep
from polyak.experiments.environments.make import make
from polyak.replay.types import EnvironmentSpec

N, T = 4, 60
ACTIONS = np.random.default_rng(0).integers(0, 4, (T, N))


def equal(found, wanted):
    jax.tree.map(np.testing.assert_array_equal, found, wanted)


def played(environments, actions=ACTIONS):
    return [environments.reset(), *(environments.step(chosen) for chosen in actions)]


@pytest.mark.parametrize("masks", [False, True])
@pytest.mark.parametrize("dtype", [np.float32, np.uint8])
def test_steps_are_exact_and_only_ended_lanes_are_reset(masks, dtype):
    environments = FunctionalEnvironments(tale(masks=masks, dtype=dtype), N, seed=1)
    shown = environments.reset()
    assert shown.first.all()
    assert not shown.reward.any()
    kinds = set()
    for chosen in ACTIONS:
        number, t, *_ = np.int64(shown.observation).T
        step = environments.step(chosen)
        end, kind = t + 1 == length_of(number), kind_of(number)
        terminated = end & (kind != 1)
        kinds |= set(kind[end])
        np.testing.assert_array_equal(step.last, end)
        np.testing.assert_array_equal(step.discount_t, np.where(terminated, 0.0, 1.0))  # 0 also with both flags
        np.testing.assert_array_equal(step.obs_t[:, 0], number)  # the true next observation
        np.testing.assert_array_equal(step.obs_t[:, 1], t + 1)
        np.testing.assert_array_equal(step.r_t, 10 * (t + 1) + chosen + step.obs_t[:, 2] / np.float32(4))
        assert step.valid.all()
        after, began = step.timestep, np.asarray(step.timestep.observation)
        np.testing.assert_array_equal(after.first, end)
        np.testing.assert_array_equal(after.reward, np.where(end, 0, step.r_t))
        np.testing.assert_array_equal(began[~end], step.obs_t[~end])
        np.testing.assert_array_equal(began[end][:, 1:], 0)
        assert dtype == np.uint8 or (began[end][:, 0] != number[end]).all()  # of few numbers one may return
        if masks:
            np.testing.assert_array_equal(step.action_mask_t, legal_at(number, t + 1))
            np.testing.assert_array_equal(after.action_mask, legal_at(*np.int64(began.T[:2])))
        else:
            assert (step.action_mask_t, after.action_mask) == ((), ())
        assert [step.r_t.dtype, step.discount_t.dtype, step.obs_t.dtype] == [np.float32, np.float32, dtype]
        assert [array.dtype for array in after[:3]] == [dtype, np.float32, np.bool_]
        shown = after
    assert kinds == {0, 1, 2}


def test_the_host_and_a_compiled_loop_see_the_same_steps():
    environment = tale()
    environments = FunctionalEnvironments(environment, N, seed=3)
    environments.reset()

    def run(state):
        return jax.lax.scan(lambda state, chosen: advance(environment, state, chosen), state, jnp.int32(ACTIONS))

    state, steps = jax.jit(run)(environments.state)
    for index, chosen in enumerate(ACTIONS):
        equal(environments.step(chosen), jax.tree.map(lambda leaf, index=index: np.asarray(leaf)[index], steps))
    plain = jax.tree.map(
        lambda leaf: jax.random.key_data(leaf) if leaf.dtype == jax.random.key(0).dtype else leaf, state
    )
    wanted = {f"state{jax.tree_util.keystr(path)}": leaf for path, leaf in jax.tree_util.tree_leaves_with_path(plain)}
    equal({path: leaf for path, leaf in environments.snapshot().items() if path in wanted}, wanted)


def test_a_seed_determines_everything_and_lanes_steps_and_resets_differ():
    first, again, other = (FunctionalEnvironments(tale(), N, seed=seed) for seed in (5, 5, 6))
    story = played(first)
    equal(played(again), story)
    equal(again.reset(), first.reset())
    assert (other.reset().observation != story[0].observation)[:, 0].all()
    numbers = np.concatenate([first.reset().observation[:, 0] for _ in range(5)])
    numbers = [*numbers, *(step.timestep.observation[step.last, 0] for step in story[1:])]
    numbers = np.concatenate([np.atleast_1d(number) for number in numbers])
    assert len(np.unique(numbers)) == len(numbers) > 80
    noise = np.array([step.obs_t[:, 2:] for step in story[1:]])  # [T, N, 2]
    assert (noise[1:] != noise[:-1]).mean((0, 1)).min() > 0.9
    assert (noise[:, 1:] != noise[:, :-1]).mean((0, 1)).min() > 0.9
    assert (noise[..., 0] != noise[..., 1]).mean() > 0.9


def stored(snapshot):
    """The snapshot after it was written to a file and read again, without pickle."""
    file = io.BytesIO()
    np.savez(file, **snapshot)
    file.seek(0)
    return dict(np.load(file, allow_pickle=False))


def test_a_restored_run_equals_the_uninterrupted_one_to_the_bit():
    whole = FunctionalEnvironments(tale(), N, seed=2)
    whole.reset()
    story, kept = [], []
    for chosen in ACTIONS:
        story.append(whole.step(chosen))
        kept.append(stored(whole.snapshot()))
    later = whole.reset()
    again = FunctionalEnvironments(tale(), N, seed=99)
    for at in (0, 7, 8, T - 1):
        timestep, restarted = again.restore(kept[at])
        assert not restarted.any()
        equal(timestep, story[at].timestep)
        for index in range(at + 1, T):
            equal(again.step(ACTIONS[index]), story[index])
            equal(again.snapshot(), kept[index])
        equal(again.reset(), later)


def test_steps_change_no_snapshot_and_no_earlier_step():
    environments = FunctionalEnvironments(tale(), N)
    environments.reset()
    step, snapshot = environments.step(ACTIONS[0]), environments.snapshot()
    copies = jax.tree.map(np.array, (step, snapshot))
    for chosen in ACTIONS[1:9]:
        environments.step(chosen)
    equal((step, snapshot), copies)


def taken(environments):
    environments.reset()
    return environments.snapshot()


WRONG = {
    "lanes": (lambda: taken(FunctionalEnvironments(tale(), 3)), r"got .*\(3,.* of 4 x tale"),
    "name": (lambda: taken(FunctionalEnvironments(tale("other"), N)), "got a snapshot of other; expected tale"),
    "gymnasium": (lambda: taken(make("CartPole-v1", N)), "got a snapshot of no functional environment"),
    "dtype": (lambda: taken(FunctionalEnvironments(tale(dtype=np.uint8), N)), r"got uint8\(4, 4\) for state.timestep"),
    "masks": (
        lambda: taken(FunctionalEnvironments(tale(masks=False), N)),
        "got no array for state.timestep.action_mask",
    ),
}


@pytest.mark.parametrize("case", WRONG)
def test_a_snapshot_of_other_environments_is_refused(case):
    make_snapshot, message = WRONG[case]
    environments = FunctionalEnvironments(tale(), N)
    before = taken(environments)
    with pytest.raises(ValueError, match=f"snapshot: {message}"):
        environments.restore(make_snapshot())
    equal(environments.snapshot(), before)


def faulty(reward=0.0, observation=0.0, first=0.0):
    """A number is wrong at the second step; or the first observation of later episodes, or of all, is wrong."""

    def init(key):
        return jnp.int32(0), jnp.full(1, first)

    def step(key, state, action):
        wrong = state == 1
        obs_t, r_t = jnp.where(wrong, observation, jnp.zeros(1)), jnp.where(wrong, reward, jnp.float32(0))
        return state + 1, FunctionalStep(obs_t, r_t, jnp.bool_(False), jnp.bool_(False))

    spec = EnvironmentSpec(jax.ShapeDtypeStruct((1,), np.dtype(np.float32)), 2)
    return FunctionalEnvironment(spec, init, step, name="faulty")


@pytest.mark.parametrize("value", [np.nan, np.inf])
@pytest.mark.parametrize("field", ["reward", "observation"])
def test_a_number_that_is_not_finite_is_an_error_with_its_step(field, value):
    environments = FunctionalEnvironments(faulty(**{field: value}), 2)
    environments.reset()
    environments.step(np.zeros(2, np.int64))
    with pytest.raises(ValueError, match=r"faulty: .* not finite after 2 steps"):
        environments.step(np.zeros(2, np.int64))


def test_a_first_observation_that_is_not_finite_is_an_error():
    with pytest.raises(ValueError, match=r"faulty: .* not finite after 0 steps"):
        FunctionalEnvironments(faulty(first=np.nan), 2).reset()
    good = faulty()

    def init(key):  # the first episode alone starts well
        return jnp.int32(0), jnp.where(key_of(key), jnp.zeros(1), jnp.nan)

    def key_of(key):
        return (jax.random.key_data(key) == jax.random.key_data(jax.random.split(begun, 1)[0])).all()

    def step(key, state, action):
        after, outcome = good.step(key, state, action)
        return after, outcome._replace(truncated=jnp.bool_(True))

    environments = FunctionalEnvironments(good._replace(init=init, step=step), 1)
    begun = jax.random.split(jax.random.fold_in(environments._key, 0))[0]
    environments.reset()
    with pytest.raises(ValueError, match=r"faulty: .* not finite after 1 steps"):
        environments.step(np.zeros(1, np.int64))


def test_calls_in_the_wrong_order_and_wrong_actions_are_errors():
    environments = FunctionalEnvironments(tale(), 2)
    for call in (environments.snapshot, lambda: environments.step(np.zeros(2, np.int64))):
        with pytest.raises(RuntimeError, match=r"tale: \w+ was called before reset"):
            call()
    environments.reset()
    with pytest.raises(ValueError, match="got 4 for environment 1; expected 0 <= action < 4"):
        environments.step(np.array([0, 4]))
    with pytest.raises(TypeError, match="expected integers"):
        environments.step(np.zeros(2))


@pytest.mark.parametrize("make_environment", [tale, *NAMES.values()])
def test_types_are_stable_so_that_one_program_steps_forever(make_environment):
    environment, traced = make_environment(), []

    def step(key, state, action):
        traced.append(action)
        return environment.step(key, state, action)

    environments = FunctionalEnvironments(environment._replace(step=step), 2)
    environments.reset()
    for _ in range(3):
        environments.step(np.zeros(2, np.int64))
    environments.restore(environments.snapshot())
    environments.step(np.zeros(2, np.int64))
    assert len(traced) == 1
    begun = jax.eval_shape(lambda key: start(environment, key, 2), jax.random.key(0))
    later, result = jax.eval_shape(lambda state: advance(environment, state, jnp.zeros(2, jnp.int32)), begun)
    assert jax.tree.map(lambda leaf: (leaf.shape, leaf.dtype), later) == jax.tree.map(
        lambda leaf: (leaf.shape, leaf.dtype), begun
    )
    single = jax.eval_shape(environment.init, jax.random.key(0))[0]
    one = jax.eval_shape(environment.step, jax.random.key(0), single, jnp.int32(0))
    assert not any(leaf.weak_type for leaf in jax.tree.leaves((begun, result, single, one)))
    assert result.obs_t.shape == (2, *environment.spec.observation.shape)
    assert result.obs_t.dtype == environment.spec.observation.dtype
