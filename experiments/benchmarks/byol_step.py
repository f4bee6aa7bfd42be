"""Cost of a target rule in BYOL's gradient step: the cosine rule against a target that never moves.

    python experiments/benchmarks/byol_step.py

The gradient step of ``polyak pretrain byol --data mnist5k`` with its defaults, one step at a time as in the loop, with
donation and different batches. The digits are replaced by noise of the same shape. ``frozen`` makes the same two
forward passes without a target update; ``none`` makes one forward pass.
"""

import functools

import jax
import jax.numpy as jnp
import numpy as np

import timing
from polyak.agents.byol import make_byol
from polyak.agents.parts import replace
from polyak.experiments.loops.pretraining import advance, initial_pretrain_carry
from polyak.experiments.runs.pretrain_config import PretrainConfig

RULES = ("incremental:cosine(0.01)", "incremental:0.01", "periodic:50", "none")
BASE = "frozen"
IMAGES = 4000


def side(rule, images, batch_size, calls):
    """Compile a gradient step under a rule; return a function that measures it."""
    config = replace(PretrainConfig(), {"target": rule})
    image = jax.ShapeDtypeStruct(images.shape[1:], images.dtype)
    byol = make_byol(config.byol, image, total_learner_steps=config.steps)
    carry = initial_pretrain_carry(byol, jax.ShapeDtypeStruct((batch_size, *image.shape), image.dtype), seed=0)
    program = jax.jit(functools.partial(advance, byol, batch_size), donate_argnums=0)

    def call():
        nonlocal carry
        carry = program(carry, images)
        jax.block_until_ready(carry)

    return timing.microseconds(call, calls)


def main():
    """Measure every rule against a frozen target."""
    options = timing.arguments(__doc__, rounds=15)
    batch_size, rules = (8, RULES[:1]) if options.quick else (PretrainConfig().batch_size, RULES)
    generator = np.random.default_rng(0)
    images = jnp.asarray(generator.integers(0, 256, (IMAGES, 28, 28, 1)).astype(np.uint8))
    sides = {rule: side(rule, images, batch_size, 1 if options.quick else 10) for rule in (BASE, *rules)}
    figures = timing.alternate(sides, options.rounds)
    ratios = [(rule, BASE) for rule in rules]
    bars = {f"{rule} / {BASE}": "at most 1.03" for rule in rules if rule != "none"}
    timing.report(options, "BYOL gradient step on 28x28", "µs", figures, ratios, bars)


if __name__ == "__main__":
    main()
