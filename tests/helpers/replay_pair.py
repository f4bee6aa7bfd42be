"""The host replay and the device replay side by side, given equal steps."""

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from polyak.replay import EnvironmentSpec, Replay, ReplayState, _walk, check_valid, device, device_writes, host
from replay_record import EXTRAS, NUM_ACTIONS, Record, framed

NUMBERS = ("boundary", "head", "written", "num_valid", "episode_step", "sequence_start", "action", "reward")


def assert_close(expected: Any, found: Any) -> None:
    """Equal integers; floats up to float32 sums."""
    assert jax.tree.structure(expected) == jax.tree.structure(found)
    for one, other in zip(jax.tree.leaves(expected), jax.tree.leaves(found), strict=True):
        assert one.shape == other.shape
        np.testing.assert_allclose(one, other, rtol=2e-6, atol=2e-5 if one.dtype.kind == "f" else 0)


class Pair:
    """Both replays, their states, and a record that makes their steps."""

    def __init__(self, num_envs: int, per_lane: int, batch_size: int = 8, most_steps: int = 1, **options: Any) -> None:
        shape = (1, 3) if options.get("stack", 1) > 1 else (3,)
        spec = EnvironmentSpec(jax.ShapeDtypeStruct(shape, np.int32), NUM_ACTIONS, action_mask=True)
        given: dict[str, Any] = {"num_envs": num_envs, "capacity": num_envs * per_lane, "batch_size": batch_size}
        self.host: Replay = host.make(spec, EXTRAS, **given, **options)
        self.device: Replay = device.make(spec, EXTRAS, **given, **options, most_steps=most_steps)
        self.record, self.stacked = Record(num_envs), len(shape) == 2
        self.on_host: ReplayState = self.host.init()
        self.on_device: ReplayState = self.device.init()

    def add(self, last: np.ndarray, terminated: np.ndarray, valid: np.ndarray | None = None) -> None:
        step = self.record.add(last, terminated, valid)
        step = framed(step) if self.stacked else step
        self.on_host = self.host.add(self.on_host, step, valid)
        self.on_device = self.device.add(self.on_device, step, valid)

    def fill(self, steps: int, end: float = 0.2, seed: int = 0) -> None:
        generator, num_envs = np.random.default_rng(seed), len(self.on_host.head)
        for _ in range(steps):
            self.add(generator.random(num_envs) < end, generator.random(num_envs) < 0.5)

    def end_episode(self, lanes: np.ndarray) -> None:
        self.record.end(lanes)
        self.on_host = self.host.end_episode(self.on_host, lanes)
        self.on_device = self.device.end_episode(self.on_device, lanes)

    def update(self, rows: np.ndarray, priorities: np.ndarray) -> None:
        """``rows`` are those of the host, which never repeat; the device's begin again after some laps."""
        number = len(self.on_host.boundary)
        laps = device_writes.laps_of(len(self.on_host.head), number // len(self.on_host.head))
        identity = rows % number + number * (rows // number % laps)
        self.on_host = self.host.update_priorities(self.on_host, rows, priorities)
        self.on_device = self.device.update_priorities(self.on_device, identity.astype(np.uint32), priorities)

    def check(self) -> None:
        """Equal states, and a device state that is valid."""
        check_valid(self.on_device)
        found = jax.device_get(self.on_device)
        for name in NUMBERS:
            jax.tree.map(np.testing.assert_array_equal, getattr(self.on_host, name), getattr(found, name))
        for leaf in jax.tree.leaves(found):
            assert leaf.dtype not in (np.int64, np.float64)
        assert self.host.size(self.on_host) == self.device.size(self.on_device)
        rewards = self.host.rewards(self.on_host), self.device.rewards(self.on_device)
        np.testing.assert_array_equal(*rewards)
        assert type(rewards[1]) is np.ndarray
        if found.priorities:
            rows = len(found.boundary)
            leaves = self.on_host.priorities.leaves[:rows], found.priorities.leaves[:rows]
            np.testing.assert_allclose(*leaves, rtol=1e-6)
            np.testing.assert_allclose(self.on_host.largest_priority, found.largest_priority, rtol=1e-6)
            starts = np.flatnonzero(~found.boundary)
            np.testing.assert_array_equal(
                device_writes.writings(self.on_device, jnp.asarray(starts, jnp.int32)),
                self.on_host.writing[starts].astype(np.uint32),
            )

    def assert_windows(self, n: int, discount: float, length: int = 3) -> None:
        """Equal windows from every start, walked over NumPy arrays."""
        rows, found = np.flatnonzero(~self.on_host.boundary), jax.device_get(self.on_device)
        walks = [_walk.transitions(state, rows, n, discount) for state in (self.on_host, found)]
        assert_close(*walks)
        if len(self.on_host.episode_step):
            assert_close(*(_walk.sequences(state, rows, length, n, discount) for state in (self.on_host, found)))
