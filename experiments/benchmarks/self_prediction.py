"""Cost of self-prediction over five steps: its learner step against the sum of its parts, measured separately.

    python experiments/benchmarks/self_prediction.py

The parts are the learner step of the same agent without self-prediction, and the predictions alone: the target's
features of the next five observations, the model applied five times to given features, the loss, and its gradient with
respect to the model's parameters and these features. The features are not included, because the value loss computes
them. The cases are a dense network on vectors (batch size 128) and SPR on frames of 84x84x4 (batch size 32); successive
calls use 8 different batches.
"""

import itertools

import jax
import jax.numpy as jnp
import numpy as np

import timing
from polyak.agents import Views, make_agent, make_configs
from polyak.agents.agent_network import make_networks
from polyak.agents.latents import predict_latents
from polyak.agents.terms import make_self_prediction_term
from polyak.replay.types import EnvironmentSpec, Sample, Sequence, Transition
from polyak.updates import Variables

HORIZON, BATCHES = 5, 8
CASES = {
    "dense": ("n_step_double_dqn", "classic", (4,), np.float32, {"self_prediction": "mlp", "horizon": HORIZON}),
    "SPR": ("spr", "atari", (84, 84, 4), np.uint8, {}),
}


def batches(shape, dtype, size, number):
    """Make ``number`` different batches of transitions with their future steps."""
    generator = np.random.default_rng(0)

    def observations(*leading):
        if dtype == np.uint8:
            return generator.integers(256, size=(*leading, *shape)).astype(np.uint8)
        return generator.standard_normal((*leading, *shape), np.float32)

    def batch():
        obs, actions = observations(size, HORIZON + 1), generator.integers(2, size=(size, HORIZON)).astype(np.int32)
        ones, no = np.ones((size, HORIZON), np.float32), np.zeros(size, bool)
        future = Sequence(obs, actions, ones, ones, ones > 0, no, ~no, (), (), np.ones(size, np.int32))
        drawn = Transition(obs[:, 0], actions[:, 0], ones[:, 0], 0.9 * ones[:, 0], observations(size))
        return Sample(drawn, np.ones(size, np.float32), np.zeros(size, np.int64), future)

    return [jax.device_put(batch()) for _ in range(number)]


def learner_step(config, spec, samples, calls):
    """Return a function that measures a learner step."""
    agent = make_agent(config, spec, total_learner_steps=1_000_000)
    program, state, key = jax.jit(agent.learn, donate_argnums=1), agent.init(jax.random.key(0)), jax.random.key(1)
    turn = itertools.cycle(samples)

    def call():
        nonlocal state
        state, output = program(key, state, next(turn))
        jax.block_until_ready((state, output))

    return timing.microseconds(call, calls)


def predictions(config, spec, samples, calls):
    """Return a function that measures the predictions and their gradient, for given features."""
    (network, _), term = make_networks(config, spec, None, "convolution"), make_self_prediction_term(config)
    params, state = network.init(jax.random.key(0), samples[0].transition.obs_tm1[:1])
    slow = jax.tree.map(jnp.copy, params)
    hidden = network.encode(params, state, None, samples[0].transition.obs_tm1, False)[0][:, None]
    learns = jnp.ones(hidden.shape[:2], bool)

    def loss(inputs, sample):
        params, hidden = inputs
        online, of_target = Variables(params, state), Variables(slow, state)
        latents = predict_latents(config.self_prediction, network, online, of_target, sample, hidden, None, learns)
        return jnp.mean(term(jax.random.key(0), Views(sample, None, None, {}, online, latents)).loss)

    program, turn = jax.jit(jax.value_and_grad(loss)), itertools.cycle(samples)
    return timing.microseconds(lambda: jax.block_until_ready(program((params, hidden), next(turn))), calls)


def main():
    """Measure each case against the sum of its parts."""
    options = timing.arguments(__doc__, rounds=9)
    for name, (agent, preset, shape, dtype, fields) in CASES.items():
        if options.quick and dtype == np.uint8:
            continue  # its compilation takes a minute
        configs = make_configs(agent, preset, fields | {"target": "periodic:50"})
        without = make_configs(agent, preset, {"self_prediction": "none", "target": "periodic:50"})
        spec = EnvironmentSpec(jax.ShapeDtypeStruct(shape, dtype), num_actions=2)
        samples = batches(shape, dtype, configs.loop.draw.batch_size, BATCHES)
        calls = 2 if options.quick else 200 if dtype == np.float32 else 5
        step = learner_step(configs.agent, spec, samples, calls)
        values = learner_step(without.agent, spec, samples, calls)
        alone = predictions(configs.agent, spec, samples, calls)
        figures = timing.alternate({"step": step, "values": values, "predictions": alone}, options.rounds)
        figures["parts"] = [sum(both) for both in zip(figures["values"], figures["predictions"], strict=True)]
        bars = {"step / parts": "at most 1.3"}
        timing.report(options, f"self-prediction, {name}", "µs", figures, [("step", "parts")], bars)


if __name__ == "__main__":
    main()
