"""Sides of device_loop.py. Each is a function of the settings that returns a function.

The returned function does some work, waits for it, and returns how many loop steps it made; for a sweep, how many
environment steps over all seeds.
"""

import functools
import itertools
import sys
import types
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from polyak.experiments.loops.carry import initial_carry
from polyak.experiments.loops.device import device_loop, to_device
from polyak.experiments.loops.host import host_loop
from polyak.experiments.loops.schedules import total_learner_steps
from polyak.experiments.loops.sweep import Program, Settings, SweepCarry, sweep_loop
from polyak.experiments.runs.build import build, make_run_agent
from polyak.experiments.runs.config import make_run_config
from polyak.replay.types import DrawNumbers
from polyak.updates import TargetRule, parse

ENOUGH = 10**9  # environment steps of a run that no measurement reaches
EPSILON = 0.05


class Case(NamedTuple):
    """Settings of every side; steps are environment steps over all environments.

    Attributes:
        env: Name of the environment in polyak.
        gymnax: Name of the environment in gymnax.
        torso: Torso in polyak, ``mlp`` or ``minatar``.
        record_every: Number of environment steps between two records of polyak.
        call_steps: Number of loop steps of one call of purejaxrl, whose program is a whole run.
        batches: Number of different batches of a floor.
    """

    env: str
    gymnax: str
    torso: str
    num_envs: int
    batch_size: int
    hidden_sizes: tuple[int, ...]
    replay_capacity: int
    record_every: int
    call_steps: int
    batches: int = 64
    learning_starts: int = 500
    target_every: int = 500
    learning_rate: float = 2.5e-4
    discount: float = 0.99


def config_of(case, loop, seed=0):
    """Config of a run of polyak with a learner step in each loop step."""
    fields = {
        "env": case.env,
        "num_envs": case.num_envs,
        "steps": ENOUGH,
        "seed": seed,
        "loop": loop,
        "torso": case.torso,
        "hidden_sizes": case.hidden_sizes,
        "error": "squared",
        "discount": case.discount,
        "batch_size": case.batch_size,
        "learning_rate": case.learning_rate,
        "target": f"periodic:{case.target_every}env",
        "replay_capacity": case.replay_capacity,
        "learning_starts": case.learning_starts,
        "train_every": case.num_envs,
        "learner_steps": 1,
        "epsilon": str(EPSILON),
    }
    return make_run_config("dqn", fields=fields)


def begun(case, loop):
    """Parts of a run, and its loop after the first record with learner steps."""
    parts = build(config_of(case, loop))
    config = parts.config.loop
    carry = initial_carry(parts.agent, parts.environment, parts.replay, config, seed=0)
    run = device_loop if loop == "device" else host_loop
    found = run(
        parts.agent,
        parts.environment,
        parts.replay,
        config,
        carry,
        steps=ENOUGH,
        record_every=case.record_every,
    )
    carry = next(carry for carry, record in found if record and carry.learner_steps)
    return parts, carry, found


def device_side(case):
    """Device loop of polyak."""
    return _of_loop(case, "device")


def host_side(case):
    """Host loop of polyak, on Gymnasium's environment."""
    return _of_loop(case, "host")


def _of_loop(case, loop):
    *_, found = begun(case, loop)

    def call():
        carry, _ = next(found)
        jax.block_until_ready(carry.agent)
        return case.record_every // case.num_envs

    return call


def _learner(case):
    """Function of a learner step, a state, and different batches from a replay that the device loop has filled."""
    parts, carry, _ = begun(case, "device")
    draw = jax.jit(parts.replay.sample)
    numbers = DrawNumbers(np.int32(1), np.float32(case.discount), np.float32(0))
    words = np.random.default_rng(0).integers(2**32, size=(case.batches, 3), dtype=np.uint32)
    samples = [draw(word, carry.replay, numbers) for word in words]
    return parts.agent.learn, jax.tree.map(jnp.copy, carry.agent), samples


def floor_side(case):
    """Learner step alone: a donated program with another key and another batch in each call."""
    learn, state, samples = _learner(case)
    learn = jax.jit(learn, donate_argnums=1)
    given = itertools.cycle(zip([jax.random.key(number) for number in range(len(samples))], samples, strict=True))

    def call():
        nonlocal state
        for _ in samples:
            key, sample = next(given)
            state, _ = learn(key, state, sample)
        jax.block_until_ready(state)
        return len(samples)

    return call


def floor_in_loop_side(case):
    """Learner steps in one compiled loop, with another key and another batch in each step; their metrics are summed."""
    learn, state, samples = _learner(case)
    samples = jax.tree.map(lambda *leaves: jnp.stack(leaves), *samples)
    number = case.batches
    shapes = jax.eval_shape(learn, jax.random.key(0), state, jax.tree.map(lambda leaf: leaf[0], samples))[1].metrics

    @functools.partial(jax.jit, donate_argnums=0)
    def many(state, key, samples):
        def body(step, carried):
            state, totals = carried
            sample = jax.tree.map(lambda leaf: leaf[step], samples)
            state, output = learn(jax.random.fold_in(key, step), state, sample)
            return state, jax.tree.map(jnp.add, totals, output.metrics)

        totals = jax.tree.map(lambda metric: jnp.zeros(metric.shape, metric.dtype), shapes)
        return jax.lax.fori_loop(0, number, body, (state, totals))

    keys = (jax.random.key(call) for call in itertools.count())

    def call():
        nonlocal state
        state, totals = many(state, next(keys), samples)
        jax.block_until_ready((state, totals))
        return number

    return call


def sweep_side(case, seeds, lanes):
    """Runs that differ in their seeds, as lanes of one program over all devices."""
    count = max(number for number in range(1, len(jax.devices()) + 1) if seeds % number == 0)
    devices = jax.devices()[:count]
    configs = [config_of(case, "device", seed) for seed in range(seeds)]
    config, parts = configs[0], build(configs[0])
    environments = [build(each).environment for each in configs]
    carries = [
        initial_carry(parts.agent, environment, parts.replay, each.loop, each.seed)
        for environment, each in zip(environments, configs, strict=True)
    ]
    rule = parse(
        config.agent.target,
        horizon=total_learner_steps(config.loop, ENOUGH, case.num_envs),
        environment_steps_per_learner_step=config.loop.environment_steps_per_learner_step,
    )
    numbers = zip(rule, (np.float32, np.int32, np.int32), strict=True)
    mesh = jax.sharding.Mesh(np.asarray(devices), ("lanes",))
    spread = jax.NamedSharding(mesh, jax.P("lanes"))

    def stacked(trees):
        return jax.tree.map(
            lambda *leaves: jax.device_put(np.stack([np.asarray(leaf) for leaf in leaves]), spread), *trees
        )

    sweep = SweepCarry(
        stacked([carry.key for carry in carries]),
        Settings({"q": {"": TargetRule(*(jax.device_put(np.full(seeds, *number), spread) for number in numbers))}}),
        stacked([to_device(*each) for each in zip(carries, environments, strict=True)]),
        [carry.statistics for carry in carries],
        {},
    )
    program = Program(
        lambda numbers: make_run_agent(config, parts.environment.spec, "device", numbers=numbers),
        parts.environment.functional,
        parts.replay,
        [each.loop for each in configs],
        case.num_envs,
        lanes,
        devices,
    )
    found = sweep_loop(program, sweep, steps=ENOUGH, record_every=case.record_every)
    next(sweep for sweep, records in found if records and sweep.learner_steps)

    def call():
        sweep, _ = next(found)
        jax.block_until_ready(sweep.arrays.agent)
        return seeds * case.record_every

    return call


def purejaxrl_side(case, folder):
    """DQN of purejaxrl, from a clone; each call is a run with its first steps, whose program is compiled once."""
    train = jax.jit(purejaxrl(folder, case).make_train(purejaxrl_config(case)))
    keys = (jax.random.key(call) for call in itertools.count())

    def call():
        out = jax.block_until_ready(train(next(keys)))
        assert out["metrics"]["updates"][-1] > 0
        return case.call_steps

    return call


def purejaxrl_config(case):
    """Settings of a case by the names of purejaxrl."""
    return {
        "NUM_ENVS": case.num_envs,
        "BUFFER_SIZE": case.replay_capacity,
        "BUFFER_BATCH_SIZE": case.batch_size,
        "TOTAL_TIMESTEPS": case.call_steps * case.num_envs,
        "EPSILON_START": EPSILON,
        "EPSILON_FINISH": EPSILON,
        "EPSILON_ANNEAL_TIME": 1,
        "TARGET_UPDATE_INTERVAL": case.target_every,
        "LR": case.learning_rate,
        "LEARNING_STARTS": case.learning_starts,
        "TRAINING_INTERVAL": case.num_envs,
        "GAMMA": case.discount,
        "TAU": 1.0,
        "ENV_NAME": case.gymnax,
    }


def purejaxrl(folder, case):
    """Module ``dqn`` of a clone of purejaxrl, of 2024, made to run with today's JAX and gymnax.

    JAX has renamed ``tree_map``, gymnax has made the five-value step a wrapper, and wandb is imported but not used. The
    network for MinAtar is that of polyak.
    """
    sys.modules.setdefault("wandb", types.ModuleType("wandb"))
    jax.tree_map = jax.tree.map
    sys.path.insert(0, str(folder / "purejaxrl"))
    import dqn
    from gymnax.wrappers.compat import LegacyStepAPIWrapper

    log = dqn.LogWrapper
    dqn.LogWrapper = lambda env: LegacyStepAPIWrapper(log(env))
    if case.torso == "minatar":
        dqn.QNetwork = _convolutional(*case.hidden_sizes)
    return dqn


def _convolutional(width):
    import flax.linen as nn

    class Convolutional(nn.Module):
        action_dim: int

        @nn.compact
        def __call__(self, observation):
            image = observation.reshape(*observation.shape[:-1], 10, 10, -1).astype(jnp.float32)
            features = nn.relu(nn.Conv(16, (3, 3), padding="VALID")(image))
            hidden = nn.relu(nn.Dense(width)(features.reshape(*features.shape[:-3], -1)))
            return nn.Dense(self.action_dim)(hidden)

    return Convolutional
