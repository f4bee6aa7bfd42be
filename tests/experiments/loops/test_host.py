"""The host loop: what reaches the replay, when it learns, what each field does, what a seed decides."""

import gymnasium
import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from polyak import updates
from polyak.agents import ActOutput, Agent, make_configs
from polyak.agents.parts import replace
from polyak.experiments.environments.make import adapt
from polyak.experiments.environments.types import EnvironmentFailure
from polyak.experiments.loops.host import host_loop
from polyak.experiments.loops.schedules import total_learner_steps
from polyak.replay import DrawNumbers, check_valid, host
from polyak.updates import LossOutput, Target
from small_runs import begin, run_loop

CONFIGS = make_configs(
    "double_dqn",
    fields={
        "error": "squared",
        "hidden_sizes": (4,),
        "batch_size": 4,
        "replay_capacity": 200,
        "learning_starts": 20,
        "train_every": 2,
        "learner_steps": 1,
        "target": "periodic:3",
        "learning_rate": 0.001,
        "epsilon": "linear(1,0.05,50%)",
    },
)


class Walk(gymnasium.Env):
    """A random walk: the observation is (lane's seed, step); the lengths of episodes come from the seed."""

    observation_space = gymnasium.spaces.Box(-np.inf, np.inf, (2,), np.float32)
    action_space = gymnasium.spaces.Discrete(3)

    def reset(self, *, seed=None, options=None):
        super().reset(seed=seed)
        self.t, self.length = 0, int(self.np_random.integers(1, 9))
        self.truncates = bool(self.np_random.integers(2))
        self.tag = float(self.np_random.integers(1000))
        return np.float32([self.tag, 0]), {}

    def step(self, action):
        self.t += 1
        end = self.t == self.length
        return np.float32([self.tag, self.t]), float(action), end and not self.truncates, end and self.truncates, {}


def counting_agent():
    """An agent that compiles in a moment: one weight, whose value counts its learner steps."""

    def loss(key, params, state, targets, sample):
        return -params["w"] + 0.0 * sample.weights.sum(), LossOutput(priorities=sample.weights)

    targets = {"q": Target(updates.periodic(3))}
    learner = updates.learner(loss, optax.sgd(1.0), targets)

    def act(key, state, recurrent_state, timestep):
        return ActOutput(jnp.full(timestep.reward.shape, 2, jnp.int32), recurrent_state)

    def greedy_actions(variables, sample):
        return jnp.full(sample.weights.shape, 2)

    def init(key):
        return learner.init({"w": jnp.zeros(())})

    return Agent(init, lambda key, num_envs: (), act, learner.step, targets, act, greedy_actions)


def run(agent=None, num_envs=1, steps=200, record_every=50, seed=0, stop=lambda: False, **fields):
    environment = adapt([Walk() for _ in range(num_envs)], seed=seed)
    options = {"record_every": record_every, "seed": seed, "stop": stop, "total_learner_steps": steps}
    _, carry, records = run_loop(replace(CONFIGS, fields), environment, agent, steps=steps, **options)
    check_valid(carry.replay)
    return carry, records


CADENCES = [
    # num_envs, train_every, learner_steps, learning_starts, steps
    (1, 1, 1, 0, 30),
    (1, 4, 2, 10, 40),
    (1, 10, 1, 30, 101),
    (2, 4, 1, 7, 50),
    (8, 1, 1, 20, 100),
    (8, 4, 2, 20, 100),
    (3, 2, 1, 10, 50),
    (3, 10, 2, 11, 61),
    (5, 4, 3, 12, 52),
]


@pytest.mark.parametrize("cadence", CADENCES)
def test_a_round_is_due_at_every_multiple_from_learning_starts_on(cadence):
    num_envs, train_every, learner_steps, learning_starts, steps = cadence
    fields = {"train_every": train_every, "learner_steps": learner_steps, "learning_starts": learning_starts}
    carry, records = run(counting_agent(), num_envs, steps, record_every=steps, **fields)
    wanted, step = 0, 0
    while step < steps:  # by the definition
        step += num_envs
        if step >= learning_starts:
            wanted += sum(k % train_every == 0 for k in range(step - num_envs + 1, step + 1)) * learner_steps
    assert carry.learner_steps == records[-1]["learner_steps"] == wanted
    assert float(carry.agent.params["w"]) == int(carry.agent.targets["q"].count) == wanted
    assert total_learner_steps(replace(CONFIGS, fields).loop, steps, num_envs) == wanted
    assert carry.steps == records[-1]["step"] == -(-steps // num_envs) * num_envs


def test_the_replay_holds_what_a_plain_rollout_gives():
    carry, records = run(counting_agent(), num_envs=2, steps=120)
    many = host.make(adapt([Walk()]).spec, num_envs=2, capacity=200, batch_size=5000)
    everything = many.sample(np.uint32([0, 1, 2]), carry.replay, DrawNumbers(discount=1.0)).transition
    drawn = {
        (*obs_tm1, action, reward, going_on, *obs_t)
        for obs_tm1, action, reward, going_on, obs_t in zip(
            everything.obs_tm1.tolist(),
            everything.a_tm1.tolist(),
            everything.r_t.tolist(),
            everything.discount_t.tolist(),
            everything.obs_t.tolist(),
            strict=True,
        )
    }
    plain = adapt([Walk() for _ in range(2)], seed=0)
    timestep, wanted, returns = plain.reset(), set(), []
    running = np.zeros(2)
    acts = {row[:2]: int(row[2]) for row in drawn}
    for _ in range(60):
        action = np.array([acts[tuple(row)] for row in timestep.observation.tolist()])
        outcome = plain.step(action)
        running += outcome.r_t
        for lane in range(2):
            wanted.add(
                (
                    *timestep.observation[lane].tolist(),
                    int(action[lane]),
                    float(outcome.r_t[lane]),
                    float(outcome.discount_t[lane]),
                    *outcome.obs_t[lane].tolist(),
                )
            )
            if outcome.last[lane]:
                returns.append(running[lane])
                running[lane] = 0
        timestep = outcome.timestep
    assert drawn == wanted
    assert [value for record in records for value in record["returns"]] == returns
    assert records[-1]["episodes"] == len(returns)
    assert records[-1]["return_mean"] == pytest.approx(np.mean(returns[-100:]))
    ends = [end for record in records for end in record["ended_at"]]
    assert ends == sorted(ends)
    assert sum(length for record in records for length in record["lengths"]) <= 120


def test_an_agent_may_touch_leaves_that_it_does_not_read():
    agent = counting_agent()

    def act(key, state, recurrent_state, timestep):
        jax.tree.map(lambda leaf: leaf.astype(jnp.float32) + 1, state)
        return agent.act(key, state, recurrent_state, timestep)

    assert run(agent._replace(act=act), steps=40)[0].steps == 40


def test_one_seed_repeats_to_the_bit_and_another_differs_everywhere():
    (first, records), (again, repeated), (_, others) = run(seed=3), run(seed=3), run(seed=4)
    assert records == repeated
    for x, y in zip(jax.tree.leaves(first.agent), jax.tree.leaves(again.agent), strict=True):
        assert np.asarray(x).tobytes() == np.asarray(y).tobytes()
    assert records != others
    # Initial parameters, and the keys of acting and of learning, each depend on the seed, not only on one another.
    one, two = (begin(CONFIGS, adapt([Walk()], seed=0), seed=seed)[2] for seed in (3, 4))
    assert (one.agent.params["head/q_values"]["w"] != two.agent.params["head/q_values"]["w"]).any()
    assert (one.key != two.key).any(axis=1).all()
    assert (one.key[0] != one.key[1]).any()


def test_no_key_is_used_twice():
    with jax.debug_key_reuse(True):
        assert run(steps=60)[0].learner_steps > 0
        key = jax.random.key(0)
        with pytest.raises(jax.errors.KeyReuseError):  # it does look
            jax.random.uniform(key) + jax.random.uniform(key)


def test_epsilon_falls_linearly_and_stays():
    _, records = run(counting_agent(), steps=100, record_every=1, epsilon="linear(1,0.2,50%)")
    epsilon = [record["epsilon"] for record in records]
    assert np.round([epsilon[step] for step in (0, 25, 50, 99)], 6).tolist() == [1.0, 0.6, 0.2, 0.2]
    carry, _ = run(counting_agent(), epsilon=0)
    assert set(carry.replay.action[~carry.replay.boundary].tolist()) == {2}


def test_records_come_at_multiples_and_at_the_end():
    _, records = run(counting_agent(), steps=130, record_every=50)
    assert [record["step"] for record in records] == [50, 100, 130]
    _, records = run(counting_agent(), num_envs=3, steps=130, record_every=50)
    assert [record["step"] for record in records] == [51, 102, 132]


def test_stop_yields_the_carry_without_a_record():
    asked = []

    def stop():
        asked.append(1)
        return len(asked) == 71

    carry, records = run(counting_agent(), stop=stop)
    assert carry.steps == 70
    assert [record.get("step") for record in records] == [50, None]


def test_no_step_waits_beyond_a_carry_that_is_yielded():
    """Steps wait for the next draw, of which there is none here."""
    asked = []

    def stop():
        asked.append(1)
        return len(asked) == 91

    environment = adapt([Walk()], seed=0)
    agent, replay, first = begin(CONFIGS, environment, counting_agent())
    config = replace(CONFIGS.loop, {"learning_starts": 1_000})
    options = {"steps": 200, "record_every": 50, "yield_every": 7, "stop": stop}
    found = []
    for carry, record in host_loop(agent, environment, replay, config, first, **options):
        running = int(carry.statistics.running_length.sum())
        found.append((carry.steps, replay.size(carry.replay), running, record.get("replay_size")))
    assert [steps for steps, *_ in found] == sorted({*range(7, 91, 7), 50, 90})
    assert all(size == steps for steps, size, *_ in found)
    assert [size for *_, size in found if size is not None] == [50]
    assert all(0 <= running < 9 for _, _, running, _ in found)


def test_no_step_waits_beyond_a_failure():
    class Broken(Walk):
        steps = 0

        def step(self, action):
            self.steps += 1
            if self.steps == 38:
                raise OSError("out of fuel")
            return super().step(action)

    environment = adapt([Broken()], seed=0)
    agent, replay, first = begin(CONFIGS, environment, counting_agent())
    config = replace(CONFIGS.loop, {"learning_starts": 1_000})
    loop, found = host_loop(agent, environment, replay, config, first, steps=200), []
    with pytest.raises(EnvironmentFailure, match="out of fuel"):
        found.extend((carry.steps, replay.size(carry.replay)) for carry, _ in loop)
    assert found == [(37, 37)]


def test_target_distance_is_a_mean_over_the_window_and_the_age_is_counted():
    # The weight grows by one a learner step and the target is copied every third: behind by 1, 2, 0, 1, 2, 0, ...
    every = {"learning_starts": 0, "train_every": 1}
    _, records = run(counting_agent(), steps=60, record_every=6, **every)
    assert {record["target_distance/q"] for record in records} == {1.0}
    _, records = run(counting_agent(), steps=16, record_every=8, **every)
    assert [record["steps_since_update/q"] for record in records] == [8 % 3, 16 % 3]


def failing_agent(fails):
    """Its loss is NaN where ``fails(key)``; else its weight counts the step, and the loss is minus the count before."""

    def loss(key, params, state, targets, sample):
        bad = jnp.where(fails(key), jnp.nan, 0.0)
        return bad - params["w"], LossOutput(priorities=sample.weights, metrics={"two": bad + 2.0})

    targets = {"q": Target(updates.periodic(3))}
    learner = updates.learner(loss, optax.sgd(1.0), targets, skip_nonfinite=True)
    return counting_agent()._replace(
        init=lambda key: learner.init({"w": jnp.zeros(())}), learn=learner.step, targets=targets
    )


@pytest.mark.parametrize("learner_steps", [1, 3])
def test_skipped_steps_are_counted_and_left_out_of_the_means(learner_steps):
    agent = failing_agent(lambda key: jax.random.bernoulli(key, 0.3))
    carry, records = run(agent, learner_steps=learner_steps, record_every=50)
    before = kept = 0
    for record in records:
        made = record["learner_steps"] - before
        skipped = round(record["skipped"] * made)
        assert record["skipped"] == pytest.approx(skipped / made)
        assert 0 < skipped < made
        assert record["two"] == 2.0
        assert record["loss"] == pytest.approx(-np.mean(range(kept, kept + made - skipped)))
        before, kept = record["learner_steps"], kept + made - skipped
    assert float(carry.agent.params["w"]) == int(carry.agent.targets["q"].count) == kept
    assert records[-1]["steps_since_update/q"] == kept % 3
    # The distance to the target is of every dispatch, kept or not: 0, 1 or 2 behind, each about as often.
    assert all(0.7 < record["target_distance/q"] < 1.1 for record in records)


def test_a_window_without_a_step_that_was_kept_ends_the_run():
    with pytest.raises(ValueError, match=r"skipped: all 16 learner steps since the previous record .*step 50:"):
        run(failing_agent(lambda key: True))


class Rare(Walk):
    """A walk with a reward now and then whose square is no float."""

    def step(self, action):
        observation, reward, *rest = super().step(action)
        return observation, 1e30 if self.t == 6 else reward, *rest


def test_a_run_goes_on_where_a_few_steps_are_not_finite():
    environment = adapt([Rare()], seed=0)

    def records(configs):
        return run_loop(configs, environment, steps=100, record_every=50)[2]

    skipping = replace(CONFIGS, {"skip_nonfinite": True})
    assert all(0 < record["skipped"] < 1 and 0 < record["loss"] < 1e9 for record in records(skipping))
    with pytest.raises(ValueError, match=r"(loss|gradient_norm|q|td_error): got (inf|nan) .*training has diverged"):
        records(CONFIGS)


@pytest.mark.parametrize(("num_envs", "learner_steps"), [(1, 1), (1, 3), (8, 1)])
def test_one_trace_for_a_whole_run(num_envs, learner_steps):
    def traces(steps):
        agent, traced = counting_agent(), {"act": 0, "learn": 0}

        def count(name, function):
            def counted(*arguments):
                traced[name] += 1
                return function(*arguments)

            return counted

        counted = agent._replace(act=count("act", agent.act), learn=count("learn", agent.learn))
        run(counted, num_envs, steps=steps, learner_steps=learner_steps)
        return traced

    short, long = traces(40), traces(160)
    assert short == long
    assert short["learn"] == 2  # one for the names of the metrics, one to compile


def test_a_hundred_and_one_episodes_leave_the_last_hundred():
    carry, records = run(counting_agent(), steps=1200, record_every=1200)
    returns = records[-1]["returns"]
    assert len(returns) > 150
    assert records[-1]["return_mean"] == pytest.approx(np.mean(returns[-100:]))
    assert records[-1]["return_last"] == returns[-1]
    assert carry.statistics.recent == returns[-100:]
