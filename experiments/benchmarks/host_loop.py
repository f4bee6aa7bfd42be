"""Host loop on CartPole-v1: environment steps per second, against SB3, SBX and a hand-written loop.

    python experiments/benchmarks/host_loop.py

The settings are those of CleanRL's dqn_jax.py: Adam with 2.5e-4, replay capacity 10 000, discount 0.99, a hard target
update every 500 environment steps, batch size 128, a learner step every 10 environment steps, an MLP of 120 and 84
units, epsilon from 1 to 0.05 over half of the steps. Two settings differ: learning starts at step 480, and the
measurement starts after a warm-up of 2000 steps. It therefore excludes imports, compilation and the first steps, and
includes learning throughout.

Every side runs in its own process, which waits while the others run, so no side affects the threads or options of
another. One round measures each side once.

- polyak: ``host_loop`` as the command line runs it, with dispatches in the calling thread and a record every 500 steps.
- bare: the hand-written loop (bare.py), with the same dispatches as polyak: none for a random action.
- SB3: with PyTorch's default number of threads and with one thread; polyak is divided by the faster of the two. It uses
  the Huber loss and clips gradients; it logs nothing here.
- SBX: with its defaults, and with dispatches in the calling thread. Its MLP has the same width in both layers; with 100
  units it has the same number of weights. It uses the Huber loss.

With eight environments, polyak steps them with ``num_envs``, and SB3 and SBX step them in a DummyVecEnv. All make 4
learner steps every 40 environment steps, because SB3 supports this cadence; it is again one learner step every 10
environment steps. The benchmark also prints the learner steps and episodes of the last round, because the end of an
episode costs a reset.
"""

import concurrent.futures
import functools
import multiprocessing
import time
from typing import NamedTuple

import timing


class Settings(NamedTuple):
    """Settings of every side; steps are environment steps over all environments."""

    steps: int
    warm_up: int
    num_envs: int = 1
    train_every: int = 10
    learner_steps: int = 1
    learning_starts: int = 480
    target_every: int = 500
    batch_size: int = 128
    replay_capacity: int = 10_000
    hidden_sizes: tuple[int, int] = (120, 84)
    learning_rate: float = 2.5e-4
    discount: float = 0.99


def polyak_side(settings, seed):
    """Measure the host loop of polyak."""
    import jax

    jax.config.update("jax_cpu_enable_async_dispatch", False)
    from polyak import experiments
    from polyak.agents import make_agent, make_configs

    fields = {
        "hidden_sizes": settings.hidden_sizes,
        "error": "squared",
        "discount": settings.discount,
        "batch_size": settings.batch_size,
        "learning_rate": settings.learning_rate,
        "target": f"periodic:{settings.target_every}env",
        "replay_capacity": settings.replay_capacity,
        "learning_starts": settings.learning_starts,
        "train_every": settings.train_every,
        "learner_steps": settings.learner_steps,
        "epsilon": "linear(1,0.05,50%)",
    }
    configs = make_configs("dqn", fields=fields)
    unit = configs.loop.environment_steps_per_learner_step
    environment = experiments.make("CartPole-v1", settings.num_envs, seed)
    agent = make_agent(configs.agent, environment.spec, environment_steps_per_learner_step=unit)
    replay = experiments.make_replay(agent, environment.spec, configs.loop, settings.num_envs)
    carry = experiments.initial_carry(agent, environment, replay, configs.loop, seed)
    start = None
    loop = experiments.host_loop(
        agent, environment, replay, configs.loop, carry, steps=settings.steps, record_every=500
    )
    for carry, _ in loop:
        if start is None and carry.steps >= settings.warm_up:
            start = (time.perf_counter(), carry.steps, carry.learner_steps, carry.statistics.episodes)
    jax.block_until_ready(carry.agent)
    seconds = time.perf_counter() - start[0]
    return (carry.steps - start[1]) / seconds, carry.learner_steps - start[2], carry.statistics.episodes - start[3]


def bare_side(settings, seed):
    """Measure the hand-written loop."""
    import jax

    jax.config.update("jax_cpu_enable_async_dispatch", False)
    import bare

    return bare.cartpole(settings, seed)


def sb3_side(settings, seed, threads):
    """Measure Stable-Baselines3."""
    import torch
    from stable_baselines3 import DQN

    if threads is not None:
        torch.set_num_threads(threads)
    return _baselines(DQN, settings, seed, net_arch=list(settings.hidden_sizes))


def sbx_side(settings, seed, calling_thread):
    """Measure SBX, Stable-Baselines3 in JAX."""
    import jax

    jax.config.update("jax_cpu_enable_async_dispatch", not calling_thread)
    from sbx import DQN

    return _baselines(DQN, settings, seed, net_arch=[100])


def _baselines(algorithm, settings, seed, net_arch):
    from stable_baselines3.common.env_util import make_vec_env

    model = algorithm(
        "MlpPolicy",
        make_vec_env("CartPole-v1", settings.num_envs, seed=seed),
        learning_rate=settings.learning_rate,
        buffer_size=settings.replay_capacity,
        learning_starts=settings.learning_starts,
        batch_size=settings.batch_size,
        gamma=settings.discount,
        train_freq=settings.train_every // settings.num_envs,
        gradient_steps=settings.learner_steps,
        target_update_interval=settings.target_every,
        exploration_initial_eps=1.0,
        exploration_final_eps=0.05,
        exploration_fraction=0.5,
        policy_kwargs={"net_arch": net_arch},
        seed=seed,
        device="cpu",
    )
    start = []

    def note(local, _):
        if not start and local["self"].num_timesteps >= settings.warm_up:
            start.extend((time.perf_counter(), model.num_timesteps, model._n_updates, model._episode_num))
        return True

    model.learn(settings.steps, callback=note, log_interval=None)
    seconds = time.perf_counter() - start[0]
    return (model.num_timesteps - start[1]) / seconds, model._n_updates - start[2], model._episode_num - start[3]


def sides(options, num_envs):
    """Sides by name, for the installed peers."""
    found = {"polyak": polyak_side}
    if num_envs == 1:
        found["bare"] = bare_side
    if timing.available(options, "torch") and timing.available(options, "stable_baselines3"):
        found["SB3, PyTorch's threads"] = functools.partial(sb3_side, threads=None)
        found["SB3, one thread"] = functools.partial(sb3_side, threads=1)
        if timing.available(options, "sbx"):
            found["SBX"] = functools.partial(sbx_side, calling_thread=False)
            found["SBX, calling thread"] = functools.partial(sbx_side, calling_thread=True)
    return found


def measure(options, case, settings, bars):
    """Run the rounds in sequence, each side in its own process."""
    found = sides(options, settings.num_envs)
    spawn = multiprocessing.get_context("spawn")
    pools = {name: concurrent.futures.ProcessPoolExecutor(1, mp_context=spawn) for name in found}
    seeds = {name: iter(range(1, options.rounds + 1)) for name in found}
    counts = {}

    def side(name):
        rate, *counts[name] = pools[name].submit(found[name], settings, next(seeds[name])).result()
        return rate

    figures = timing.alternate({name: functools.partial(side, name) for name in found}, options.rounds, warm_up=False)
    for pool in pools.values():
        pool.shutdown()
    ratios = [("polyak", name) for peer in ("SB3", "SBX", "bare") for name in _fastest(figures, peer)]
    named = {f"polyak / {name}": bar for peer, bar in bars.items() for name in found if name.startswith(peer)}
    timing.report(options, case, "environment steps/s", figures, ratios, named, learner_steps_and_episodes=counts)


def _fastest(figures, peer):
    return timing.best(figures, [name for name in figures if name.startswith(peer)], highest=True)


def main():
    """Measure both cases of the table."""
    options = timing.arguments(__doc__, rounds=5)
    steps, warm_up = (1_400, 1_000) if options.quick else (22_000, 2_000)
    measure(
        options,
        "CartPole-v1, one environment",
        Settings(steps, warm_up),
        {"SB3": "at least 3, aim 3.5", "bare": "at least 0.7, aim 0.8"},
    )
    measure(
        options,
        "CartPole-v1, 8 environments",
        Settings(steps, warm_up, num_envs=8, train_every=40, learner_steps=4),
        {"SB3": "at least 3"},
    )


if __name__ == "__main__":
    main()
