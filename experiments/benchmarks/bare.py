"""Hand-written baseline: a ring buffer of NumPy arrays and a DQN loop, without checks and statistics."""

import random
import time

import numpy as np


class Ring:
    """Ring buffer with transitions of ``num_envs`` environments in five arrays, sampled uniformly."""

    def __init__(self, capacity, num_envs=1, seed=0):
        rows = capacity // num_envs * num_envs
        self.observation = np.zeros((rows, 4), np.float32)
        self.action = np.zeros(rows, np.int32)
        self.reward = np.zeros(rows, np.float32)
        self.next_observation = np.zeros((rows, 4), np.float32)
        self.done = np.zeros(rows, np.float32)
        self.num_envs, self.position, self.size = num_envs, 0, 0
        self.generator = np.random.default_rng(seed)

    def add(self, observation, action, reward, next_observation, done):
        """Write one step of every environment."""
        at = slice(self.position, self.position + self.num_envs)
        self.observation[at], self.action[at], self.reward[at] = observation, action, reward
        self.next_observation[at], self.done[at] = next_observation, done
        self.position = at.stop % len(self.action)
        self.size = max(self.size, at.stop)

    def sample(self, batch_size):
        """Sample a batch, as new arrays."""
        rows = self.generator.integers(self.size, size=batch_size)
        fields = (self.observation, self.action, self.reward, self.next_observation, self.done)
        return tuple(field.take(rows, axis=0) for field in fields)


def cartpole(settings, seed):
    """Train a DQN on one CartPole-v1; a random action costs no dispatch.

    Args:
        settings: Settings of the benchmark, see ``host_loop.Settings``.
        seed: Seed of the environment, of sampling and of the network.

    Returns:
        Environment steps per second after the warm-up, and the learner steps and episodes in this time.
    """
    import gymnasium
    import haiku as hk
    import jax
    import jax.numpy as jnp
    import optax

    environment = gymnasium.make("CartPole-v1")
    network = hk.without_apply_rng(hk.transform(lambda x: hk.nets.MLP([*settings.hidden_sizes, 2])(x)))
    optimizer = optax.adam(settings.learning_rate)
    params = network.init(jax.random.key(seed), jnp.zeros(4))
    optimizer_state = optimizer.init(params)
    copy = jax.jit(lambda tree: jax.tree.map(jnp.copy, tree))
    target = copy(params)

    @jax.jit
    def greedy(params, observation):
        return jnp.argmax(network.apply(params, observation))

    def learn(params, optimizer_state, target, batch):
        observation, action, reward, next_observation, done = batch

        def loss(params):
            q = jnp.take_along_axis(network.apply(params, observation), action[:, None], axis=1)[:, 0]
            bootstrap = network.apply(target, next_observation).max(axis=1)
            return jnp.mean(jnp.square(reward + settings.discount * (1 - done) * bootstrap - q))

        updates, optimizer_state = optimizer.update(jax.grad(loss)(params), optimizer_state, params)
        return optax.apply_updates(params, updates), optimizer_state

    learn = jax.jit(learn, donate_argnums=(0, 1))
    replay, draws = Ring(settings.replay_capacity, seed=seed), random.Random(seed)
    observation, _ = environment.reset(seed=seed)
    learner_steps, episodes = 0, 0
    for step in range(1, settings.steps + 1):
        epsilon = max(1 - (step - 1) / (settings.steps / 2) * 0.95, 0.05)
        action = draws.randrange(2) if draws.random() < epsilon else int(np.asarray(greedy(params, observation)))
        next_observation, reward, terminated, truncated, _ = environment.step(action)
        replay.add(observation, action, reward, next_observation, terminated)
        observation = next_observation
        if terminated or truncated:
            observation, _ = environment.reset()
            episodes += 1
        if step >= settings.learning_starts and step % settings.train_every == 0:
            params, optimizer_state = learn(params, optimizer_state, target, replay.sample(settings.batch_size))
            learner_steps += 1
        if step % settings.target_every == 0:
            target = copy(params)
        if step == settings.warm_up:
            started, learner_steps, episodes = time.perf_counter(), 0, 0
    jax.block_until_ready(params)
    return (settings.steps - settings.warm_up) / (time.perf_counter() - started), learner_steps, episodes
