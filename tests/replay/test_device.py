"""The device replay against the host replay: equal steps give equal states and equal windows."""

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from polyak.replay import DrawNumbers, EnvironmentSpec, ReplayState, Step, _walk, check_valid, device, device_writes
from replay_pair import Pair, assert_close

EVENTS = st.lists(
    st.tuples(st.sampled_from(["go", "go", "end", "some", "restart", "update", "late"]), st.integers(0, 7)), max_size=40
)
OPTIONS: dict[str, dict[str, Any]] = {
    "transitions": {"priority_exponent": 0.7, "future": 1},
    "sequences of stacks": {"sequence_length": 1, "sequence_period": 2, "stack": 3, "priority_exponent": 1.0},
}


@pytest.mark.parametrize(
    "name", [pytest.param(name, marks=() if name == "transitions" else pytest.mark.slow) for name in OPTIONS]
)
@settings(max_examples=12, deadline=None, derandomize=True)
@given(size=st.sampled_from([(1, 1), (3, 4)]), seed=st.integers(0, 99), events=EVENTS)
def test_any_order_of_events_gives_the_state_of_the_host(
    name: str, size: tuple[int, int], seed: int, events: list[tuple[str, int]]
) -> None:
    generator, pair = np.random.default_rng(seed), Pair(*size, **OPTIONS[name])
    seen = np.zeros(0, np.int64)
    for kind, mask in events:
        lanes = np.array([mask >> env & 1 for env in range(size[0])], np.bool_)
        if kind == "restart":
            pair.end_episode(lanes)
        elif kind in ("update", "late"):
            state = pair.on_host
            starts = np.flatnonzero(state.sequence_start if len(state.sequence_start) else ~state.boundary)
            if not (state.priorities and len(starts)):
                continue
            rows = state.writing[generator.choice(starts, 4)]
            rows, seen = (seen, rows) if kind == "late" and len(seen) else (rows, rows)
            pair.update(rows, generator.choice([0.0, 0.1, 1.0, 3.0], 4).astype(np.float32))
        else:
            last = generator.random(size[0]) < 0.5 if kind == "some" else lanes & (kind == "end")
            pair.add(last, generator.random(size[0]) < 0.5, lanes if kind == "some" else None)
        pair.check()
    pair.assert_windows(size[1], 0.9)


@pytest.mark.parametrize(
    "options",
    [{"sequence_length": 5, "sequence_period": 2}, {"stack": 3, "future": 2}],
    ids=["sequences", "transitions of stacks"],
)
def test_samples_are_the_windows_of_the_host(options: dict[str, Any]) -> None:
    pair = Pair(3, 20, num_batches=2, most_steps=7, **options)
    pair.fill(50)
    pair.check()
    calls = 0

    def count(key: Any, state: ReplayState, numbers: DrawNumbers) -> Any:
        nonlocal calls
        calls += 1
        return pair.device.sample(key, state, numbers)

    sample = jax.jit(count)
    rows_of: Any = None
    for n, discount in ((1, 0.9), (4, 0.997), (3, 0.0)):
        numbers = DrawNumbers(n, discount, 0.0)
        drawn = sample(np.uint32([1, 2, 3]), pair.on_device, numbers)
        rows = np.asarray(drawn.rows, np.int64)
        assert rows_of is None or (rows == rows_of).all()
        rows_of = rows
        if "sequence_length" in options:
            assert_close(_walk.sequences(pair.on_host, rows, 5, n, discount), drawn.transition)
        else:
            assert_close(_walk.transitions(pair.on_host, rows, n, discount), drawn.transition)
            assert_close(_walk.future(pair.on_host, rows, options["future"], discount), drawn.future)
    assert calls == 1
    starts = np.flatnonzero(~pair.on_host.boundary)
    single = _walk.transitions(pair.on_device, jnp.asarray(starts, jnp.int32), 1, np.float32(0.9), 1)
    assert_close(_walk.transitions(pair.on_host, starts, 1, 0.9), single)
    spec = pair.device.sample_spec()
    assert spec == jax.eval_shape(lambda drawn: drawn, drawn)
    expected = pair.host.sample_spec()
    assert jax.tree.structure(spec) == jax.tree.structure(expected)
    assert jax.tree.map(lambda leaf: leaf.shape, spec) == jax.tree.map(lambda leaf: leaf.shape, expected)


def test_counters_begin_again_before_they_overflow() -> None:
    pair = Pair(2, 5, priority_exponent=1.0, sequence_length=2, sequence_period=3)
    pair.fill(40, end=0.0)
    per_lane = len(pair.on_host.boundary) // 2
    laps = device_writes.laps_of(2, per_lane)
    ahead = (laps - 8) * per_lane  # 41 written rows are less than 8 laps
    # Lane 0 is about to begin again, and its episode has nearly 2**30 steps. Lane 1 is as the host's.
    steps = np.arange(12) < per_lane
    span = 2**30 // 3 * 3
    state = pair.on_device._replace(
        written=pair.on_device.written + jnp.array([ahead, 0], jnp.int32),
        episode_step=pair.on_device.episode_step + jnp.asarray(np.where(steps, span - 45, 0), jnp.int32),
    )
    before = int(state.written[0])
    rows, shift = jnp.arange(12, dtype=jnp.int32), 12 * (ahead // per_lane)
    assert (np.asarray(device_writes.writings(state, rows)[:6]) == pair.on_host.writing[:6] + shift).all()
    pair.on_device = state
    began_again = False
    for _ in range(60):
        pair.add(np.zeros(2, np.bool_), np.zeros(2, np.bool_))
        state = pair.on_device
        check_valid(state)
        began_again |= int(state.written[0]) < before
        assert (state.written >= per_lane).all()
        for name in ("head", "num_valid", "boundary", "sequence_start"):
            np.testing.assert_array_equal(getattr(pair.on_host, name), getattr(state, name))
        assert (np.asarray(device_writes.writings(state, rows)) % 12 == np.arange(12)).all()
        assert (np.asarray(state.episode_step)[:6] > 0).all()
        drawn = pair.device.sample(np.uint32([1, 2]), state, DrawNumbers())
        updated = pair.device.update_priorities(jax.tree.map(jnp.copy, state), drawn.rows, jnp.full(8, 3.0))
        assert (np.asarray(updated.priorities.leaves)[np.asarray(drawn.rows) % 12] == 3).all()
    assert began_again
    assert int(pair.on_device.episode_step[:6].min()) < 100


def test_rows_fit_into_32_bits_for_all_sizes() -> None:
    for num_envs, per_lane in ((1, 2), (1, 2**29), (7, 143_000), (1000, 1001), (2**28, 2)):
        laps, rows = device_writes.laps_of(num_envs, per_lane), num_envs * per_lane
        assert laps >= 2
        assert rows * laps <= 2**32
        assert per_lane * (laps + 1) + 2 <= 2**31


@pytest.mark.slow
def test_in_a_loop_and_under_vmap_as_one_call_after_another() -> None:
    pair = Pair(2, 6, batch_size=4, priority_exponent=0.5, most_steps=2)
    pair.fill(9)
    replay, numbers = pair.device, DrawNumbers(2, 0.9, 0.4)
    step = pair.record.add(np.array([True, False]), np.array([False, False]))

    def once(number: Any, carry: tuple[ReplayState, Any], seed: Any) -> tuple[ReplayState, Any]:
        state, seen = carry
        state = replay.add(
            state, step._replace(r_t=step.r_t + number), valid=jnp.array([True, False]) | (number % 2 == 0)
        )
        state = replay.end_episode(state, jnp.array([False, True]) & (number == 3))
        drawn = replay.sample(jnp.array([0, 7], jnp.uint32) + seed, state, numbers)
        state = replay.update_priorities(state, drawn.rows, jnp.abs(drawn.transition.r_t))
        return state, seen.at[number].set(drawn.rows)

    def loop(state: ReplayState, seed: Any) -> tuple[ReplayState, Any]:
        return jax.lax.fori_loop(
            0, 6, lambda number, carry: once(number, carry, seed), (state, jnp.zeros((6, 4), jnp.uint32))
        )

    seeds = jnp.arange(3, dtype=jnp.uint32)
    states = jax.tree.map(lambda leaf: jnp.stack([leaf] * 3), pair.on_device)
    many, rows_of_many = jax.jit(jax.vmap(loop))(states, seeds)
    mapped, rows_of_mapped = jax.jit(lambda states: jax.lax.map(lambda given: loop(*given), (states, seeds)))(states)
    np.testing.assert_array_equal(rows_of_many, rows_of_mapped)
    assert len({rows.tobytes() for rows in np.asarray(rows_of_many)}) == 3
    for lane in range(3):
        carry = jax.tree.map(jnp.copy, pair.on_device), jnp.zeros((6, 4), jnp.uint32)
        for number in range(6):
            carry = once(np.int32(number), carry, seeds[lane])
        check_valid(carry[0])
        np.testing.assert_array_equal(carry[1], rows_of_many[lane])
        for found in (many, mapped):
            assert_close(carry[0], jax.tree.map(lambda leaf, lane=lane: leaf[lane], found))


def copied(compiled: Any, sizes: set[int]) -> list[str]:
    lines = [line for line in compiled.as_text().splitlines() if " copy(" in line or " copy-start(" in line]
    return [line for line in lines if any(f"[{size}]" in line or f"[{size}," in line for size in sizes)]


@pytest.mark.usefixtures("compiled_as_released")
def test_programs_write_in_place() -> None:
    spec = EnvironmentSpec(jax.ShapeDtypeStruct((5,), np.float32), 2, action_mask=True)
    extras = {"memory": jax.ShapeDtypeStruct((2,), np.float32)}
    replay = device.make(spec, extras, num_envs=3, capacity=300_000, batch_size=8, priority_exponent=0.6, future=2)
    state = jax.eval_shape(replay.init)
    step = Step(
        *(
            np.zeros((3, *shape), dtype)
            for shape, dtype in (((5,), "f4"), ((), "i4"), ((), "f4"), ((), "f4"), ((), "?"))
        ),
        np.zeros((3, 5), np.float32),
        {"memory": np.zeros((3, 2), np.float32)},
        *np.ones((2, 3, 2), np.bool_),
    )

    def loop(state: ReplayState, step: Any, key: Any) -> Any:
        def body(number: Any, carry: Any) -> Any:
            state, seen = carry
            state = replay.add(state, step._replace(r_t=step.r_t + seen))
            drawn = replay.sample(jnp.append(key, jnp.uint32(number)), state, DrawNumbers(1, 0.9, 0.4))
            state = replay.update_priorities(state, drawn.rows, jnp.abs(drawn.transition.r_t))
            return state, seen + sum(leaf.sum() for leaf in jax.tree.leaves(drawn))

        return jax.lax.fori_loop(0, 9, body, (state, jnp.float32(0)))

    rows = len(state.boundary)
    sizes = {rows, len(state.priorities.leaves), len(state.priorities.sums[0])}
    programs = [jax.jit(replay.add, donate_argnums=0).lower(state, step, np.ones(3, np.bool_)).compile()]
    programs.append(jax.jit(loop, donate_argnums=0).lower(state, step, np.zeros(2, np.uint32)).compile())
    for program in programs:
        assert copied(program, sizes) == []
        assert program.memory_analysis().temp_size_in_bytes < rows  # less than the smallest array, of bool
    # The search finds copies: without donation, an add copies every array that it writes.
    assert copied(jax.jit(replay.add).lower(state, step).compile(), sizes)
