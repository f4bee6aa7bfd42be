"""Draws of the device replay against exact probabilities, and its priorities."""

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from scipy import stats

from polyak.replay import DrawNumbers, Replay, ReplayState, check_valid, device_tree
from replay_pair import Pair


def counts_of(replay: Replay, state: ReplayState, seed: int, number: int) -> np.ndarray:
    """Number of draws of every row, each batch of another key."""
    rows = [
        np.asarray(replay.sample(np.array([seed, 5, step], np.uint32), state, DrawNumbers()).rows).reshape(-1)
        for step in range(number)
    ]
    return np.bincount(np.concatenate(rows) % len(state.boundary), minlength=len(state.boundary))


def assert_distributed(counts: np.ndarray, exact: np.ndarray) -> None:
    """A chi-square test, passed by all but one of a thousand keys; the keys are fixed."""
    likely = exact > 0
    assert counts[~likely].sum() == 0
    assert stats.chisquare(counts[likely], counts.sum() * exact[likely] / exact.sum()).pvalue > 1e-3


@pytest.mark.parametrize(
    ("options", "size"),
    [
        ({}, (3, 9)),
        pytest.param({"stack": 3}, (2, 7), marks=pytest.mark.slow),
        ({"sequence_length": 2, "sequence_period": 3}, (2, 9)),
        ({"priority_exponent": 1.0, "sequence_length": 2, "sequence_period": 2}, (2, 9)),
    ],
    ids=["steps", "stacks", "sequences", "all priorities 0"],
)
def test_uniform_draws_are_uniform_over_starts(options: dict[str, Any], size: tuple[int, int]) -> None:
    pair = Pair(*size, batch_size=1000, **options)
    if options:
        pair.fill(30)
    else:  # lanes of unequal length
        for number in range(9):
            lanes = np.array([True, number < 4, number == 0])
            pair.add(lanes & (number % 4 == 2), lanes, lanes)
    state = pair.on_host
    starts = state.sequence_start if len(state.sequence_start) else ~state.boundary
    if state.priorities:
        rows = state.writing[np.flatnonzero(starts)]
        pair.update(rows, np.zeros(len(rows), np.float32))
    for replay, kept in ((pair.host, pair.on_host), (pair.device, pair.on_device)):
        assert_distributed(counts_of(replay, kept, 3, 20), starts.astype(float))
        assert (replay.sample(np.uint32([1, 2]), kept, DrawNumbers(1, 0.9, 1.0)).weights == 1).all()


def prioritized(**options: Any) -> tuple[Pair, np.ndarray]:
    """Replays whose steps have different priorities, some of them 0; and the probability of every row."""
    pair, generator = Pair(3, 30, priority_exponent=0.7, **options), np.random.default_rng(0)
    pair.fill(80)
    starts = np.flatnonzero(~pair.on_host.boundary)
    priorities = np.where(generator.random(len(starts)) < 0.2, 0, generator.exponential(size=len(starts)))
    pair.update(pair.on_host.writing[starts], priorities.astype(np.float32))
    pair.check()
    exact = np.zeros(len(pair.on_host.boundary))
    exact[starts] = priorities**0.7
    return pair, exact / exact.sum()


def test_prioritized_draws_have_their_probabilities() -> None:
    pair, exact = prioritized(num_batches=1000, batch_size=1)
    for replay, kept in ((pair.host, pair.on_host), (pair.device, pair.on_device)):
        assert_distributed(counts_of(replay, kept, 0, 20), exact)


def test_a_batch_has_one_draw_in_each_interval() -> None:
    pair, exact = prioritized(num_batches=50, batch_size=6)
    drawn = pair.device.sample(np.uint32([1, 2]), pair.on_device, DrawNumbers(1, 0.9, 0.6))
    rows = np.asarray(drawn.rows) % len(exact)
    until = exact.cumsum()[rows] * 6
    assert (until > np.arange(6) - 1e-5).all()
    assert (until - exact[rows] * 6 < np.arange(6) + 1 + 1e-5).all()
    # The same weights as the host's: of the probabilities, divided by the largest of each batch.
    weights = (exact[rows].min(axis=1, keepdims=True) / exact[rows]) ** 0.6
    np.testing.assert_allclose(drawn.weights, weights, rtol=1e-5)
    again = pair.device.sample(np.uint32([1, 2]), pair.on_device, DrawNumbers(1, 0.9, 0.6))
    jax.tree.map(np.testing.assert_array_equal, drawn, again)
    others = [np.uint32([1, 3]), np.uint32([2, 2]), np.uint32([1, 2, 0]), np.uint32([1, 2, 0, 1])]
    found = {np.asarray(pair.device.sample(key, pair.on_device, DrawNumbers()).rows).tobytes() for key in others}
    assert len(found | {np.asarray(drawn.rows).tobytes()}) == 5


@pytest.mark.parametrize("options", [{}, {"priority_exponent": 1.0}, {"sequence_length": 1}])
def test_an_empty_replay_raises_or_gives_some_rows_under_a_trace(options: dict[str, Any]) -> None:
    replay = Pair(2, 3, batch_size=4, **options).device
    state = replay.init()
    with pytest.raises(ValueError, match="Add steps first"):
        replay.sample(np.uint32([1, 2]), state, DrawNumbers())
    drawn = jax.jit(replay.sample)(np.uint32([1, 2]), state, DrawNumbers())
    assert drawn.rows.shape == (4,)


def test_the_last_of_repeated_priorities_counts_and_invalid_ones_are_skipped() -> None:
    pair = Pair(1, 9, priority_exponent=0.5)
    for _ in range(5):
        pair.add(np.array([False]), np.array([False]))
    update = pair.device.update_priorities
    rows = np.uint32([[1, 0, 1, 2], [3, 1, 0, 3]])
    state = update(pair.on_device, rows, np.float32([[81, 4, 9, np.nan], [np.inf, 25, 36, -1]]))
    assert state.priorities.leaves[:6].tolist() == [6, 5, 1, 1, 1, 0]
    assert float(state.largest_priority) == 9  # a repeated priority that is replaced counts, as on the host
    # A skipped entry does not hide the one before; the head, an unwritten row and another lap have no priority.
    state = update(state, np.uint32([2, 2, 5, 7, 4 + 10]), np.float32([16, -1, 4, 4, 4]))
    assert state.priorities.leaves[:10].tolist() == [6, 5, 4, 1, 1, 0, 0, 0, 0, 0]
    state = update(state, np.uint32([0, 1, 2]), np.float32([1e-40, 0, 3e38]))
    assert state.priorities.leaves[1:4].tolist() == [0, 4, 1]
    state = update(state, np.zeros((0, 3), np.uint32), np.zeros((0, 3), np.float32))
    check_valid(state)
    with pytest.raises(TypeError, match="rows: got dtype float32; expected uint32"):
        update(state, np.float32([0]), np.float32([1]))
    with pytest.raises(ValueError, match=r"priorities: got shape \(2,\); expected \(1,\)"):
        update(state, np.uint32([0]), np.float32([1, 2]))
    uniform = Pair(1, 9).device
    with pytest.raises(ValueError, match="replay without priorities"):
        uniform.update_priorities(uniform.init(), np.uint32([0]), np.float32([1]))


# --- The tree -------------------------------------------------------------------------------------------------------

build = jax.jit(device_tree.build)
stratified = jax.jit(device_tree.stratified, static_argnums=2)
find = jax.jit(device_tree.find)
SIZE = 70_000
BATCH = 512


def adversaries() -> dict[str, np.ndarray]:
    generator = np.random.default_rng(0)
    one, end, huge = (np.zeros(SIZE, np.float32) for _ in range(3))
    one[12_345] = 1e-30
    end[-1], end[:5] = 1.0, 1e-30
    huge[::7] = 10.0 ** generator.uniform(-30, 30, len(huge[::7]))
    return {
        "one positive": one,
        "one positive, the first": np.float32(np.arange(SIZE) == 0),
        "one positive, the last": np.float32(np.arange(SIZE) == SIZE - 1) * np.float32(1e33),
        "mass at the end": end,
        "ratios of 1e60": huge,
        "equal": np.ones(SIZE, np.float32),
        "thirds, sparse": np.where(generator.random(SIZE) < 0.01, np.float32(1 / 3), 0).astype(np.float32),
        "the smallest": np.where(generator.random(SIZE) < 0.5, np.float32(1.2e-38), 0).astype(np.float32),
    }


@pytest.mark.parametrize("name", adversaries())
def test_a_leaf_of_0_is_never_drawn(name: str) -> None:
    leaves = adversaries()[name]
    tree = build(leaves)
    assert device_tree.is_valid(tree)
    for seed in range(20):
        index, values = stratified(tree, jax.random.key(seed), (BATCH,))
        assert (np.asarray(index) < SIZE).all()
        np.testing.assert_array_equal(values, leaves[np.asarray(index)])
        assert (np.asarray(values) > 0).all()
    # The edges of the sums, as rounding may hit them, and masses beyond the total.
    edges = np.concatenate([np.cumsum(level, dtype=np.float32)[:: max(1, len(level) // 50)] for level in tree.sums])
    total = np.float32(device_tree.total(tree))
    edges = np.concatenate([edges, [0, total, total * np.float32(1.0001)]])[:BATCH].astype(np.float32)
    mass = np.concatenate([edges, np.zeros(BATCH - len(edges), np.float32)])
    for near in (mass, np.nextafter(mass, np.float32(np.inf)), np.maximum(np.nextafter(mass, np.float32(-1)), 0)):
        index, values = find(tree, near, np.zeros(BATCH, np.float32))
        np.testing.assert_array_equal(values, leaves[np.asarray(index)])
        assert (np.asarray(values) > 0).all()


def test_a_million_equal_leaves_are_drawn_equally() -> None:
    # A single float32 number as the mass would have 16 values for each leaf, and round to the edges of nodes.
    leaves = np.ones(2**20, np.float32)
    tree, generator = build(leaves), np.random.default_rng(0)
    exact = generator.uniform(0, 2**20, BATCH)
    exact[:30] = np.concatenate([np.arange(1, 16) * 2**16 - 1e-3, np.arange(1, 16) * 2**16 + 1e-3])
    coarse = exact.astype(np.float32)
    index, _ = find(tree, coarse, (exact - coarse).astype(np.float32))
    np.testing.assert_array_equal(index, np.floor(exact))
    index, _ = stratified(tree, jax.random.key(0), (BATCH,))
    np.testing.assert_array_equal(np.asarray(index) // 2**11, np.arange(BATCH))


def test_the_mass_of_a_draw_has_32_random_bits(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(device_tree, "find", lambda tree, mass, rest: (mass, rest))
    tree, key = build(np.full(SIZE, 0.7, np.float32)), jax.random.key(0)
    total = np.float32(device_tree.total(tree))
    for batch in (1, 6, BATCH):
        mass, rest = (np.asarray(part, np.float64) for part in device_tree.stratified(tree, key, (batch,)))
        fraction = np.asarray(jax.random.bits(key, (batch,), np.uint32)) / 2**32
        exact = (np.arange(batch) + fraction) * np.float64(total * np.float32(1 / batch))
        np.testing.assert_allclose(mass + rest, exact, rtol=0, atol=total * 2**-35)


def test_a_hundred_thousand_updates_leave_the_sums_of_a_new_tree() -> None:
    generator = np.random.default_rng(0)

    def one(carry: Any, given: Any) -> Any:
        index, values = given
        return device_tree.assign(carry, index, values, jnp.ones(len(index), jnp.bool_)), None

    index = generator.permuted(np.tile(np.arange(5_000, dtype=np.int32), (200, 1)), axis=1)[:, :500]
    values = (generator.exponential(size=index.shape) ** 5).astype(np.float32)
    tree, _ = jax.jit(lambda tree, given: jax.lax.scan(one, tree, given))(device_tree.init(5_000), (index, values))
    assert device_tree.is_valid(tree)
    leaves = np.zeros(5_000, np.float32)
    for at, value in zip(index, values, strict=True):
        leaves[at] = value
    np.testing.assert_array_equal(tree.leaves[:5_000], leaves)
    for one_level, other in zip(tree.sums, build(leaves).sums, strict=True):
        np.testing.assert_allclose(one_level, other, rtol=1e-6)


@pytest.mark.parametrize("size", [1, 2, 16, 17, 257])
def test_every_integer_mass_is_found(size: int) -> None:
    leaves = np.random.default_rng(size).integers(0, 3, size)
    leaves[-1] = 2
    mass = np.arange(leaves.sum(), dtype=np.int32)
    index, values = device_tree.find(device_tree.build(jnp.asarray(leaves, jnp.int32)), mass, np.zeros_like(mass))
    np.testing.assert_array_equal(index, np.searchsorted(leaves.cumsum(), mass, side="right"))
    np.testing.assert_array_equal(values, leaves[np.asarray(index)])


@pytest.mark.parametrize("level", ["leaves", "sums"])
def test_a_sum_that_is_not_of_its_parts_is_told(level: str) -> None:
    tree = build(np.ones(300, np.float32))
    broken = (
        tree._replace(leaves=tree.leaves.at[3].set(2))
        if level == "leaves"
        else tree._replace(sums=(tree.sums[0], tree.sums[1].at[0].add(1e-3)))
    )
    assert device_tree.is_valid(tree)
    assert not device_tree.is_valid(broken)
