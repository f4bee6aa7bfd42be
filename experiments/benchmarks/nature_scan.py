"""Convolutions of a DQN on CPU: 4 learner steps in one dispatch against 4 dispatches of one step.

    python experiments/benchmarks/nature_scan.py

A learner step of the network of Mnih et al. on images (84x84x4 bytes, batch size 32, Adam, donated state). XLA's CPU
backend runs convolutions an order of magnitude slower inside ``lax.scan`` than outside. Therefore a run that scans
lowers them to patches and a matrix product, and a run with single dispatches uses the convolution. Every call uses a
different batch. Dispatches are made in the calling thread, as on the command line.
"""

import itertools

import jax
import numpy as np

import timing
from polyak.agents import make_agent, make_configs
from polyak.replay.types import EnvironmentSpec, Sample, Transition
from polyak.updates import repeat

STEPS, BATCH = 4, 32


def batches(generator, image):
    """Make four batches of transitions, ``[4, 32, ...]``."""
    shape = (STEPS, BATCH)
    images = generator.integers(256, size=(2, *shape, *image), dtype=np.uint8)
    action = generator.integers(6, size=shape).astype(np.int32)
    ones = np.ones(shape, np.float32)
    transition = Transition(images[0], action, ones, np.float32(0.99) * ones, images[1])
    return Sample(transition, ones, np.zeros(shape, np.int64))


def agent_with(lowering, image):
    """Make the DQN of Mnih et al., except for its optimizer."""
    fields = {"torso": "nature", "hidden_sizes": (512,), "learning_rate": 1e-4, "target": "periodic:1000"}
    spec = EnvironmentSpec(jax.ShapeDtypeStruct(image, np.uint8), 6)
    return make_agent(make_configs("dqn", fields=fields).agent, spec, lowering=lowering)


def side(agent, scanned, start, samples, calls):
    """Measure the milliseconds of four learner steps."""
    state, key = jax.tree.map(jax.numpy.copy, start), jax.random.key(1)
    turns = itertools.cycle([[four] if scanned else _one_by_one(four) for four in samples])
    learn = jax.jit(repeat(agent.learn) if scanned else agent.learn, donate_argnums=1)

    def call():
        nonlocal state
        for sample in next(turns):
            state, _ = learn(key, state, sample)
        jax.block_until_ready(state)

    measure = timing.microseconds(call, calls)
    return lambda: measure() / 1000


def _one_by_one(four):
    return [jax.tree.map(lambda leaf, i=i: leaf[i], four) for i in range(STEPS)]


def main():
    """Measure scanned patches against single convolutions."""
    jax.config.update("jax_cpu_enable_async_dispatch", False)
    options = timing.arguments(__doc__, rounds=9)
    generator, calls = np.random.default_rng(0), 1 if options.quick else 5
    image = (36, 36, 1) if options.quick else (84, 84, 4)
    samples = [batches(generator, image) for _ in range(2)]
    scanned, single = "one dispatch of 4, patches", "4 dispatches, convolution"
    patches, convolution = (agent_with(lowering, image) for lowering in ("patches", "convolution"))
    start = convolution.init(jax.random.key(0))
    sides = {
        scanned: side(patches, True, start, samples, calls),
        single: side(convolution, False, start, samples, calls),
    }
    figures = timing.alternate(sides, options.rounds)
    bars = {f"{scanned} / {single}": "at most 1.05"}
    case = "Nature torso, 4 learner steps" + (" on small images" if options.quick else "")
    timing.report(options, case, "ms", figures, [(scanned, single)], bars)


if __name__ == "__main__":
    main()
