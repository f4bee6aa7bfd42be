"""Statistics of observations and rewards: against plain NumPy over everything that was shown, each thing once."""

import shutil

import gymnasium
import hypothesis
import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from gymnasium.vector import AutoresetMode, SyncVectorEnv
from hypothesis import strategies as st

import polyak
from polyak import networks, updates
from polyak.agents import ActOutput, Agent, make_configs
from polyak.experiments.environments.make import adapt
from polyak.experiments.environments.types import EnvironmentStep
from polyak.experiments.loops import normalization
from polyak.experiments.loops.evaluation import evaluate
from polyak.experiments.loops.normalization import Moments, Normalization, Scaling
from polyak.replay import EnvironmentSpec, TimeStep, Transition
from polyak.updates import LossOutput, Target
from scripted_environments import LANES, Story, draw
from small_runs import begin, run_loop

DISCOUNT = 0.9


def spec_of(*shape, dtype=np.float32):
    return EnvironmentSpec(jax.ShapeDtypeStruct(shape, dtype), num_actions=4)


@hypothesis.settings(deadline=None, max_examples=60)
@hypothesis.given(
    chunks=st.lists(st.integers(0, 5), min_size=1, max_size=12).filter(sum),
    offset=st.sampled_from([0.0, -3.0, 1e6]),
    scale=st.sampled_from([1e-3, 1.0, 1e4]),
    seed=st.integers(0, 2**32 - 1),
)
def test_moments_of_chunks_are_those_of_the_whole(chunks, offset, scale, seed):
    rows = np.random.default_rng(seed).normal(offset, scale, (sum(chunks), 2)).astype(np.float32)
    statistics = normalization.initial(spec_of(2), 1, observations=True, rewards=False)
    for part in np.split(rows, np.cumsum(chunks)[:-1]):
        statistics = normalization.observe(statistics, part)
    count, mean, variance = statistics.observation
    whole = rows.astype(np.float64)
    assert count == len(rows)
    assert {leaf.dtype for leaf in (mean, variance)} == {np.dtype(np.float64)}
    np.testing.assert_allclose(mean, whole.mean(axis=0), rtol=1e-12, atol=1e-12 * scale)
    # 1e6 +- 1e-3 in float32 is a single value: then the variance is exactly 0 in both.
    np.testing.assert_allclose(variance, whole.var(axis=0), rtol=1e-8, atol=1e-14 * scale**2)


class Diary(Story):
    """Notes every observation it shows, and the discounted return at every step."""

    def __init__(self, **told):
        super().__init__(**told)
        self.observed, self.returns, self.running = [], [], 0.0

    def observe(self):
        self.observed.append((self.number, self.episode, self.t))
        return super().observe()

    def step(self, action):
        result = super().step(action)
        self.running = DISCOUNT * self.running + result[1]
        self.returns.append(self.running)
        self.running *= not (result[2] or result[3])
        return result


@pytest.mark.parametrize("mode", [None, *AutoresetMode])
def test_every_observation_counts_once_and_every_step_once(mode):
    diaries = [Diary(**told) for told in LANES]
    lanes = [lambda diary=diary: diary for diary in diaries]
    shown = adapt(diaries if mode is None else SyncVectorEnv(lanes, autoreset_mode=mode))
    for diary in diaries:
        diary.observed.clear()  # a vector environment may try one out
    statistics = normalization.initial(shown.spec, 3, observations=True, rewards=True)
    statistics = normalization.observe(statistics, shown.reset().observation)
    for chosen in draw(41, 3):
        statistics = normalization.add(statistics, shown.step(chosen), DISCOUNT)
    observed = [observation for diary in diaries for observation in diary.observed]
    returns = [so_far for diary in diaries for so_far in diary.returns]
    assert statistics.observation.count == len(observed)
    np.testing.assert_allclose(statistics.observation.mean, np.mean(observed, axis=0), rtol=1e-10)
    np.testing.assert_allclose(statistics.observation.variance, np.var(observed, axis=0), rtol=1e-10)
    assert statistics.returns.count == len(returns)
    np.testing.assert_allclose(statistics.returns.mean, np.mean(returns), rtol=1e-10)
    np.testing.assert_allclose(statistics.returns.variance, np.var(returns), rtol=1e-10)
    np.testing.assert_allclose(statistics.running_return, [diary.running for diary in diaries], rtol=1e-10)


def test_an_environment_that_began_anew():
    statistics = Normalization(
        Moments(np.array(2.0), np.array([0.0, 4.0]), np.array([1.0, 0.0])),
        Moments(np.array(1.0), np.array(5.0), np.array(0.0)),
        np.array([5.0, 7.0]),
    )
    timestep = TimeStep(np.float32([[9.0, 9.0], [3.0, 1.0]]), np.zeros(2, np.float32), np.ones(2, np.bool_))
    after = normalization.restart(statistics, timestep, np.array([False, True]))
    assert after.running_return.tolist() == [5.0, 0.0]
    assert after.returns == statistics.returns
    assert after.observation.count == 3
    assert after.observation.mean.tolist() == [1.0, 3.0]
    np.testing.assert_allclose(after.observation.variance, [8 / 3, 2.0])  # of (-1, 1, 3) and (4, 4, 1)


def test_the_return_of_an_environment_that_was_restarted_begins_anew():
    spec = EnvironmentSpec(jax.ShapeDtypeStruct((1,), np.float32), num_actions=2)
    before = normalization.initial(spec, 2, observations=True, rewards=True)
    before = before._replace(running_return=np.array([5.0, 7.0]))
    shown, valid = np.float32([[1], [2]]), np.array([True, False])
    seen = TimeStep(shown, np.float32([1, 0]), ~valid)
    outcome = EnvironmentStep(
        np.float32([1, 0]), np.ones(2, np.float32), np.zeros(2, bool), shown, seen, valid, restarted=~valid
    )
    after = normalization.add(before, outcome, discount=0.5)
    assert after.running_return.tolist() == [3.5, 0.0]
    assert int(after.returns.count) == 1
    assert int(after.observation.count) == 2  # what was stepped to, and what the new episode began with


def test_what_is_off_is_left_alone():
    environments = adapt([Story(), Story()])
    off = normalization.initial(environments.spec, 2, observations=False, rewards=False)
    assert jax.tree.leaves(off) == []
    timestep = environments.reset()
    outcome = environments.step(np.array([0, 1]))
    assert normalization.add(off, outcome, DISCOUNT) == normalization.observe(off, timestep.observation) == off
    by = normalization.scaling(off)
    assert jax.tree.leaves(by) == []
    seen = normalization.normalize_timestep(by, timestep)
    assert all(seen[i] is timestep[i] for i in range(len(timestep)))
    transition = Transition(*(np.ones(2, np.float32) for _ in range(5)))
    assert all(x is y for x, y in zip(normalization.normalize_drawn(by, transition), transition, strict=True))


def test_normalised_by_hand_on_the_host_and_under_a_trace():
    statistics = Normalization(
        Moments(np.array(9.0), np.array([1.0, 100.0]), np.array([4.0, 0.0])),
        Moments(np.array(9.0), np.array(50.0), np.array(16.0)),
        np.zeros(1),
    )
    by = normalization.scaling(statistics)
    transition = Transition(
        obs_tm1=np.float32([[[2.0, 100.0]], [[-99.0, 101.0]]]),  # [K, B, 2]
        a_tm1=np.int32([[0], [1]]),
        r_t=np.float32([[2.0], [-400.0]]),
        discount_t=np.float32([[0.9], [0.0]]),
        obs_t=np.float32([[[1.0, 100.0]], [[5.0, 0.0]]]),
    )
    on_host = normalization.normalize_drawn(by, transition)
    traced = jax.jit(normalization.normalize_drawn)(by, transition)
    assert on_host.obs_tm1.tolist() == [[[0.5, 0.0]], [[-10.0, 10.0]]]  # (-99 - 1) / 2 is clipped
    assert on_host.obs_t.tolist() == [[[0.0, 0.0]], [[2.0, -10.0]]]
    assert on_host.r_t.tolist() == [[0.5], [-10.0]]  # divided, not centred
    for x, y, raw in zip(on_host, traced, transition, strict=True):
        np.testing.assert_array_equal(x, y)
        assert np.asarray(x).dtype == np.asarray(y).dtype == np.asarray(raw).dtype
    assert isinstance(on_host.obs_t, np.ndarray)
    seen = normalization.normalize_timestep(by, TimeStep(transition.obs_tm1[0], transition.r_t[0], np.array([False])))
    assert (seen.observation.tolist(), seen.reward.tolist()) == ([[0.5, 0.0]], [0.5])
    jnp_seen = normalization.normalize_observation(Scaling(jnp.array(1.0), jnp.array(2.0)), jnp.arange(3.0))
    assert jnp_seen.tolist() == [-2.0, 0.0, 2.0]


def test_images_are_refused():
    with pytest.raises(ValueError, match=r"normalize_observations: got observations of uint8\(84, 84, 4\).*leave it"):
        normalization.initial(spec_of(84, 84, 4, dtype=np.uint8), 1, observations=True, rewards=False)
    normalization.initial(spec_of(84, 84, 4, dtype=np.uint8), 1, observations=False, rewards=True)


# --- In runs ----------------------------------------------------------------------------------------------------------

BOTH = ("normalize_observations", "normalize_rewards")
FIELDS = {
    "steps": 400,
    "log_every": 200,
    "hidden_sizes": (8,),
    "batch_size": 8,
    "learning_starts": 50,
    "evaluation_episodes": 3,
}


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    folder = tmp_path_factory.mktemp("normalised") / "run"
    return polyak.train(out=folder, **dict.fromkeys(BOTH, True), **FIELDS)


@pytest.mark.slow
def test_training_moves_the_statistics_and_evaluation_reads_them(run):
    with np.load(run.folder / "parameters.npz") as arrays:
        found = {name.removeprefix("normalization/"): arrays[name] for name in arrays if "normalization" in name}
    assert {str(array.dtype) for array in found.values()} == {"float64"}
    # One observation at the start, one a step, one after each episode's end; none of the evaluation's.
    assert found["observation/count"] == 1 + 400 + run.metrics["episodes"][-1]
    assert found["returns/count"] == 400
    deviation = np.sqrt(found["returns/variance"] + 1e-8)
    assert run.metrics["reward_scale"][-1] == pytest.approx(1 / deviation, rel=1e-6)
    assert 1 / 50 < run.metrics["reward_scale"][-1] < 1  # a reward of 1 a step, discounted by 0.99
    assert polyak.evaluate(run, episodes=3)["returns"] == run.evaluation["returns"]
    assert np.load(run.folder / "parameters.npz")["normalization/returns/count"] == 400


@pytest.mark.slow
def test_what_acts_sees_normalised_observations(run, tmp_path):
    for name in ("config.json", "metrics.jsonl", "evaluation.json"):
        shutil.copy(run.folder / name, tmp_path / name)
    with np.load(run.folder / "parameters.npz") as found:
        arrays = {name: np.zeros_like(found[name]) for name in found}
    # One hidden unit is x, another -x, and action 1 is worth the first, action 0 the second: it acts by the sign of x.
    arrays["params/torso/mlp/~/linear_0/w"][0, :2] = 1, -1
    arrays["params/head/q_values/w"][:2] = [0, 1], [1, 0]
    arrays["normalization/observation/mean"][0] = 5
    np.savez(tmp_path / "parameters.npz", **arrays)
    act = polyak.load(tmp_path).act
    assert [act([x, 0, 0, 0]) for x in (-1, 1, 4.9, 5.1, 9)] == [0, 0, 0, 1, 1]


@pytest.mark.slow
def test_a_warm_start_goes_on_with_the_statistics(run, tmp_path):
    with np.load(run.folder / "parameters.npz") as arrays:
        before = {name: arrays[name] for name in arrays.files if name.startswith("normalization/observation")}
    second = polyak.train(out=tmp_path / "second", initial=run, **dict.fromkeys(BOTH, True), **FIELDS)
    with np.load(second.folder / "parameters.npz") as arrays:
        after = {name: arrays[name] for name in before}
    added = after["normalization/observation/count"] - before["normalization/observation/count"]
    assert added == before["normalization/observation/count"]  # as many steps of its own, of the same seed
    with pytest.raises(ValueError, match=r"initial: .*normalization/observation/count: got .*; .*has nothing"):
        polyak.train(out=tmp_path / "raw", initial=run, **FIELDS)


def test_an_export_says_how_to_normalise(run, tmp_path):
    exported = polyak.load_exported(polyak.export(run, tmp_path / "export"))
    said, arrays = exported.manifest["normalization"], exported.arrays
    mean, variance = arrays[said["mean"]], arrays[said["variance"]]
    network = networks.value_network(**exported.manifest["network"]["arguments"])
    params = {}
    for name, array in arrays.items():
        if name.startswith("params/"):
            module, leaf = name.removeprefix("params/").rsplit("/", 1)
            params.setdefault(module, {})[leaf] = array
    for observation in np.random.default_rng(0).normal(mean, np.sqrt(variance), (30, *mean.shape)):
        seen = np.clip((observation - mean) / np.sqrt(variance + said["epsilon"]), -said["clip"], said["clip"])
        q_values = network.apply(params, None, np.float32(seen)[None]).q_values[0]
        assert run.act(np.float32(observation)) == int(np.argmax(q_values))


def no_actions(variables, sample):
    return jnp.full(sample.weights.shape, -1)


def test_what_is_acted_on_is_normalised_with_all_that_was_shown_so_far():
    targets = {"q": Target(updates.none())}
    learner = updates.learner(lambda *_: (jnp.zeros(()), LossOutput()), optax.sgd(1.0), targets)

    def act(key, state, recurrent_state, timestep):  # keeps what it sees
        seen = {"seen": timestep.observation, "reward": timestep.reward}
        return ActOutput(jnp.zeros(timestep.reward.shape, jnp.int32), recurrent_state, seen)

    agent = Agent(lambda key: learner.init({}), lambda key, num_envs: (), act, learner.step, targets, act, no_actions)
    configs = make_configs(
        "n_step_double_dqn", fields={"discount": DISCOUNT, "epsilon": 0, **dict.fromkeys(BOTH, True)}
    )
    _, carry, _ = run_loop(configs, adapt([Story(number=1), Story(number=2)]), agent, steps=40)
    plain, observed, returns, running = adapt([Story(number=1), Story(number=2)]), [], [], np.zeros(2)
    timestep, drawn = plain.reset(), [[], []]
    observed += list(timestep.observation)
    for _ in range(20):
        variance = np.var(returns) if returns else 0.0
        for lane in range(2):
            deviation = np.sqrt(np.var(observed, axis=0, dtype=np.float64) + 1e-8)
            seen = (timestep.observation[lane] - np.mean(observed, axis=0, dtype=np.float64)) / deviation
            reward = timestep.reward[lane] / np.sqrt(variance + 1e-8)
            drawn[lane].append(np.clip([*seen, reward], -10, 10))
        outcome = plain.step(np.zeros(2, np.int32))
        observed += [*outcome.obs_t, *outcome.timestep.observation[outcome.last]]
        running = running * DISCOUNT + outcome.r_t
        returns += running.tolist()
        running[outcome.last] = 0
        timestep = outcome.timestep
    extras, starts = carry.replay.extras, ~carry.replay.boundary
    kept = np.concatenate([extras["seen"], extras["reward"][:, None]], axis=1)[starts]
    np.testing.assert_allclose(kept, np.concatenate(drawn), rtol=1e-4, atol=1e-4)


def test_images_end_before_the_first_step():
    class Image(gymnasium.Env):
        observation_space = gymnasium.spaces.Box(0, 255, (84, 84, 4), np.uint8)
        action_space = gymnasium.spaces.Discrete(2)

    configs = make_configs("n_step_double_dqn", fields={"normalize_observations": True})
    with pytest.raises(ValueError, match="normalize_observations: got observations of uint8"):
        begin(configs, adapt([Image()]))


class Far(gymnasium.Env):
    """The action is to match the sign; observations are far from 0 and far apart, rewards in thousands."""

    observation_space = gymnasium.spaces.Box(-np.inf, np.inf, (2,), np.float32)
    action_space = gymnasium.spaces.Discrete(2)

    def reset(self, *, seed=None, options=None):
        super().reset(seed=seed)
        self.sign = int(self.np_random.choice([-1, 1]))
        return np.float32([3e4 + 1e4 * self.sign, -1e-3 * self.sign]), {}

    def step(self, action):
        return np.float32([3e4, 0]), 1000.0 * (2 * action - 1) * self.sign, True, False, {}


@pytest.mark.slow
def test_a_world_of_another_scale_is_learnt():
    fields = {
        "hidden_sizes": (16,),
        "n_steps": 1,
        "batch_size": 32,
        "learning_rate": "linear(0.003,0,100%)",
        "target": "periodic:50",
        "learning_starts": 100,
        "train_every": 8,
        "learner_steps": 4,
        "epsilon": 1,
        **dict.fromkeys(BOTH, True),
    }
    configs, environment = make_configs("n_step_double_dqn", fields=fields), adapt([Far()])
    agent, carry, [_, record] = run_loop(
        configs, environment, steps=2_000, record_every=1_000, total_learner_steps=1_000
    )
    assert record["reward_scale"] == pytest.approx(1e-3, rel=0.1)
    assert abs(record["q"]) < 2  # in units of the return's deviation
    frozen = jax.tree.map(np.copy, carry.normalization)
    by = normalization.scaling(carry.normalization)
    returns = evaluate(agent, carry.agent, adapt([Far()], seed=1), configs.loop, episodes=20, scaling=by)
    assert returns.tolist() == [1000.0] * 20
    jax.tree.map(np.testing.assert_array_equal, carry.normalization, frozen)
