"""Soft update outside ``jit``: polyak against optax's function, called eagerly, and against PyTorch in place.

    python experiments/benchmarks/target_update.py

- 50 million float32 in one array, and in 50 arrays of a million: ``polyak.updates.incremental_update(donate=True)``
  against ``optax.incremental_update`` and ``Tensor.lerp_`` (PyTorch's default number of threads).
- 160 small leaves (80 layers of 64x64 weights and 64 biases): polyak without and with ``donate=True`` against optax.

The benchmark waits for every call. Each side moves its own copy towards two online trees alternately, so that the
values keep changing and no call can be skipped. JAX runs with its defaults, as in a library user's script.
"""

import itertools

import jax
import numpy as np
import optax

import timing
from polyak import updates

STEP_SIZE = 0.005


def sides(options, shapes, calls, donated_alone):
    """Sides by name, for leaves of these shapes."""
    generator = np.random.default_rng(0)
    trees = [[generator.standard_normal(shape, np.float32) for shape in shapes] for _ in range(3)]
    online, other, start = ([jax.numpy.array(leaf) for leaf in tree] for tree in trees)

    def mover(update):
        turns = itertools.cycle((online, other))
        state = jax.block_until_ready(jax.tree.map(jax.numpy.copy, start))

        def call():
            nonlocal state
            state = jax.block_until_ready(update(next(turns), state, STEP_SIZE))

        return timing.microseconds(call, calls)

    found = {
        "polyak, donated": mover(lambda new, old, step: updates.incremental_update(new, old, step, donate=True)),
        "optax, eager": mover(optax.incremental_update),
    }
    if not donated_alone:
        found["polyak"] = mover(updates.incremental_update)
    elif timing.available(options, "torch"):
        found["PyTorch lerp_"] = _lerp(trees, calls)
    return found


def _lerp(trees, calls):
    import torch

    online, other, state = ([torch.tensor(leaf) for leaf in tree] for tree in trees)
    turns = itertools.cycle((online, other))

    def call():
        for old, new in zip(state, next(turns), strict=True):
            old.lerp_(new, STEP_SIZE)

    return timing.microseconds(call, calls)


def main():
    """Measure the three cases."""
    options = timing.arguments(__doc__, rounds=9)
    leaf, calls = (10_000, 3) if options.quick else (1_000_000, 10)
    bars = {"optax, eager / polyak, donated": "at least 10, aim 15", "PyTorch lerp_ / polyak, donated": "0.9, aim 1"}
    for how, shapes in (("one array", [(50 * leaf,)]), ("50 arrays", [(leaf,)] * 50)):
        figures = timing.alternate(sides(options, shapes, calls, True), options.rounds)
        ratios = [(peer, "polyak, donated") for peer in ("optax, eager", "PyTorch lerp_") if peer in figures]
        case = f"{50 * leaf / 1e6:g}M float32, {how}"
        timing.report(options, case, "µs", figures, ratios, bars if how == "one array" else {})
    figures = timing.alternate(
        sides(options, [(64, 64), (64,)] * 80, 3 if options.quick else 200, False), options.rounds
    )
    timing.report(
        options,
        "160 small leaves",
        "µs",
        figures,
        [("optax, eager", "polyak"), ("optax, eager", "polyak, donated")],
        {"optax, eager / polyak": "at least 8", "optax, eager / polyak, donated": "at least 14"},
    )


if __name__ == "__main__":
    main()
