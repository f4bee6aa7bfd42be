"""Numbers of the loop: each field of its config counts, schedules are read at their step, draws depend on a key."""

import gymnasium
import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from polyak import updates
from polyak.agents import ActOutput, Agent, LoopConfig, Schedule, make_configs
from polyak.agents.loop_config import Draw, Prioritized
from polyak.agents.parts import bringers, leaves, replace
from polyak.experiments.environments.make import adapt
from polyak.experiments.loops.host import host_loop
from polyak.experiments.loops.schedules import draw_numbers
from polyak.updates import LossOutput, Target
from small_runs import begin, without_times

CONFIGS = make_configs(
    "dqn",
    fields={
        "batch_size": 4,
        "replay_capacity": 200,
        "learning_starts": 20,
        "train_every": 2,
        "learner_steps": 1,
        "epsilon": "linear(1,0.05,50%)",
    },
)
SEQUENCES = {"windows": "sequences", "sequence_length": 5, "sequence_period": 2}
PRIORITIZED = {"sampling": "prioritized"}
# Leaf to another value, and the part that has the leaf.
OTHERS = {
    "batch_size": (5, {}),
    "n_steps": ("linear(5,1,50%)", {}),
    "discount": (0.5, {}),
    "windows": ("sequences", {}),
    "sequence_length": (4, SEQUENCES),
    "sequence_period": (3, SEQUENCES),
    "sampling": ("prioritized", {}),
    "priority_exponent": (1.0, PRIORITIZED),
    "importance_exponent": (1.0, PRIORITIZED),
    "replay_capacity": (30, {}),
    "frame_stack": (2, {}),
    "learning_starts": (60, {}),
    "train_every": (4, {}),
    "learner_steps": (2, {}),
    "epsilon": (0.9, {}),
    "normalize_observations": (True, {}),
    "normalize_rewards": (True, {}),
}


class Walk(gymnasium.Env):
    """A random walk on frames of one row; the lengths of episodes come from the seed."""

    observation_space = gymnasium.spaces.Box(-np.inf, np.inf, (1, 2), np.float32)
    action_space = gymnasium.spaces.Discrete(3)

    def reset(self, *, seed=None, options=None):
        super().reset(seed=seed)
        self.t, self.length = 0, int(self.np_random.integers(4, 12))
        return self.np_random.normal(size=(1, 2)).astype(np.float32), {}

    def step(self, action):
        self.t += 1
        observation = self.np_random.normal(size=(1, 2)).astype(np.float32)
        return observation, float(action) + 0.1 * self.t, self.t == self.length, False, {}


def summing_agent():
    """An agent of one weight that moves by all that it is given, so that a difference of one number is seen."""

    def loss(key, params, state, targets, sample):
        drawn = jax.tree.map(lambda leaf: leaf.astype(jnp.float32).reshape(len(leaf), -1).sum(1), sample.transition)
        each = jnp.stack([(number + 1) * leaf for number, leaf in enumerate(jax.tree.leaves(drawn))]).sum(0)
        total = jnp.mean(sample.weights * each) + jax.random.normal(key)
        return params["w"] * total, LossOutput(priorities=jnp.abs(each))

    targets = {"q": Target(updates.none())}
    learner = updates.learner(loss, optax.sgd(1.0), targets)

    def act(key, state, recurrent_state, timestep):
        seen = timestep.observation.reshape(len(timestep.reward), -1).sum(1) + timestep.reward
        return ActOutput((seen > 0).astype(jnp.int32), recurrent_state)

    def greedy_actions(variables, sample):
        return jnp.full(sample.weights.shape, 2)

    def init(key):
        return learner.init({"w": jnp.zeros(())})

    return Agent(init, lambda key, num_envs: (), act, learner.step, targets, act, greedy_actions)


def run(fields, steps=100):
    agent, configs = summing_agent(), replace(CONFIGS, fields)
    environment = adapt([Walk()], seed=0)
    agent, replay, carry = begin(configs, environment, agent)
    records = []
    for last, record in host_loop(agent, environment, replay, configs.loop, carry, steps=steps, record_every=50):
        carry = last
        records.append(without_times(record))
    return float(carry.agent.params["w"]), records


def test_every_leaf_has_another_value():
    # Which loop runs is tested in tests/experiments/runs/test_source.py.
    assert OTHERS.keys() == {*leaves(LoopConfig()), *bringers(LoopConfig)} - {"loop"}
    for name, (value, part) in OTHERS.items():
        before = replace(CONFIGS, part)
        assert leaves(before)[name] != leaves(replace(before, {name: value}))[name]


@pytest.mark.parametrize("name", OTHERS)
def test_every_field_of_the_loop_matters(name):
    value, part = OTHERS[name]
    weight, records = run(part)
    other, other_records = run(part | {name: value})
    assert weight != other
    assert records != other_records


SCHEDULES = {
    "epsilon": "exponential(0.8,0.1,60)",
    "n_steps": "linear(5,1,50%)",
    "discount": "cosine(0.9,0.5,100%)",
    "sampling": "prioritized",
    "importance_exponent": "linear(0.2,1,40%)",
}


def test_schedules_are_read_at_the_step_they_are_for():
    configs, environment = replace(CONFIGS, SCHEDULES), adapt([Walk(), Walk()], seed=0)
    agent, replay, carry = begin(configs, environment, summing_agent())
    seen, written = [], []

    def sample(key, state, numbers):
        seen.append(numbers)
        return replay.sample(key, state, numbers)

    loop = host_loop(agent, environment, replay._replace(sample=sample), configs.loop, carry, steps=100, record_every=1)
    for last, record in loop:
        written.append((last.steps, record["epsilon"]))
    draw = configs.loop.draw
    steps = np.arange(20, 101, 2)  # where it learns
    assert [numbers.n_steps for numbers in seen] == np.round(draw.n_steps.value_at(steps, 100)).astype(int).tolist()
    assert [numbers.discount for numbers in seen] == draw.discount.value_at(steps, 100).tolist()
    exponent = draw.sampling.importance_exponent.value_at(steps, 100).tolist()
    assert [numbers.importance_exponent for numbers in seen] == exponent
    # A record has the epsilon of the actions that led to its step.
    wanted = configs.loop.exploration.epsilon.value_at(np.arange(0, 100, 2), 100).tolist()
    assert written == list(zip(range(2, 101, 2), wanted, strict=True))


def test_numbers_of_a_draw_by_hand():
    config = LoopConfig(Draw(n_steps="linear(5,1,50%)", discount="linear(0.9,0.8,100)", sampling=Prioritized(0.5, 0.3)))
    assert draw_numbers(config, 0, 400) == (5, 0.9, 0.3)
    assert draw_numbers(config, 100, 400) == (3, 0.8, 0.3)
    assert draw_numbers(config, 400, 400) == (1, 0.8, 0.3)
    assert draw_numbers(LoopConfig(), 400, 400).importance_exponent == 0.0


def test_numbers_that_never_change_take_no_arrays(monkeypatch):
    monkeypatch.setattr(Schedule, "value_at", lambda *_: pytest.fail("an array was made"))
    numbers = draw_numbers(LoopConfig(Draw(n_steps=3, discount=0.9, sampling=Prioritized(0.5, 0.3))), 7, 400)
    assert numbers == (3, 0.9, 0.3)
    assert [type(number) for number in numbers] == [int, float, float]


def drawn_by_a_loop(*stops):
    """Keys and rows of all draws of a loop that is left and entered again at each of ``stops``."""
    environment = adapt([Walk()], seed=0)
    agent, replay, carry = begin(CONFIGS, environment, summing_agent())
    learn_key, seen = np.asarray(carry.key[1]).tolist(), []

    def sample(key, state, numbers):
        drawn = replay.sample(key, state, numbers)
        seen.append((np.asarray(key).tolist(), drawn.rows.tolist()))
        return drawn

    watched = replay._replace(sample=sample)
    for stop in (*stops, 60):
        for last, _ in host_loop(agent, environment, watched, CONFIGS.loop, carry, steps=60, yield_every=1):
            carry = last
            if carry.steps == stop:
                break
    return learn_key, seen


def test_carries_with_equal_counters_draw_equally():
    learn_key, seen = drawn_by_a_loop()
    assert [key for key, _ in seen] == [[*learn_key, learner_step] for learner_step in range(len(seen))]
    assert len(seen) == 21
    assert drawn_by_a_loop(25, 44) == (learn_key, seen)


def test_draws_are_a_function_of_the_key_and_the_learner_step():
    environment = adapt([Walk()], seed=0)
    agent, replay, carry = begin(CONFIGS, environment, summing_agent())
    for last, _ in host_loop(agent, environment, replay, CONFIGS.loop, carry, steps=60):
        carry = last

    def rows(keys, learner_steps):
        numbers = draw_numbers(CONFIGS.loop, carry.steps, 60)
        return replay.sample(np.append(np.asarray(keys), np.uint32(learner_steps)), carry.replay, numbers).rows.tolist()

    learn_key = carry.key[1]
    assert rows(learn_key, 7) == rows(learn_key, 7)  # whatever was drawn before
    drawn = {tuple(rows(learn_key, learner_steps)) for learner_steps in range(20)}
    assert len(drawn) == 20
    assert rows(learn_key, 7) != rows(carry.key[0], 7)


def test_a_carry_is_a_tree_of_arrays_and_counters():
    environment = adapt([Walk(), Walk()], seed=0)
    _, _, carry = begin(replace(CONFIGS, SCHEDULES | {"normalize_rewards": True}), environment, summing_agent())
    assert "generator" not in carry._fields
    rest = carry._replace(statistics=())
    numbers = {"steps", "learner_steps", "learner_steps_recorded"}
    for path, leaf in jax.tree_util.tree_leaves_with_path(rest):
        name = path[0].name
        assert isinstance(leaf, int if name in numbers else (np.ndarray, np.generic, jax.Array)), jax.tree_util.keystr(
            path
        )
