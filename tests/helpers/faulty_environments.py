"""Environments that fail when they are told to; worker processes import this module for their registrations.

It imports neither JAX nor polyak. ``"faulty_environments:Faulty-v0"`` is how they are made.
"""

import multiprocessing
import os
import pathlib
import signal
import sys
import time

import gymnasium as gym
import numpy as np

WALK, RAISE, DIE, EXIT, HANG = range(5)
TRIGGER = "POLYAK_TEST_TRIGGER"  # in the environment variables: the file whose existence makes Once fail


class Faulty(gym.Env):
    """A random walk from the episode's seed, whose actions from 1 on are faults."""

    def __init__(self):
        self.observation_space = gym.spaces.Box(-np.inf, np.inf, (2,), np.float32)
        self.action_space = gym.spaces.Discrete(5)
        self.buffer = np.zeros(2, np.float32)

    def reset(self, *, seed=None, options=None):
        super().reset(seed=seed)
        self.t, self.buffer[:] = 0, self.np_random.normal(size=2)
        return self.buffer, {}

    def step(self, action):
        self.fail(action)
        self.t += 1
        self.buffer += self.np_random.normal(size=2)  # in place
        ends = self.np_random.random(2) < 0.1
        return self.buffer, float(self.buffer[0]), bool(ends[0]), bool(ends[1]), {}

    def fail(self, action):
        if action == RAISE:
            raise ValueError("out of fuel")
        if action == DIE:
            os.kill(os.getpid(), signal.SIGKILL)
        if action == EXIT:
            sys.exit(3)
        if action == HANG:
            time.sleep(3600)


class Once(Faulty):
    """The same with harmless actions, but for one step that fails where a file stands, which it takes away."""

    def __init__(self):
        super().__init__()
        self.action_space = gym.spaces.Discrete(2)

    def fail(self, action):
        path = pathlib.Path(os.environ[TRIGGER])
        if self.t == 3 and path.exists():
            kind = int(path.read_text())
            path.unlink()
            super().fail(kind)


class OnlyHere(Faulty):
    """Cannot be made in a worker process."""

    def __init__(self):
        super().__init__()
        if multiprocessing.parent_process() is not None:
            raise OSError("no display")


class NeverSteps(Faulty):
    """Fails at every step."""

    def fail(self, action):
        raise ValueError(f"out of fuel in {os.getpid()}")


class Masked(Faulty):
    """A random walk that allows two of its actions, and none when it has terminated."""

    def reset(self, *, seed=None, options=None):
        observation, _ = super().reset(seed=seed)
        return observation, {"action_mask": self.mask()}

    def step(self, action):
        *seen, terminated, truncated, _ = super().step(0)
        return *seen, terminated, truncated, {"action_mask": self.mask() * (not terminated)}

    def mask(self):
        return np.int8(np.isin(np.arange(5), [self.t % 5, (self.t + 2) % 5]))


for kind in (Faulty, Once, OnlyHere, NeverSteps, Masked):
    if f"{kind.__name__}-v0" not in gym.registry:
        gym.register(f"{kind.__name__}-v0", entry_point=kind)
