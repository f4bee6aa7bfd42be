"""Noisy regression, evaluated with a Polyak average of its parameters; uses only polyak.updates, without an agent."""

import jax
import jax.numpy as jnp
import numpy as np
import optax

from polyak import updates
from polyak.updates import target

AVERAGE = updates.parse("incremental:0.005")


def draw(rng, size, noise):
    x = rng.uniform(-1, 1, (size, 2))
    return x, np.sin(3 * x[:, 0]) * x[:, 1] + noise * rng.normal(size=size)


def error(params, x, y):
    return jnp.mean((jnp.tanh(x @ params["w"] + params["b"][None]) @ params["v"] - y) ** 2)


def main(steps=5_000, seed=0):
    rng, optimizer = np.random.default_rng(seed), optax.adam(1e-2)  # a high, constant learning rate
    gradient, optimize, unseen = jax.jit(jax.grad(error)), jax.jit(optimizer.update), draw(rng, 2_000, noise=0)
    params = {"w": jax.random.normal(jax.random.key(seed), (2, 64)), "b": jnp.zeros(64), "v": jnp.zeros(64)}
    optimizer_state, average = optimizer.init(params), target.init(AVERAGE, params)
    for step in range(1, steps + 1):
        changes, optimizer_state = optimize(gradient(params, *draw(rng, 32, noise=1)), optimizer_state)
        params = updates.apply_updates(params, changes, donate=True)
        average = target.update(AVERAGE, params, average, donate=True)
        if step % 500 == 0 or step == steps:
            online, slow = params, target.read(AVERAGE, params, average)[0]
            print(f"step {step}: error {error(online, *unseen):.4f}, of the average {error(slow, *unseen):.4f}")
    return float(error(online, *unseen)), float(error(slow, *unseen))


if __name__ == "__main__":
    main()
