"""Loop with two target networks, using polyak.updates: a soft one for self-prediction and a hard one for values."""

import jax
import jax.numpy as jnp
import numpy as np
import optax

from polyak.updates import apply_updates, incremental_update, periodic_update

STATES, VALUES = 5, np.arange(1, 6) / 6  # random walk that ends on either side, with reward 1 on the right


def observe(rng, state):  # most of the observation is noise
    return np.concatenate([np.eye(STATES)[np.clip(state, 0, STATES - 1)], rng.normal(size=(len(state), 10))], axis=1)


def loss(params, encoder, slow, obs_tm1, r_t, discount_t, obs_t):
    z_tm1, z_t, wanted = (jnp.tanh(x) for x in (obs_tm1 @ params["encoder"], obs_t @ slow["encoder"], obs_t @ encoder))
    td_error = r_t + discount_t * (z_t @ slow["value"]) - z_tm1 @ params["value"]
    return jnp.mean(td_error**2) + jnp.mean(discount_t[:, None] * (z_tm1 @ params["predictor"] - wanted) ** 2)


def main(steps=3_000, seed=0):
    rng, optimizer, gradient = np.random.default_rng(seed), optax.adam(3e-3), jax.jit(jax.grad(loss))
    encoder = jnp.asarray(0.1 * rng.normal(size=(STATES + 10, 16)), jnp.float32)
    slow = params = {"encoder": encoder, "predictor": jnp.eye(16), "value": jnp.zeros(16)}
    optimizer_state, optimize = optimizer.init(params), jax.jit(optimizer.update)
    for step in range(1, steps + 1):
        state, move = rng.integers(0, STATES, 64), rng.choice([-1, 1], 64)
        r_t, discount_t = 1.0 * (state + move == STATES), 1.0 * np.isin(state + move, np.arange(STATES))
        batch = (observe(rng, state), r_t, discount_t, observe(rng, state + move))
        changes, optimizer_state = optimize(gradient(params, encoder, slow, *batch), optimizer_state)
        params = apply_updates(params, changes)
        encoder = incremental_update(params["encoder"], encoder, step_size=0.01)
        slow = periodic_update(params, slow, step, update_period=50)
    return jnp.tanh(observe(rng, np.arange(STATES)) @ params["encoder"]) @ params["value"]


if __name__ == "__main__":
    print(main(), "of", VALUES)
