"""Cost of Rainbow's components: its learner step against that of C51, with the same network below the head.

    python experiments/benchmarks/learner_step.py

Two sizes are measured: an MLP as on CartPole-v1 (batch size 128, 50 steps in one donated ``lax.scan``), and the
convolutions of Mnih et al. on images of 84x84x4 (batch size 32, one step per dispatch). Every step uses a different
batch. C51 is also measured with each single component of Rainbow, and Rainbow without the components that could be
smaller: the optimizer state (sgd) and the target network.
"""

import jax
import jax.numpy as jnp
import numpy as np

import timing
from polyak.agents import make_agent, make_configs
from polyak.replay import EnvironmentSpec, Sample, Transition
from polyak.updates import repeat

PARTS = {"double": {"double": True}, "dueling": {"dueling": True}, "noisy": {"noisy_sigma": 0.1}}
WITHOUT = {"sgd": {"optimizer": "sgd"}, "no target": {"target": "none"}}
SIZES = {
    "MLP, 50 steps in a scan": (((4,), np.float32), (120, 84), 128, 50),
    "Nature convolutions": (((84, 84, 4), np.uint8), (512,), 32, 1),
}


def batches(shape, dtype, number, size):
    """Make ``number`` different batches of transitions."""
    rng, leading = np.random.default_rng(0), (number, size)

    def observations():
        return rng.integers(0, 255, (*leading, *shape)).astype(dtype)

    a_tm1, r_t = rng.integers(2, size=leading).astype(np.int32), rng.uniform(size=leading).astype(np.float32)
    transition = Transition(observations(), a_tm1, r_t, np.full(leading, 0.99, np.float32), observations())
    return jax.device_put(Sample(transition, np.ones(leading, np.float32), np.zeros(leading, np.int32)))


def side(name, fields, spec, samples, steps, calls):
    """Return a function that measures one learner step of an agent."""
    # The support is given, because there are no rewards to derive it from.
    config = make_configs(name, fields={"v_min": -10.0, "v_max": 10.0, **fields}).agent
    lowering = "patches" if steps > 1 else "convolution"
    agent = make_agent(config, spec, total_learner_steps=1_000_000, lowering=lowering)
    program = jax.jit(repeat(agent.learn) if steps > 1 else agent.learn, donate_argnums=1)
    given = [samples] if steps > 1 else [jax.tree.map(lambda leaf, i=i: leaf[i], samples) for i in range(calls)]
    state, key, turn = agent.init(jax.random.key(0)), jax.random.key(1), 0

    def call():
        nonlocal state, turn
        state, output = program(key, state, given[turn % len(given)])
        turn += 1
        jax.block_until_ready((state, output))

    measure = timing.microseconds(call, calls)
    return lambda: measure() / steps


def main():
    """Measure Rainbow, C51, and C51 with one more component, at both sizes."""
    options = timing.arguments(__doc__, rounds=9)
    for case, ((shape, dtype), hidden_sizes, batch_size, steps) in list(SIZES.items())[: 1 if options.quick else None]:
        spec, calls = EnvironmentSpec(jax.ShapeDtypeStruct(shape, jnp.dtype(dtype)), 2), 1 if options.quick else 10
        number = steps if steps > 1 else calls
        samples = batches(shape, dtype, number, batch_size)
        agents = {"C51": ("c51", {}), "Rainbow": ("rainbow", {})}
        if not options.quick:
            agents |= {f"C51, {name}": ("c51", part) for name, part in PARTS.items()}
            agents |= {f"Rainbow, {name}": ("rainbow", part) for name, part in WITHOUT.items()}
        sides = {
            label: side(name, {"hidden_sizes": hidden_sizes, **part}, spec, samples, steps, calls)
            for label, (name, part) in agents.items()
        }
        figures = timing.alternate(sides, options.rounds)
        ratios = [(name, "C51") for name in agents if name != "C51"]
        timing.report(options, f"learner step, {case}", "µs", figures, ratios, {"Rainbow / C51": "at most 1.3"})


if __name__ == "__main__":
    main()
