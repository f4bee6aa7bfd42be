"""Action masks: no illegal action is taken, drawn by exploration, or bootstrapped from, from ``info`` to the loss."""

import json

import gymnasium
import jax
import numpy as np
import pytest
from gymnasium.vector import AutoresetMode, SyncVectorEnv

import polyak
from polyak import networks
from polyak.agents import make_configs
from polyak.experiments.environments.make import adapt
from polyak.experiments.loops.evaluation import evaluate
from polyak.replay import check_valid
from scripted_environments import LANES, Foreign, Gates, Told, legal_at, shown_mask
from small_runs import run_loop

CONFIGS = make_configs(
    "n_step_double_dqn",
    fields={
        "hidden_sizes": (8,),
        "n_steps": 3,
        "batch_size": 8,
        "replay_capacity": 60,
        "learning_starts": 20,
        "train_every": 2,
        "learner_steps": 1,
        "learning_rate": 0.001,
        "epsilon": "linear(1,0.05,50%)",
    },
)
BACKENDS = [None, *AutoresetMode]


def gates(mode, **told):
    envs = [Gates(**lane, **told) for lane in LANES]
    env = envs if mode is None else SyncVectorEnv([lambda e=e: e for e in envs], autoreset_mode=mode)
    return envs, env


# --- Through the loop -------------------------------------------------------------------------------------------------


def run(environment):
    return run_loop(CONFIGS, environment, steps=240, total_learner_steps=240)


@pytest.mark.parametrize("mode", BACKENDS)
def test_no_illegal_action_is_taken_and_the_replay_keeps_each_mask_with_its_observation(mode):
    envs, env = gates(mode)
    environment = adapt(env, action_mask=True)
    assert environment.spec.action_mask
    agent, carry, _ = run(environment)
    assert [env.illegal for env in envs] == [[], [], []]
    replay = carry.replay
    check_valid(replay)
    assert (replay.written > len(replay.boundary) // 3).all()  # it has wrapped
    heads = replay.head + np.arange(3) * (len(replay.boundary) // 3)
    checked = 0
    for row in np.setdiff1d(np.arange(len(replay.boundary)), heads):
        number, episode, t = replay.observation[row].astype(int).tolist()
        assert replay.action_mask[row].tolist() == shown_mask(number, episode, t, LANES[number]["lengths"])
        if not replay.boundary[row]:
            assert replay.action_mask[row, replay.action[row]]
        checked += not replay.action_mask[row].any()
    assert checked > 3  # terminations, at which none is legal
    again, env = gates(mode)
    assert len(evaluate(agent, carry.agent, adapt(env, action_mask=True), CONFIGS.loop, episodes=7, epsilon=0.5)) == 7
    assert [env.illegal for env in again] == [[], [], []]


def test_without_the_option_illegal_actions_are_taken_and_a_warning_says_so_once():
    envs, env = gates(None, strict=False)
    environment = adapt(env)
    with pytest.warns(UserWarning, match=r"returns action masks, but they are not used.*--action-mask") as warned:
        _, carry, _ = run(environment)
    assert len(warned) == 1
    assert len(envs[0].illegal) > 10
    assert carry.replay.action_mask == carry.timestep.action_mask == ()
    environment = adapt(gates(AutoresetMode.DISABLED, strict=False)[1])
    with pytest.warns(UserWarning, match="returns action masks") as warned:
        [environment.reset() for _ in range(2)]
    assert len(warned) == 1


class Door(gymnasium.Env):
    """Two steps. With a key, action 2 opens the door at the second for 10; without, it is illegal. Action 0 gives 1."""

    observation_space = gymnasium.spaces.Box(-1, 1, (2,), np.float32)
    action_space = gymnasium.spaces.Discrete(3)

    def show(self):
        mask = np.array([True, True, self.key or self.t == 0])
        return np.float32([self.t, self.key]), {"action_mask": mask}

    def reset(self, *, seed=None, options=None):
        super().reset(seed=seed)
        self.t, self.key = 0, bool(self.np_random.integers(2))
        return self.show()

    def step(self, action):
        reward = 0.0 if self.t == 0 else [1.0, 0.0, 10.0][action]
        self.t += 1
        observation, info = self.show()
        return observation, reward, self.t == 2, False, info


@pytest.mark.slow
def test_what_is_illegal_is_worth_nothing_however_good_it_looks():
    # The network has seen what action 2 is worth with a key, and never without: there it takes it for good as well.
    fields = {
        "discount": 0.9,
        "n_steps": 1,
        "batch_size": 64,
        "learning_rate": "linear(0.003,0,100%)",
        "target": "periodic:50",
        "learning_starts": 200,
        "train_every": 16,
        "learner_steps": 4,
        "epsilon": 1,
    }
    configs = make_configs("n_step_double_dqn", fields=fields)
    environment = adapt([Door()], action_mask=True)
    network = networks.value_network(3, torso="mlp", hidden_sizes=(16,))
    _, carry, _ = run_loop(configs, environment, steps=8_000, total_learner_steps=2_000, network=network)
    observations = np.float32([[0, 0], [1, 0], [0, 1], [1, 1]])
    q_values = np.asarray(network.apply(carry.agent.params, None, observations).q_values)
    assert q_values[1, 2] > 4  # illegal, and it looks good
    np.testing.assert_allclose(q_values[0], [0.9 * 1] * 3, atol=0.3)
    np.testing.assert_allclose(q_values[2], [0.9 * 10] * 3, atol=0.6)


# --- The adapters -----------------------------------------------------------------------------------------------------


def first_legal(timestep):
    return np.argmax(timestep.action_mask, axis=1)


@pytest.mark.parametrize("mode", BACKENDS)
def test_masks_belong_to_what_is_shown(mode):
    _, env = gates(mode)
    environment = adapt(env, action_mask=True)
    timestep, kept = environment.reset(), []
    for _ in range(30):
        outcome = environment.step(first_legal(timestep))
        timestep = outcome.timestep
        for rows, masks in ((outcome.obs_t, outcome.action_mask_t), (timestep.observation, timestep.action_mask)):
            assert masks.dtype == np.bool_
            for (number, episode, t), mask in zip(rows.astype(int).tolist(), masks.tolist(), strict=True):
                assert mask == shown_mask(number, episode, t, LANES[number]["lengths"])
        kept.append((masks, masks.copy()))
    for masks, copy in kept:
        np.testing.assert_array_equal(masks, copy)  # the environments write theirs in place


class Seeded(Gates):
    """The same in every process: the episode's number comes from its seed."""

    def reset(self, *, seed=None, options=None):
        self.episode = -1 if seed is None else seed % 7 - 1
        return super().reset(seed=seed)


@pytest.mark.parametrize("vector", [False, True])
def test_masks_come_back_with_a_snapshot(vector):
    def build():
        envs = [Seeded(number=lane["number"], lengths=(9, 5, 12)) for lane in LANES]
        fns = [lambda e=e: e for e in envs]
        env = SyncVectorEnv(fns, autoreset_mode=AutoresetMode.DISABLED) if vector else envs
        return adapt(env, seed=5, action_mask=True)

    environment = build()
    timestep = environment.reset()
    for _ in range(17):
        timestep = environment.step(first_legal(timestep)).timestep
    snapshot = environment.snapshot()
    assert len(set(snapshot["length"].tolist())) > 1  # lanes are led back over different numbers of steps
    again = build()
    resumed, restarted = again.restore(snapshot)
    assert not restarted.any()
    jax.tree.map(np.testing.assert_array_equal, resumed, timestep)
    for _ in range(8):
        expected, found = (each.step(first_legal(timestep)) for each in (environment, again))
        jax.tree.map(np.testing.assert_array_equal, found, expected)
        timestep = expected.timestep


class Giving(Told):
    """Gives the masks of its arguments: at a reset, and at each step after it; None for none at all."""

    def __init__(self, at_reset, *at_steps, ends=(False, False)):
        super().__init__(ends=ends)
        self.at_reset, self.at_steps = at_reset, list(at_steps)

    def info(self, mask):
        return {} if mask is None else {"action_mask": mask}

    def reset(self, *, seed=None, options=None):
        return super().reset(seed=seed)[0], self.info(self.at_reset)

    def step(self, action):
        return *super().step(action)[:4], self.info(self.at_steps.pop(0))


BOTH, ENDS = np.ones(2, np.int8), {"ends": (True, False)}


ABSENT_OR_EMPTY = [
    ((None,), {}, r"step 0: info\['action_mask'\]: got none; expected \(2,\) of bool.*Without action_mask all"),
    ((BOTH, None), {}, r"step 1: info\['action_mask'\]: got none"),
    ((np.zeros(2, np.int8),), {}, "step 0: .*got no legal action; expected at least one, unless the episode has"),
    ((BOTH, np.zeros(2, np.int8)), {}, "step 1: .*got no legal action"),
    ((BOTH, np.zeros(2, np.int8)), {"ends": (False, True)}, "step 1: .*must return terminated=True"),
]
MALFORMED = [
    ((np.ones(3, np.int8),), {}, r"step 0: .*got int8\[3\] .*expected \(2,\)"),
    ((BOTH, np.array([0, 2])), {}, r"step 1: .*got int64\[2\] .*of 0 and 1"),
    ((np.ones(2),), {}, r"step 0: .*got float64\[2\]"),
]


@pytest.mark.parametrize(
    ("vector", "masks", "told", "message"),
    [(False, *case) for case in ABSENT_OR_EMPTY + MALFORMED] + [(True, *case) for case in ABSENT_OR_EMPTY],
)
def test_masks_that_cannot_be(vector, masks, told, message):
    envs = [Giving(BOTH, BOTH), Giving(*masks, **told)]
    environment = adapt(
        SyncVectorEnv([lambda e=e: e for e in envs], autoreset_mode=AutoresetMode.DISABLED) if vector else envs,
        action_mask=True,
    )
    with pytest.raises(ValueError, match=f"environment 1, episode 0, {message}"):
        (environment.reset(), environment.step(np.array([0, 0])))


@pytest.mark.parametrize("mode", BACKENDS)
def test_no_legal_action_after_a_termination_is_no_error(mode):
    env = Giving([True, False], [0, 0], ends=(True, False))  # a list is a mask too
    environment = adapt([env] if mode is None else SyncVectorEnv([lambda: env], autoreset_mode=mode), action_mask=True)
    environment.reset()
    outcome = environment.step(np.array([0]))
    assert outcome.action_mask_t.tolist() == [[False, False]]
    now = [False, False] if mode == AutoresetMode.NEXT_STEP else [True, False]
    assert outcome.timestep.action_mask.tolist() == [now]


def test_a_vector_environment_that_loses_the_last_mask():
    environment = adapt(Foreign([lambda: Gates(lengths=(1,))]), action_mask=True)
    timestep = environment.reset()
    with pytest.raises(ValueError, match=r"environment 0, .*info\['action_mask'\]: got none"):
        environment.step(first_legal(timestep))


# --- Runs -------------------------------------------------------------------------------------------------------------


@pytest.mark.slow
def test_a_run_with_masks(tmp_path):
    if "Gates-v0" not in gymnasium.registry:
        gymnasium.register("Gates-v0", Gates)
    fields = {"steps": 300, "hidden_sizes": (8,), "learning_starts": 50, "evaluation_episodes": 2, "batch_size": 8}
    run = polyak.train(env="Gates-v0", action_mask=True, out=tmp_path / "run", **fields)
    resolved = json.loads((run.folder / "config.json").read_text())["resolved"]
    assert resolved["replay_bytes"] == 20_001 * (3 * 4 + 13 + 4) + 24  # observation, the rest of a row, the mask
    assert polyak.evaluate(run, episodes=2)["returns"] == run.evaluation["returns"]
    for t in range(3):
        for action in range(4):
            only = np.eye(4, dtype=np.int8)[action]
            assert run.act([0.0, 0.0, t], only) == action
        assert legal_at(0, 0, t)[run.act([0.0, 0.0, t], legal_at(0, 0, t))]
    for mask in (None, [1, 1], np.zeros(4)):
        with pytest.raises(ValueError, match=r"action_mask: got .*expected \(4,\) of bool.*a legal one among them"):
            run.act([0.0, 0.0, 0.0], mask)
    with pytest.raises(ValueError, match=r"info\['action_mask'\]: got none"):
        polyak.train(env="CartPole-v1", action_mask=True, out=tmp_path / "none", **fields)
    assert not (tmp_path / "none").exists()
