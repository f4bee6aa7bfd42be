"""A record of episodes in plain Python lists: what a replay that got the same steps must hold and draw."""

from typing import Any, NamedTuple

import jax
import numpy as np

from polyak.replay import DrawNumbers, EnvironmentSpec, Replay, ReplayState, Sample, Step, _walk, host

SPEC = jax.ShapeDtypeStruct((3,), np.int32)
EXTRAS = {"memory": jax.ShapeDtypeStruct((2,), np.float32), "mask": jax.ShapeDtypeStruct((), np.bool_)}
NUM_ACTIONS = 4


def make(observation: Any = SPEC, extras: Any = EXTRAS, *, action_mask: bool = True, **options: Any) -> Replay:
    """A replay for the steps of a record."""
    spec = EnvironmentSpec(observation, NUM_ACTIONS, action_mask)
    return host.make(spec, extras, **{"batch_size": 8} | options)


def plain(observation: Any, **options: Any) -> Replay:
    """A replay for steps without extras and masks."""
    return make(observation, (), action_mask=False, **options)


def replay_of(state: ReplayState, **options: Any) -> Replay:
    """A replay of which this could be the state, with other draws or another priority exponent."""

    def spec_of(leaf: Any) -> jax.ShapeDtypeStruct:
        return jax.ShapeDtypeStruct(leaf.shape[1:], leaf.dtype)

    num_envs = len(state.head)
    given: dict[str, Any] = {"num_envs": num_envs, "capacity": num_envs * steps_kept(state)}
    given |= {"stack": max(1, len(state.lags)), "priority_exponent": 1.0 if state.priorities else None}
    if len(state.sequence_start):
        given |= {"sequence_length": 1, "sequence_period": int(state.sequence_period)}
    masks = not isinstance(state.action_mask, tuple)
    return make(spec_of(state.observation), jax.tree.map(spec_of, state.extras), action_mask=masks, **given | options)


def key_of(source: int | np.random.Generator) -> np.ndarray:
    """Key of a draw, of a number or of a generator, which moves on."""
    if isinstance(source, np.random.Generator):
        return source.integers(2**32, size=3, dtype=np.uint32)
    return np.array([1, 2, source], np.uint32)


def draw(
    source: int | np.random.Generator,
    state: ReplayState,
    batch_size: int,
    n_steps: Any = 1,
    discount: Any = 0.99,
    *,
    importance_exponent: Any = 0.0,
    **options: Any,
) -> Sample:
    """One draw of a replay of which this is the state."""
    numbers = DrawNumbers(n_steps, discount, importance_exponent)
    return replay_of(state, batch_size=batch_size, **options).sample(key_of(source), state, numbers)


class Expected(NamedTuple):
    action: int
    r_t: float
    discount_t: float
    obs_t: tuple[int, int, int]


def action_of(env: int, episode: int, t: int) -> int:
    return env + 10 * episode + 1000 * t


def reward_of(env: int, episode: int, t: int) -> float:
    return float((env * 7 + episode * 13 + t * 29) % 101 - 50)


def legal_at(env: int, episode: int, t: int) -> list[bool]:
    return [((env + 3) * (episode + 5) * (t + 7) * (action + 11)) % 13 < 6 for action in range(4)]


class Episode:
    """How many steps an episode has so far, whether it is over and whether it terminated."""

    def __init__(self) -> None:
        self.steps, self.over, self.terminated = 0, False, False


class Record:
    """Makes steps whose every field tells its (environment, episode, step), and knows what must be drawable."""

    def __init__(self, num_envs: int) -> None:
        self.lanes = [[Episode()] for _ in range(num_envs)]

    def add(self, last: np.ndarray, terminated: np.ndarray, stepped: np.ndarray | None = None) -> Step:
        ids = [(env, len(lane) - 1, lane[-1].steps) for env, lane in enumerate(self.lanes)]
        stepped = np.ones_like(last) if stepped is None else stepped
        for lane, is_last, is_terminated, is_stepped in zip(self.lanes, last, terminated, stepped, strict=True):
            if not is_stepped:
                continue
            lane[-1].steps += 1
            if is_last:
                lane[-1].over, lane[-1].terminated = True, bool(is_terminated)
                lane.append(Episode())
        obs = np.array(ids, np.int32)
        return Step(
            obs_tm1=obs,
            a_tm1=np.array([action_of(*i) for i in ids], np.int32),
            r_t=np.array([reward_of(*i) for i in ids], np.float32),
            discount_t=np.where(last & terminated, 0.0, 1.0).astype(np.float32),
            last=last,
            obs_t=obs + np.array([0, 0, 1], np.int32),
            extras_tm1={"memory": obs[:, 1:].astype(np.float32), "mask": obs[:, 2] % 2 == 0},
            action_mask_tm1=np.array([legal_at(*i) for i in ids]),
            action_mask_t=np.array([legal_at(env, episode, t + 1) for env, episode, t in ids]),
        )

    def end(self, lanes: np.ndarray) -> None:
        for lane, closed in zip(self.lanes, lanes, strict=True):
            if closed and lane[-1].steps:
                lane[-1].over = True
                lane.append(Episode())

    def alive(self, rows_per_lane: int) -> set[tuple[int, int, int]]:
        """Steps that the newest rows hold: one row each, one for the open head, one for each episode's end."""
        alive = set()
        for env, lane in enumerate(self.lanes):
            left = rows_per_lane - 1
            for index in reversed(range(len(lane))):
                left -= lane[index].over
                kept = max(0, min(left, lane[index].steps))
                alive |= {(env, index, lane[index].steps - 1 - i) for i in range(kept)}
                left -= lane[index].steps
                if left <= 0:
                    break
        return alive

    def expected(self, start: tuple[int, int, int], n: int, discount: float) -> Expected:
        env, index, t = start
        episode = self.lanes[env][index]
        k = min(n, episode.steps - t)
        r_t = sum(discount**i * reward_of(env, index, t + i) for i in range(k))
        terminates = episode.terminated and t + k == episode.steps
        return Expected(action_of(*start), r_t, 0.0 if terminates else discount**k, (env, index, t + k))


def assert_as_recorded(record: Record, transition: Any, n: int, discount: float) -> set[tuple[int, int, int]]:
    """Compares each transition with the record; returns the steps they start with."""
    starts = [tuple(obs) for obs in transition.obs_tm1.reshape(-1, 3).tolist()]
    expected = [record.expected(start, n, discount) for start in starts]
    assert transition.a_tm1.reshape(-1).tolist() == [e.action for e in expected]
    assert [tuple(obs) for obs in transition.obs_t.reshape(-1, 3).tolist()] == [e.obs_t for e in expected]
    # Sums are made in float64, so that only the last rounding to float32 is left.
    np.testing.assert_allclose(transition.r_t.reshape(-1), [e.r_t for e in expected], rtol=1e-6, atol=1e-5)
    np.testing.assert_allclose(transition.discount_t.reshape(-1), [e.discount_t for e in expected], rtol=1e-6)
    memory, mask = transition.extras_tm1["memory"].reshape(-1, 2), transition.extras_tm1["mask"].reshape(-1)
    assert [tuple(row) for row in memory.tolist()] == [start[1:] for start in starts]
    assert mask.tolist() == [start[2] % 2 == 0 for start in starts]
    assert transition.action_mask_tm1.reshape(-1, 4).tolist() == [legal_at(*start) for start in starts]
    assert transition.action_mask_t.reshape(-1, 4).tolist() == [legal_at(*e.obs_t) for e in expected]
    return set(starts)


def steps_kept(state: ReplayState) -> int:
    """Steps of an endless episode that a lane keeps."""
    return len(state.boundary) // len(state.head) - max(1, len(state.lags))


def rows_kept(state: ReplayState) -> int:
    """Rows of a lane without those that only are the history of stacks."""
    return len(state.boundary) // len(state.head) - max(0, len(state.lags) - 1)


def assert_drawable(record: Record, state: ReplayState, n: int, discount: float) -> None:
    """Every start row, gathered: exactly the steps of the record that are alive, each once, all fields right."""
    rows = np.flatnonzero(~state.boundary)
    transition = newest_of(_walk.transitions(state, rows, n, discount), state)
    starts = assert_as_recorded(record, transition, n, discount)
    assert len(starts) == len(rows) == replay_of(state).size(state)
    assert starts == record.alive(rows_kept(state))


def framed(step: Step, channel: bool = False) -> Step:
    """The same step with its observations as frames, ``(1, 3)`` or ``(1, 3, 1)``."""
    shape = (-1, 1, 3, 1) if channel else (-1, 1, 3)
    return step._replace(obs_tm1=step.obs_tm1.reshape(shape), obs_t=step.obs_t.reshape(shape))


def assert_stacks(observations: np.ndarray, stack: int) -> np.ndarray:
    """Each ``[..., 1, 3, stack]`` holds the frames up to its newest one, from its episode alone; returns the newest."""
    assert observations.shape[-3:] == (1, 3, stack)
    frames = np.moveaxis(observations[..., 0, :, :], -1, -2)
    expected = np.repeat(frames[..., -1:, :], stack, axis=-2)
    expected[..., 2] = np.maximum(expected[..., 2] - np.arange(stack - 1, -1, -1), 0)
    np.testing.assert_array_equal(frames, expected)
    return frames[..., -1, :]


def newest_of(transition: Any, state: ReplayState) -> Any:
    """The transition with the newest frames of its stacks, which are looked at."""
    if not len(state.lags):
        return transition
    obs_tm1, obs_t = (assert_stacks(obs, len(state.lags)) for obs in (transition.obs_tm1, transition.obs_t))
    return transition._replace(obs_tm1=obs_tm1, obs_t=obs_t)


def random_ends(generator: np.random.Generator, num_envs: int, end: float) -> tuple[np.ndarray, np.ndarray]:
    return generator.random(num_envs) < end, generator.random(num_envs) < 0.5


def filled(
    num_envs: int, capacity: int, steps: int, end: float = 0.2, seed: int = 0, **options: Any
) -> tuple[Record, Replay, ReplayState]:
    generator = np.random.default_rng(seed)
    record, replay = Record(num_envs), make(num_envs=num_envs, capacity=capacity, **options)
    state = replay.init()
    for _ in range(steps):
        state = replay.add(state, record.add(*random_ends(generator, num_envs, end)))
    return record, replay, state
