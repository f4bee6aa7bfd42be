"""Environments that tell what happened in them, and what a plain rollout of them gives.

It imports neither JAX nor polyak: the workers of an AsyncVectorEnv import it for the environments' classes.
"""

import gymnasium as gym
import numpy as np
from gymnasium.vector import AutoresetMode, SyncVectorEnv


class Story(gym.Env):
    """Observations tell (environment, episode, step), rewards the same and the action; lengths are told."""

    def __init__(self, number=0, lengths=(3, 1, 4, 2), in_place=False, dtype=np.float32):
        self.observation_space = gym.spaces.Box(-np.inf, np.inf, (3,), dtype)
        self.action_space = gym.spaces.Discrete(4)
        self.number, self.lengths, self.in_place = number, lengths, in_place
        self.episode, self.buffer = -1, np.zeros(3, dtype)

    def observe(self):
        values = (self.number, self.episode, self.t)
        if not self.in_place:
            return np.array(values, self.buffer.dtype)
        self.buffer[:] = values
        return self.buffer

    def reset(self, *, seed=None, options=None):
        super().reset(seed=seed)
        self.episode, self.t = self.episode + 1, 0
        return self.observe(), {}

    def step(self, action):
        self.t += 1
        end = self.t == self.lengths[self.episode % len(self.lengths)]
        kind = self.episode % 3  # terminated, truncated, both
        reward = 100.0 * self.episode + 10 * self.t + int(action)
        return self.observe(), reward, end and kind != 1, end and kind != 0, {}


class Gates(Story):
    """A story in which not every action is legal: which are stands in ``info``, in one buffer; others are noted.

    None is legal after a termination.
    """

    def __init__(self, strict=True, **told):
        super().__init__(**told)
        self.strict, self.illegal, self.mask = strict, [], np.zeros(4, np.int8)

    def reset(self, *, seed=None, options=None):
        observation, _ = super().reset(seed=seed)
        self.mask[:] = legal_at(self.number, self.episode, self.t)
        return observation, {"action_mask": self.mask}

    def step(self, action):
        if not self.mask[action]:
            self.illegal.append(int(action))
            assert not self.strict, f"{action} is illegal: {self.mask}"
        observation, reward, terminated, truncated, _ = super().step(action)
        self.mask[:] = 0 if terminated else legal_at(self.number, self.episode, self.t)
        return observation, reward, terminated, truncated, {"action_mask": self.mask}


def legal_at(number, episode, t):
    return [(number + 2 * episode + t + action) % 3 != 0 for action in range(4)]


def shown_mask(number, episode, t, lengths):
    """What ``Gates`` shows at a step of an episode."""
    over = t == lengths[episode % len(lengths)] and episode % 3 != 1
    return [False] * 4 if over else legal_at(number, episode, t)


class Walk(gym.Env):
    """A random walk drawn from the environment's own generator; ``noise`` makes it forget its seed."""

    def __init__(self, noise=0.0):
        self.observation_space = gym.spaces.Box(-np.inf, np.inf, (2,), np.float32)
        self.action_space = gym.spaces.Discrete(2)
        self.noise, self.tremor = noise, np.random.default_rng()

    def reset(self, *, seed=None, options=None):
        super().reset(seed=seed)
        self.position = self.np_random.normal(size=2)
        return self.position.astype(np.float32), {}

    def step(self, action):
        self.position += (action - 0.5) + self.np_random.normal(size=2) + self.noise * self.tremor.normal(size=2)
        return self.position.astype(np.float32), float(self.position[0]), bool(self.np_random.random() < 0.1), False, {}


class Told(gym.Env):
    """Returns what it is told to: an observation, and reward, terminated, truncated."""

    def __init__(self, space=None, first=0.0, then=0.0, reward=0.0, ends=(False, False), actions=None):
        self.observation_space = space or gym.spaces.Box(-np.inf, np.inf, (), np.float32)
        self.action_space = actions or gym.spaces.Discrete(2)
        self.first, self.then, self.reward, self.ends, self.taken = first, then, reward, ends, []

    def reset(self, *, seed=None, options=None):
        self.seed = seed
        return self.first, {}

    def step(self, action):
        self.taken.append(action)
        return self.then, self.reward, *self.ends, {}


class Foreign(gym.vector.VectorEnv):
    """A vector environment of another package: SAME_STEP, a dense final_obs without a mask, one seed for all."""

    def __init__(self, fns):
        self.sync = SyncVectorEnv(fns, autoreset_mode=AutoresetMode.SAME_STEP)
        self.metadata = {"autoreset_mode": AutoresetMode.SAME_STEP}
        self.num_envs = self.sync.num_envs
        for name in ("observation_space", "action_space", "single_observation_space", "single_action_space"):
            setattr(self, name, getattr(self.sync, name))

    def reset(self, *, seed=None, options=None):
        assert seed is None or isinstance(seed, int)
        return self.sync.reset(seed=seed)

    def step(self, actions):
        obs, reward, terminated, truncated, info = self.sync.step(actions)
        final = obs.copy()
        for lane in np.flatnonzero(terminated | truncated):
            final[lane] = info["final_obs"][lane]
        return obs, reward, terminated, truncated, {"final_obs": final}


LANES = [
    {"number": 0, "lengths": (3, 1, 4, 2)},
    {"number": 1, "lengths": (1, 5, 2), "in_place": True},
    {"number": 2, "lengths": (1, 1, 3), "in_place": True},
]


def story(index, **changes):
    return Story(**LANES[index], **changes)


def reference(env, actions, seed=None):
    """What one environment does under actions, by hand: (obs_tm1, a, r, discount, last, obs_t) a step."""
    steps = []
    obs, _ = env.reset(seed=None if seed is None else seed(0))
    obs, episode = np.array(obs, np.float32).tolist(), 0
    for action in actions:
        nxt, reward, terminated, truncated, _ = env.step(action)
        nxt, last = np.array(nxt, np.float32).tolist(), terminated or truncated
        steps.append((obs, action, np.float32(reward), 0.0 if terminated else 1.0, last, nxt))
        obs = nxt
        if last:
            episode += 1
            obs, _ = env.reset(seed=None if seed is None else seed(episode))
            obs = np.array(obs, np.float32).tolist()
    return steps


def rollout(environments, actions, timestep=None):
    """The valid steps of each lane, and checks what the agent sees at every call."""
    streams = [[] for _ in range(environments.num_envs)]
    timestep = timestep or environments.reset()
    for chosen in actions:
        step = environments.step(chosen)
        for lane, stream in enumerate(streams):
            now, then = timestep.observation[lane].tolist(), step.timestep.observation[lane].tolist()
            record = (now, chosen[lane], step.r_t[lane], step.discount_t[lane], step.last[lane])
            if step.valid[lane]:
                stream.append((*record, step.obs_t[lane].tolist()))
            else:
                assert (step.r_t[lane], step.discount_t[lane], step.last[lane]) == (0, 1, False)
                assert step.timestep.first[lane]
            if not step.timestep.first[lane]:
                assert then == step.obs_t[lane].tolist()
            expected = 0 if step.timestep.first[lane] else step.r_t[lane]
            assert step.timestep.reward[lane] == expected
        dtypes = (step.r_t, step.discount_t, step.last, step.valid, step.timestep.reward, step.timestep.first)
        assert [str(x.dtype) for x in dtypes] == ["float32", "float32", "bool", "bool", "float32", "bool"]
        timestep = step.timestep
    return streams


def draw(num_steps, num_envs, num_actions=4):
    return np.random.default_rng(7).integers(num_actions, size=(num_steps, num_envs))


def assert_equals_reference(environments, num_steps=40):
    for lane, stream in enumerate(rollout(environments, draw(num_steps, environments.num_envs))):
        assert len(stream) >= num_steps // 2
        assert stream == reference(story(lane), [step[1] for step in stream])


class Growing(gym.Env):
    """Every third episode is a step longer; what it keeps between episodes, their number, is offered."""

    observation_space, action_space = gym.spaces.Box(-1, 1e6, (1,), np.float32), gym.spaces.Discrete(2)

    def __init__(self):
        self.episodes = -1

    def reset(self, *, seed=None, options=None):
        super().reset(seed=seed)
        self.episodes, self.t = self.episodes + 1, 0
        return np.zeros(1, np.float32), {}

    def step(self, action):
        self.t += 1
        return np.full(1, self.t, np.float32), 1.0, self.t >= 5 + self.episodes // 3, False, {}

    def get_state(self):
        return {"episodes": self.episodes}

    def set_state(self, state):
        self.episodes = state["episodes"]


class Secretive(Growing):
    """The same; but what it says of itself is no JSON."""

    def get_state(self):
        return np.full(1, self.t)  # an error before the first reset
