"""Cost of a target rule inside a learner step: any rule against no update at all of a target that still changes.

    python experiments/benchmarks/rule_cost.py

A DQN's learner step (batch 128, MLP of 120 and 84 units, Adam) 200 times in one donated ``lax.scan``, on 200 batches
that differ. "no update" is the same step under the rule ``frozen``, whose update compiles to nothing, with one
addition to the two biases of the target's last layer. That addition is the least that makes the target a thing that
changes from step to step: a constant one would be read once before the loop, and whatever XLA can compute from it alone
moves out of the loop with it, so the rules would be charged for work that belongs to the forward pass. That both sides
do the same forward work is printed: the matrix products in the body of the compiled loop.
``frozen`` without the addition is measured too.
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
    """``number`` batches of transitions as CartPole's, all different."""
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
    """A DQN as it is on CartPole under CleanRL's settings."""
    fields = {"hidden_sizes": (120, 84), "error": "squared", "learning_rate": 2.5e-4, "target": rule}
    spec = EnvironmentSpec(jax.ShapeDtypeStruct((4,), jnp.float32), 2)
    return make_agent(make_configs("dqn", fields=fields).agent, spec, total_learner_steps=1_000_000)


def side(rule, start, samples, calls):
    """Compiles learner steps under a rule; returns what measures one of them, and their matrix products."""
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
    """How many matrix products the largest loop body of a compiled program has, those of what it calls included."""
    bodies = dict(re.findall(r"^%?([\w.\-]+) \(.*?\{\n(.*?)^\}", program, re.MULTILINE | re.DOTALL))

    def count(name):
        text = bodies[name]
        called = re.findall(r"(?:calls|to_apply)=%?([\w.\-]+)", text)
        return len(re.findall(r" dot\(", text)) + sum(count(other) for other in called if other in bodies)

    return max(count(name) for name in re.findall(r"body=%?([\w.\-]+)", program))


def main():
    """Every rule against no update."""
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
