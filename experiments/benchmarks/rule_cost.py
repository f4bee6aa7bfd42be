"""Cost of a target rule in a learner step: any rule against a target that changes without an update rule.

    python experiments/benchmarks/rule_cost.py

A DQN's learner step (batch size 128, MLP of 120 and 84 units, Adam) runs 200 times in one donated ``lax.scan``, on 200
different batches. "no update" is the same step under the rule ``frozen``, whose update compiles to nothing, plus one
addition to the two biases of the target's last layer. The addition is the cheapest way to make the target change at
each step. XLA would move a constant target, and all computations that depend only on it, out of the loop. The rules
would then be charged for work of the forward pass. The benchmark prints the number of matrix products in the body of
the compiled loop, which shows that both sides do the same forward work. ``frozen`` without the addition is also
measured.
"""

import re

import jax
import jax.numpy as jnp
import numpy as np

import timing
from polyak.agents import make_agent, make_configs
from polyak.replay.types import EnvironmentSpec, Sample, Transition
from polyak.updates import repeat

RULES = ("periodic:50", "incremental:0.005", "incremental:0.005@4", "incremental:cosine(0.005)", "frozen")
BATCH, NO_UPDATE = 128, "no update"


def batches(number):
    """Make ``number`` different batches of transitions with CartPole's shapes."""
    generator = np.random.default_rng(0)
    shape = (number, BATCH)

    def observations():
        return generator.standard_normal((*shape, 4), np.float32)

    transition = Transition(
        observations(),
        generator.integers(2, size=shape).astype(np.int32),
        np.ones(shape, np.float32),
        np.where(generator.random(shape) < 0.05, 0, 0.99).astype(np.float32),
        observations(),
    )
    return jax.device_put(Sample(transition, np.ones(shape, np.float32), np.zeros(shape, np.int64)))


def agent_under(rule):
    """Make a DQN as on CartPole with CleanRL's settings."""
    fields = {"hidden_sizes": (120, 84), "error": "squared", "learning_rate": 2.5e-4, "target": rule}
    spec = EnvironmentSpec(jax.ShapeDtypeStruct((4,), jnp.float32), 2)
    return make_agent(make_configs("dqn", fields=fields).agent, spec, total_learner_steps=1_000_000)


def side(rule, start, samples, calls):
    """Compile learner steps under a rule; return a function that measures one step, and the matrix products."""
    agent = agent_under("frozen" if rule == NO_UPDATE else rule)

    def step(key, state, sample):
        state, output = agent.learn(key, state, sample)
        if rule == NO_UPDATE:
            slow = state.targets["q"]
            head = slow.params["head/q_values"]
            params = slow.params | {"head/q_values": head | {"b": head["b"] + 1e-6}}
            state = state._replace(targets={"q": slow._replace(params=params)})
        return state, output.metrics["loss"]

    state, key = jax.tree.map(jnp.copy, start), jax.random.key(1)
    program = jax.jit(repeat(step), donate_argnums=1)
    products = matrix_products(program.lower(key, state, samples).compile().as_text())

    def call():
        nonlocal state
        state, losses = program(key, state, samples)
        jax.block_until_ready((state, losses))

    steps, measure = len(samples.weights), timing.microseconds(call, calls)
    return (lambda: measure() / steps), products


def matrix_products(program):
    """Number of matrix products in the largest loop body of a compiled program, with those of called computations."""
    bodies = dict(re.findall(r"^%?([\w.\-]+) \(.*?\{\n(.*?)^\}", program, re.MULTILINE | re.DOTALL))

    def count(name):
        text = bodies[name]
        called = re.findall(r"(?:calls|to_apply)=%?([\w.\-]+)", text)
        return len(re.findall(r" dot\(", text)) + sum(count(other) for other in called if other in bodies)

    return max(count(name) for name in re.findall(r"body=%?([\w.\-]+)", program))


def main():
    """Measure every rule against no update."""
    options = timing.arguments(__doc__, rounds=15)
    samples, rules = batches(20 if options.quick else 200), RULES[:1] if options.quick else RULES
    start = agent_under("frozen").init(jax.random.key(0))
    sides = {rule: side(rule, start, samples, 1 if options.quick else 5) for rule in (NO_UPDATE, *rules)}
    figures = timing.alternate({rule: measure for rule, (measure, _) in sides.items()}, options.rounds)
    products = {rule: number for rule, (_, number) in sides.items()}
    ratios = [(rule, NO_UPDATE) for rule in rules]
    bars = {f"{rule} / {NO_UPDATE}": "at most 1.03" for rule in rules}
    timing.report(options, "DQN learner step", "µs", figures, ratios, bars, matrix_products_in_the_loop=products)


if __name__ == "__main__":
    main()
