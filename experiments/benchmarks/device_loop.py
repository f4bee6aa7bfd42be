"""Device loop: time of a loop step against a learner step alone, the host loop and purejaxrl, and the rate of 16 seeds.

    python experiments/benchmarks/device_loop.py

Each loop step acts in 10 environments, stores the steps, draws a batch and makes one learner step. Each side runs in
its own process, which compiles its programs before the first round and waits while the others run. In a round each side
runs for ``--seconds``. Dispatches are made in the calling thread, as on the command line. All sides use Adam, the
squared error, a hard target update every 500 environment steps, and epsilon 0.05.

CartPole-v1, an MLP of 120 and 84 units, batch size 128:

- device loop: ``device_loop`` of polyak with a record every ``--record-every`` environment steps, and with one every
  500 as on the command line.
- floor: the learner step of the same agent alone, the state donated, with another key and another batch in each step;
  as one program per step, and as a compiled loop of 64 steps that sums the metrics. The faster of the two counts.
- host loop: ``host_loop`` of polyak on Gymnasium's environment, with the host replay.
- purejaxrl: its DQN from a clone of github.com/luchris429/purejaxrl, given by ``--purejaxrl``; it needs flax, flashbax
  and gymnax. Its program is a whole run of 10 000 loop steps (2000 on MinAtar), of which the first 50 have no learner
  step. It counts a time limit as a termination.

MinAtar's Breakout of gymnax, the convolutional network of MinAtar, batch size 32: the device loop, the floor, and
purejaxrl with the same network in flax. This case needs gymnax.

On a CPU, XLA runs the compiled sides with its default number of threads and with one thread; the faster counts.

Seeds: environment steps per second over all runs of the CartPole case, for one seed in the device loop and for
``--seeds`` lanes of one program in the loop of sweeps. On a CPU there is a host device for each core, with one thread
each. The lanes of a device run one after the other (map) or as one batch (vmap).
"""

import concurrent.futures
import functools
import importlib.metadata
import importlib.util
import multiprocessing
import os
import pathlib
import subprocess
import time

import timing

ONE_THREAD = "--xla_cpu_multi_thread_eigen=false intra_op_parallelism_threads=1"
CASES = ("cartpole", "minatar", "seeds")
ONE = ", one thread"
_calls = {}


def options_of(parser):
    """Add the options of this benchmark."""
    parser.add_argument("--seconds", type=float, default=5.0, help="seconds of each side in a round (default: 5)")
    parser.add_argument("--cases", nargs="+", choices=CASES, default=CASES, help="cases to measure (default: all)")
    parser.add_argument("--purejaxrl", type=pathlib.Path, help="folder of a clone of purejaxrl")
    parser.add_argument("--num-envs", type=int, default=10, help="environments of each run (default: 10)")
    parser.add_argument("--batch-size", type=int, default=128, help="batch size on CartPole (default: 128)")
    parser.add_argument("--replay-capacity", type=int, default=10_000, help="capacity on CartPole (default: 10000)")
    parser.add_argument("--minatar-batch-size", type=int, default=32, help="batch size on MinAtar (default: 32)")
    parser.add_argument("--minatar-replay-capacity", type=int, default=100_000, help="on MinAtar (default: 100000)")
    parser.add_argument("--record-every", type=int, default=10_000, help="steps between records (default: 10000)")
    parser.add_argument("--seeds", type=int, nargs="+", default=[16], help="numbers of lanes (default: 16)")
    parser.add_argument("--lanes", nargs="+", choices=("map", "vmap"), default=("map", "vmap"), help="default: both")


def case_of(options, name):
    """Settings of a case, as arguments of ``device_sides.Case``."""
    is_minatar = name == "minatar"
    settings = {
        "env": "gymnax/Breakout-MinAtar" if is_minatar else "CartPole-v1",
        "gymnax": "Breakout-MinAtar" if is_minatar else "CartPole-v1",
        "torso": "minatar" if is_minatar else "mlp",
        "num_envs": options.num_envs,
        "batch_size": options.minatar_batch_size if is_minatar else options.batch_size,
        "hidden_sizes": (128,) if is_minatar else (120, 84),
        "replay_capacity": options.minatar_replay_capacity if is_minatar else options.replay_capacity,
        "record_every": options.record_every,
        "call_steps": 2_000 if is_minatar else 10_000,
    }
    if options.quick:
        short = {"record_every": 20 * options.num_envs, "call_steps": 2_000 // options.num_envs}
        settings |= short | {"batches": 4, "replay_capacity": 1_000}
    return settings


def begin(name, settings, more, flags):
    """Make a side in its process: compile its programs, and run it once."""
    os.environ["XLA_FLAGS"] = f"{os.environ.get('XLA_FLAGS', '')} {flags}".strip()  # before JAX is imported
    import jax

    jax.config.update("jax_cpu_enable_async_dispatch", False)
    import device_sides

    _calls["call"] = getattr(device_sides, name)(device_sides.Case(**settings), **more)
    _calls["call"]()
    return jax.default_backend()


def measure(seconds):
    """Return the seconds per step of the side of this process."""
    started, steps, passed = time.perf_counter(), 0, 0.0
    while not steps or passed < seconds:
        steps += _calls["call"]()
        passed = time.perf_counter() - started
    return passed / steps


def rounds(options, sides):
    """Seconds per step of each side, by its name: ``(function of device_sides, settings, arguments, XLA flags)``."""
    spawn = multiprocessing.get_context("spawn")
    pools = {name: concurrent.futures.ProcessPoolExecutor(1, mp_context=spawn) for name in sides}
    for name, side in sides.items():
        backend = pools[name].submit(begin, *side).result()
    seconds = 0.0 if options.quick else options.seconds
    calls = {
        name: functools.partial(lambda pool: pool.submit(measure, seconds).result(), pools[name]) for name in sides
    }
    figures = timing.alternate(calls, options.rounds, warm_up=False)
    for pool in pools.values():
        pool.shutdown()
    return figures, backend


def threads(name, side, settings, more):
    """A side with XLA's default number of threads, and with one."""
    return {name: (side, settings, more, ""), f"{name}{ONE}": (side, settings, more, ONE_THREAD)}


def measure_loop(options, name, bars):
    """Measure the microseconds of a loop step."""
    settings = case_of(options, name)
    sides = threads("device loop", "device_side", settings, {})
    sides |= threads("floor", "floor_side", settings, {}) | threads(
        "floor in a loop", "floor_in_loop_side", settings, {}
    )
    if name == "cartpole":
        often = settings if options.quick else settings | {"record_every": 500}
        sides["device loop, record every 500"] = ("device_side", often, {}, "")
        sides["host loop"] = ("host_side", settings, {}, "")
    peers = {}
    if purejaxrl_is_there(options):
        peers = versions(options.purejaxrl)
        sides |= threads("purejaxrl", "purejaxrl_side", settings, {"folder": options.purejaxrl.resolve()})
    found, backend = rounds(options, sides)
    figures = {side: [1e6 * seconds for seconds in values] for side, values in found.items()}

    def fastest(*starts):
        return timing.best(figures, [name for start in starts for name in (start, f"{start}{ONE}")])

    (device,), (floor,) = fastest("device loop"), fastest("floor", "floor in a loop")
    ratios = [(device, floor), *((peer, device) for peer in (*fastest("host loop"), *fastest("purejaxrl")))]
    others = [floor, *(peer for peer, _ in ratios[1:])]
    named = {
        f"{a} / {b}": bar
        for (a, b), other in zip(ratios, others, strict=True)
        for peer, bar in bars.items()
        if other.startswith(peer)
    }
    timing.report(
        options, f"loop step, {settings['gymnax']}", "µs", figures, ratios, named, backend=backend, peers=peers
    )


def measure_seeds(options):
    """Measure the environment steps per second of one seed and of many."""
    settings, one = case_of(options, "cartpole"), "one seed"
    sides = threads(one, "device_side", settings, {})
    flags = f"--xla_force_host_platform_device_count={os.cpu_count()} {ONE_THREAD}"
    for number in [2] if options.quick else options.seeds:
        for lanes in options.lanes:
            sides[f"{number} seeds, {lanes}"] = ("sweep_side", settings, {"seeds": number, "lanes": lanes}, flags)
    found, backend = rounds(options, sides)
    figures = {
        side: [(options.num_envs if side.startswith(one) else 1) / seconds for seconds in values]
        for side, values in found.items()
    }
    (single,) = timing.best(figures, [side for side in figures if side.startswith(one)], highest=True)
    ratios = [(side, single) for side in figures if not side.startswith(one)]
    best = timing.best(figures, [side for side in figures if side.startswith("16 seeds")], highest=True)
    bars = {f"{side} / {single}": "at least 1.7" for side in best}
    timing.report(options, "seeds, CartPole-v1", "environment steps/s", figures, ratios, bars, backend=backend)


def purejaxrl_is_there(options):
    """Whether to measure purejaxrl; print what is missing."""
    if options.alone:
        return False
    missing = [name for name in ("flax", "flashbax", "gymnax") if importlib.util.find_spec(name) is None]
    if options.purejaxrl is None or missing:
        lacks = f"needs {', '.join(missing)}" if missing else "needs --purejaxrl FOLDER, a clone of its repository"
        print(f"purejaxrl {lacks}, and is left out", flush=True)
        return False
    if not (options.purejaxrl / "purejaxrl" / "dqn.py").is_file():
        raise SystemExit(f"--purejaxrl: {options.purejaxrl} has no file purejaxrl/dqn.py")
    return True


def versions(folder):
    """Versions of purejaxrl, which is the commit of its clone, and of the packages that it needs."""
    commit = subprocess.run(["git", "-C", folder, "rev-parse", "HEAD"], capture_output=True, text=True).stdout.strip()
    packages = {name: importlib.metadata.version(name) for name in ("flax", "flashbax", "gymnax")}
    return {"purejaxrl": commit or "unknown", **packages}


def main():
    """Measure the cases of the table."""
    options = timing.arguments(__doc__, rounds=5, add=options_of)
    if "cartpole" in options.cases:
        bars = {"floor": "at most 1.3, aim 1.15", "purejaxrl": "at least 1.3", "host loop": "at least 5"}
        measure_loop(options, "cartpole", bars)
    if "minatar" in options.cases:
        if importlib.util.find_spec("gymnax") is None:
            print('gymnax is not installed, and MinAtar is left out; python -m pip install ".[gymnax]" installs it')
        else:
            measure_loop(options, "minatar", {"floor": "at most 1.3", "purejaxrl": "at least 2"})
    if "seeds" in options.cases:
        measure_seeds(options)


if __name__ == "__main__":
    main()
