"""Replays of a million small steps: add of 8 environments, sample of 128, priority update; on host and device.

    python experiments/benchmarks/replay.py

All replays store observation (4 float32), action, reward, next observation and whether the episode ended. They are
completely filled before the measurement, by repeating a thousand steps of eight environments whose episodes end at
random about every 50 steps. Samples are NumPy arrays; those of SB3 are tensors over the same memory.

- polyak: ``polyak.replay.host``. It stores each observation once, so the end of an episode takes one more row, and it
  checks its input.
- cpprb: ``ReplayBuffer`` with stored next observations, the faster of its two modes.
- SB3: ``ReplayBuffer`` with ``n_envs=8``, with separate handling of time limits as in its algorithms.
- bare: five NumPy arrays and a position (bare.py), without checks and without separate handling of time limits.

Prioritized sampling is compared with cpprb's ``PrioritizedReplayBuffer``; every step has a different priority. Polyak
sums the changes at the next sample and cpprb at the update, so the third case measures both in sequence.

Stacks of four frames of 84 x 84 bytes are sampled from 50 thousand steps. SB3 stores each whole stack twice: with its
observation, and as the next observation of the previous step. Polyak stores each frame once. SB3's samples are tensors,
so the sample is also measured with the transfer to JAX, which changes the memory order of the frames.

The device replay (``polyak.replay.device``) is compared with flashbax's prioritized flat buffer. Both are compiled with
donated states, and each call waits for its result. Flashbax stores observation, action, reward and the end of an
episode of each step, and its samples are pairs of consecutive steps, also across the end of an episode.
"""

import itertools

import numpy as np

import bare
import timing
from polyak.replay import DrawNumbers, EnvironmentSpec, Step, device, host

NUM_ENVS, BATCH = 8, 128
ALPHA, BETA = 0.6, 0.4


def steps_of_eight(number=1_000):
    """Make steps of eight environments; the observations of one step are the next observations of the previous one."""
    generator = np.random.default_rng(0)
    observation = generator.standard_normal((NUM_ENVS, 4), np.float32)
    found = []
    for _ in range(number):
        following = generator.standard_normal((NUM_ENVS, 4), np.float32)
        last = generator.random(NUM_ENVS) < 1 / 50
        action = generator.integers(2, size=NUM_ENVS).astype(np.int32)
        reward = np.ones(NUM_ENVS, np.float32)
        found.append(Step(observation, action, reward, np.float32(1) - last, last, following))
        observation = np.where(last[:, None], generator.standard_normal((NUM_ENVS, 4), np.float32), following)
    return found


def polyak_store(capacity, steps):
    """Measure add and sample of polyak's host replay."""
    import jax

    spec = EnvironmentSpec(jax.ShapeDtypeStruct((4,), np.float32), num_actions=2)
    replay = host.make(spec, num_envs=NUM_ENVS, capacity=capacity, batch_size=BATCH)
    state, given, next_key = replay.init(), itertools.cycle(steps), keys()

    def add():
        nonlocal state
        state = replay.add(state, next(given))

    return add, lambda: replay.sample(next(next_key), state, DrawNumbers())


def keys():
    """Keys of samples: the two words of a run's key and the number of the sample."""
    return (np.array([0, 0, number], np.uint32) for number in itertools.count())


def bare_store(capacity, steps):
    """Measure add and sample of the hand-written ring buffer."""
    ring, given = bare.Ring(capacity, NUM_ENVS), itertools.cycle(steps)

    def add():
        step = next(given)
        ring.add(step.obs_tm1, step.a_tm1, step.r_t, step.obs_t, step.last)

    return add, lambda: ring.sample(BATCH)


def cpprb_store(capacity, steps):
    """Measure add and sample of cpprb."""
    import cpprb

    fields = {"obs": {"shape": 4}, "act": {"dtype": np.int32}, "rew": {}, "next_obs": {"shape": 4}, "done": {}}
    buffer = cpprb.ReplayBuffer(capacity, fields)
    given = itertools.cycle([(s.obs_tm1, s.a_tm1, s.r_t, s.obs_t, s.last.astype(np.float32)) for s in steps])

    def add():
        obs, act, rew, next_obs, done = next(given)
        buffer.add(obs=obs, act=act, rew=rew, next_obs=next_obs, done=done)

    return add, lambda: buffer.sample(BATCH)


def sb3_store(capacity, steps):
    """Measure add and sample of SB3."""
    import gymnasium
    from stable_baselines3.common.buffers import ReplayBuffer

    spaces = gymnasium.spaces.Box(-np.inf, np.inf, (4,), np.float32), gymnasium.spaces.Discrete(2)
    buffer = ReplayBuffer(capacity, *spaces, device="cpu", n_envs=NUM_ENVS)
    infos = [{} for _ in range(NUM_ENVS)]
    given = itertools.cycle([(s.obs_tm1, s.obs_t, s.a_tm1, s.r_t, s.last) for s in steps])
    return (lambda: buffer.add(*next(given), infos)), (lambda: buffer.sample(BATCH))


def polyak_priorities(capacity, steps):
    """Measure prioritized sample and priority update of polyak's host replay."""
    import jax

    spec = EnvironmentSpec(jax.ShapeDtypeStruct((4,), np.float32), num_actions=2)
    replay = host.make(spec, num_envs=NUM_ENVS, capacity=capacity, batch_size=BATCH, priority_exponent=ALPHA)
    state, next_key, numbers = replay.init(), keys(), DrawNumbers(importance_exponent=BETA)
    for step in itertools.islice(itertools.cycle(steps), capacity // NUM_ENVS + len(steps)):
        state = replay.add(state, step)
    starts = np.flatnonzero(~state.boundary)
    priorities = np.random.default_rng(0).exponential(size=len(starts))
    state = replay.update_priorities(state, state.writing[starts], priorities)

    def update(rows, priorities):
        nonlocal state
        state = replay.update_priorities(state, rows, priorities)

    return (lambda: replay.sample(next(next_key), state, numbers).rows), update


def cpprb_priorities(capacity, steps):
    """Measure prioritized sample and priority update of cpprb."""
    import cpprb

    fields = {"obs": {"shape": 4}, "act": {"dtype": np.int32}, "rew": {}, "next_obs": {"shape": 4}, "done": {}}
    buffer = cpprb.PrioritizedReplayBuffer(capacity, fields, alpha=ALPHA)
    for s in itertools.islice(itertools.cycle(steps), capacity // NUM_ENVS + len(steps)):
        buffer.add(obs=s.obs_tm1, act=s.a_tm1, rew=s.r_t, next_obs=s.obs_t, done=s.last.astype(np.float32))
    generator = np.random.default_rng(0)
    for rows in np.array_split(np.arange(capacity), 1_000):
        buffer.update_priorities(rows, generator.exponential(size=len(rows)))
    return (lambda: buffer.sample(BATCH, BETA)["indexes"]), buffer.update_priorities


def cases_of_priorities(draw, update):
    """Make three calls: a sample, an update of the previous sample, and both in sequence."""
    generator = np.random.default_rng(1)
    drawn = itertools.cycle([draw() for _ in range(1_000)])
    priorities = itertools.cycle([generator.exponential(size=BATCH).astype(np.float32) for _ in range(100)])
    return (
        draw,
        lambda: update(next(drawn), next(priorities)),
        lambda: update(draw(), next(priorities)),
    )


def polyak_stacks(capacity):
    """Measure a sample of stacks from polyak's host replay, without and with the transfer to JAX."""
    import jax

    frame = np.random.default_rng(0).integers(256, size=(1, 84, 84), dtype=np.uint8)
    spec = EnvironmentSpec(jax.ShapeDtypeStruct((84, 84), np.uint8), num_actions=2)
    replay = host.make(spec, num_envs=1, capacity=capacity, batch_size=32, stack=4)
    state, next_key = replay.init(), keys()
    one = np.ones(1, np.float32)
    for number in range(capacity + 100):
        last = np.array([number % 500 == 499])
        state = replay.add(state, Step(frame, np.zeros(1, np.int32), one, one - last, last, frame))

    def draw():
        return replay.sample(next(next_key), state, DrawNumbers())

    def given_to_jax():
        transition = draw().transition
        return jax.block_until_ready(jax.device_put((transition.obs_tm1, transition.obs_t)))

    return {"polyak": draw, "polyak, to JAX": given_to_jax}


def sb3_stacks(capacity):
    """Measure a sample of stacks from SB3's buffer."""
    import gymnasium
    from stable_baselines3.common.buffers import ReplayBuffer

    spaces = gymnasium.spaces.Box(0, 255, (84, 84, 4), np.uint8), gymnasium.spaces.Discrete(2)
    buffer = ReplayBuffer(capacity, *spaces, device="cpu")
    stack = np.random.default_rng(0).integers(256, size=(1, 84, 84, 4), dtype=np.uint8)
    for number in range(capacity):
        buffer.add(stack, stack, np.zeros(1, np.int32), np.ones(1, np.float32), np.array([number % 500 == 499]), [{}])
    return lambda: buffer.sample(32)


def polyak_device(capacity, steps):
    """Measure add, prioritized sample and priority update of polyak's device replay."""
    import jax

    spec = EnvironmentSpec(jax.ShapeDtypeStruct((4,), np.float32), num_actions=2)
    replay = device.make(spec, num_envs=NUM_ENVS, capacity=capacity, batch_size=BATCH, priority_exponent=ALPHA)
    state, given, next_key = replay.init(), itertools.cycle(jax.device_put(steps)), keys()
    numbers = DrawNumbers(importance_exponent=BETA)

    def add():
        nonlocal state
        state = jax.block_until_ready(replay.add(state, next(given)))

    def update(rows, priorities):
        nonlocal state
        state = jax.block_until_ready(replay.update_priorities(state, rows, priorities))

    return add, lambda: jax.block_until_ready(replay.sample(next(next_key), state, numbers)).rows, update


def flashbax_device(capacity, steps):
    """Measure add, prioritized sample and priority update of flashbax."""
    import flashbax
    import jax

    buffer = flashbax.make_prioritised_flat_buffer(
        capacity, BATCH, BATCH, add_batch_size=NUM_ENVS, priority_exponent=ALPHA, device=jax.default_backend()
    )
    experience = [
        {"observation": s.obs_tm1, "action": s.a_tm1, "reward": s.r_t, "discount": s.discount_t} for s in steps
    ]
    given = itertools.cycle(jax.device_put(experience))
    state = buffer.init(jax.tree.map(lambda leaf: leaf[0], experience[0]))
    add_to, draw_from = jax.jit(buffer.add, donate_argnums=0), jax.jit(buffer.sample)
    set_priorities = jax.jit(buffer.set_priorities, donate_argnums=0)
    next_key = itertools.cycle(list(jax.random.split(jax.random.PRNGKey(0), 1_000)))

    def add():
        nonlocal state
        state = jax.block_until_ready(add_to(state, next(given)))

    def update(rows, priorities):
        nonlocal state
        state = jax.block_until_ready(set_priorities(state, rows, priorities))

    return add, lambda: jax.block_until_ready(draw_from(state, next(next_key))).indices, update


def measure_device(options):
    """Fill the replays on the device, then measure adds, prioritized samples and priority updates."""
    import jax

    jax.config.update("jax_cpu_enable_async_dispatch", False)  # as in the host loop
    capacity, calls = (20_000, 50) if options.quick else (1_000_000, 2_000)
    steps = steps_of_eight()
    stores = {"polyak": polyak_device(capacity, steps)}
    if timing.available(options, "flashbax"):
        stores["flashbax"] = flashbax_device(capacity, steps)
    for add, draw, update in stores.values():
        for _ in range(capacity // NUM_ENVS + len(steps)):
            add()
        generator = np.random.default_rng(0)
        for _ in range(calls):
            update(draw(), generator.exponential(size=BATCH).astype(np.float32))
    stores = {name: (add, *cases_of_priorities(draw, update)[:2]) for name, (add, draw, update) in stores.items()}
    bars = {"add of 8": "", "prioritized draw of 128": "at most 1", "priority update of 128": "at most 1"}
    for number, (case, bar) in enumerate(bars.items()):
        sides = {name: timing.microseconds(calls_of[number], calls) for name, calls_of in stores.items()}
        figures = timing.alternate(sides, options.rounds)
        ratios = [("polyak", name) for name in timing.best(figures, ("flashbax",))]
        case = f"{capacity:,} steps on the device, {case}"
        timing.report(options, case, "µs", figures, ratios, {"polyak / flashbax": bar})


def measure_uniform(options):
    """Fill the replays, then measure adds and samples."""
    capacity, calls = (20_000, 200) if options.quick else (1_000_000, 5_000)
    stores = {"polyak": polyak_store, "bare": bare_store}
    if timing.available(options, "cpprb"):
        stores["cpprb"] = cpprb_store
    if timing.available(options, "stable_baselines3"):
        stores["SB3"] = sb3_store
    steps = steps_of_eight()
    stores = {name: store(capacity, steps) for name, store in stores.items()}
    for add, _ in stores.values():
        for _ in range(capacity // NUM_ENVS + len(steps)):
            add()
    for number, case in enumerate(("add of 8", "draw of 128")):
        sides = {name: timing.microseconds(calls_of[number], calls) for name, calls_of in stores.items()}
        figures = timing.alternate(sides, options.rounds)
        ratios = [("polyak", name) for name in (*timing.best(figures, ("cpprb", "SB3")), "bare")]
        bars = {f"polyak / {name}": "at most 1, aim 0.7" for name in ("cpprb", "SB3")}
        timing.report(options, f"{capacity:,} steps, {case}", "µs", figures, ratios, bars)


def measure_priorities(options):
    """Fill the replays, then measure prioritized samples and priority updates."""
    capacity, calls = (20_000, 200) if options.quick else (1_000_000, 5_000)
    steps = steps_of_eight()
    stores = {"polyak": cases_of_priorities(*polyak_priorities(capacity, steps))}
    if timing.available(options, "cpprb"):
        stores["cpprb"] = cases_of_priorities(*cpprb_priorities(capacity, steps))
    bars = {"prioritized draw of 128": "at most 0.7", "priority update of 128": "at most 1", "both in turn": ""}
    for number, (case, bar) in enumerate(bars.items()):
        sides = {name: timing.microseconds(calls_of[number], calls) for name, calls_of in stores.items()}
        figures = timing.alternate(sides, options.rounds)
        ratios = [("polyak", name) for name in timing.best(figures, ("cpprb",))]
        timing.report(options, f"{capacity:,} steps, {case}", "µs", figures, ratios, {"polyak / cpprb": bar})


def measure_stacks(options):
    """Fill the replays, then measure samples of stacks."""
    capacity, calls = (500, 10) if options.quick else (50_000, 200)
    sides = polyak_stacks(capacity)
    if timing.available(options, "stable_baselines3"):
        sides["SB3"] = sb3_stacks(capacity)
    figures = timing.alternate({name: timing.microseconds(call, calls) for name, call in sides.items()}, options.rounds)
    ratios = [(side, name) for name in timing.best(figures, ("SB3",)) for side in ("polyak", "polyak, to JAX")]
    bars = {f"{side} / SB3": "at most 1.5" for side in ("polyak", "polyak, to JAX")}
    timing.report(options, f"{capacity:,} steps, draw of 32 stacks", "µs", figures, ratios, bars)


def main():
    """Measure uniform samples, prioritized samples, stacks, and the device replay."""
    options = timing.arguments(__doc__, rounds=9)
    measure_uniform(options)
    measure_priorities(options)
    measure_stacks(options)
    measure_device(options)


if __name__ == "__main__":
    main()
