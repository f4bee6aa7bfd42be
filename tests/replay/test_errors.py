"""What the host replay refuses: bad arguments, steps that do not fit, too much memory, a broken state."""

from typing import Any, NamedTuple

import jax
import numpy as np
import psutil
import pytest

from polyak.replay import DrawNumbers, EnvironmentSpec, Step, check_valid, host
from replay_record import SPEC, assert_as_recorded, draw, filled, make, plain


@pytest.mark.parametrize("count", [0, -1, 1.0, 2.5, True, None, "3"])
def test_counts_are_integers_from_one(count: Any) -> None:
    _, _, state = filled(1, 20, 30)
    given = {"num_envs": 1, "capacity": 10, "batch_size": 4}
    for name in ("num_envs", "capacity", "batch_size", "stack", "sequence_period"):
        with pytest.raises(ValueError, match=rf"^{name}: got .*expected an integer >= 1"):
            make(**given | {name: count})
    with pytest.raises(ValueError, match=r"^num_actions: got .*expected an integer >= 1"):
        host.make(EnvironmentSpec(SPEC, count, action_mask=True), **given)
    with pytest.raises(ValueError, match=r"^n_steps: got .*expected an integer >= 1"):
        draw(0, state, 4, count)
    if count is not None:
        with pytest.raises(ValueError, match=r"^num_batches: got"):
            make(**given, num_batches=count)
    if count != 0:
        for name in ("sequence_length", "future"):
            with pytest.raises(ValueError, match=rf"^{name}: got .*expected an integer >= 0"):
                make(**given, **{name: count})


@pytest.mark.parametrize("discount", [-0.01, 1.01, float("nan"), float("inf"), True, "0.9", None])
def test_discount_is_in_the_unit_interval(discount: Any) -> None:
    _, _, state = filled(1, 20, 30)
    with pytest.raises(ValueError, match=r"^discount: got .*expected a number in \[0, 1\]"):
        draw(0, state, 4, discount=discount)


def test_n_is_at_most_a_lanes_capacity() -> None:
    record, _, state = filled(2, 20, 30)
    assert_as_recorded(record, draw(0, state, 50, 10).transition, 10, 0.99)
    with pytest.raises(ValueError, match="n_steps: got 11; expected at most 10"):
        draw(0, state, 4, 11)


def test_an_empty_replay_says_to_add_steps() -> None:
    with pytest.raises(ValueError, match="Add steps first"):
        draw(0, make(num_envs=2, capacity=10).init(), 4)


@pytest.mark.parametrize(
    ("change", "error", "message"),
    [
        ({"obs_tm1": np.zeros((3,), np.int32)}, ValueError, r"^obs_tm1: got shape \(3,\); expected \(2, 3\)"),
        ({"obs_t": np.zeros((1, 3), np.int32)}, ValueError, r"^obs_t: got shape \(1, 3\)"),
        ({"obs_t": np.zeros((2, 1), np.int32)}, ValueError, r"^obs_t: got shape \(2, 1\)"),
        ({"obs_tm1": np.zeros((2, 3), np.float32)}, TypeError, r"^obs_tm1: got dtype float32; expected int32"),
        ({"a_tm1": np.int32(1)}, ValueError, r"^a_tm1: got shape \(\)"),
        ({"a_tm1": np.zeros(2)}, TypeError, r"^a_tm1: got dtype float64"),
        ({"r_t": 1.0}, TypeError, r"^r_t: got 1.0; expected an array \(2,\) of float32"),
        ({"r_t": np.zeros((2, 1), np.float32)}, ValueError, r"^r_t: got shape \(2, 1\)"),
        ({"discount_t": np.zeros(1, np.float32)}, ValueError, r"^discount_t: got shape \(1,\)"),
        ({"last": np.zeros(1, np.bool_)}, ValueError, r"^last: got shape \(1,\)"),
        ({"last": np.array([0, 1])}, TypeError, r"^last: got dtype int64; expected bool"),
        ({"extras_tm1": ()}, ValueError, r"^extras_tm1: got the structure"),
        (
            {"action_mask_tm1": np.ones(4, np.bool_)},
            ValueError,
            r"^action_mask_tm1: got shape \(4,\); expected \(2, 4\)",
        ),
        ({"action_mask_t": np.ones((2, 4))}, TypeError, r"^action_mask_t: got dtype float64; expected bool"),
        ({"action_mask_t": ()}, TypeError, r"^action_mask_t: got \(\); expected an array \(2, 4\) of bool"),
        (
            {"extras_tm1": {"memory": np.zeros((2,), np.float32), "mask": np.zeros(2, np.bool_)}},
            ValueError,
            r"^extras_tm1\['memory'\]: got shape \(2,\); expected \(2, 2\)",
        ),
    ],
)
def test_a_step_that_does_not_fit_is_refused_whole(change: dict[str, Any], error: type, message: str) -> None:
    record, replay, state = filled(2, 20, 5)
    before = jax.tree.map(np.copy, state)
    step = record.add(np.array([False, True]), np.array([False, False]))
    with pytest.raises(error, match=message):
        replay.add(state, step._replace(**change))
    jax.tree.map(np.testing.assert_array_equal, before, state)


def test_a_mask_that_is_not_kept_is_refused() -> None:
    replay = plain(jax.ShapeDtypeStruct((), np.float32), num_envs=1, capacity=10)
    state = replay.init()
    zeros, mask = np.zeros(1, np.float32), np.ones((1, 2), np.bool_)
    step = Step(zeros, np.zeros(1, np.int32), zeros, zeros, np.zeros(1, np.bool_), zeros)
    for name in ("action_mask_tm1", "action_mask_t"):
        with pytest.raises(ValueError, match=rf"^{name}: got a mask; expected \(\), as the replay has none"):
            replay.add(state, step._replace(**{name: mask}))


def test_closing_lanes_needs_a_mask() -> None:
    _, replay, state = filled(2, 20, 5)
    with pytest.raises(TypeError, match=r"^lanes: got dtype int64; expected bool"):
        replay.end_episode(state, np.array([0, 1]))
    with pytest.raises(ValueError, match=r"^lanes: got shape \(1,\); expected \(2,\)"):
        replay.end_episode(state, np.array([True]))


@pytest.mark.parametrize(
    "options",
    [{}, {"priority_exponent": 1.0, "sequence_length": 1, "sequence_period": 4}, {"future": 1}],
    ids=["plain", "all", "future"],
)
@pytest.mark.parametrize("num_envs", [1, 4])
def test_memory_is_counted_before_it_is_taken(
    num_envs: int, options: dict[str, Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    class Memory(NamedTuple):
        available: int

    given = {"num_envs": num_envs, **options}
    replay = make(capacity=1000, **given)
    assert replay.nbytes == (sum(leaf.nbytes for leaf in jax.tree.leaves(replay.init())), 0)

    # A byte less than one row per lane more: 1000 is then the most that fits, and the error says so.
    more = make(capacity=1001, **given).nbytes.memory
    monkeypatch.setattr(psutil, "virtual_memory", lambda: Memory(more - 1))
    make(capacity=1000, **given).init()
    for capacity in (1001, 10**9):
        with pytest.raises(ValueError, match=rf"^capacity: got {capacity}, which needs .* that fits is 1000\."):
            make(capacity=capacity, **given).init()
    monkeypatch.setattr(psutil, "virtual_memory", lambda: Memory(0))
    with pytest.raises(ValueError, match=r"that fits is 0\."):
        plain(SPEC, capacity=1, **given).init()


def test_a_million_small_steps_take_29_bytes_each() -> None:
    replay = plain(jax.ShapeDtypeStruct((4,), np.float32), num_envs=1, capacity=1_000_000)
    assert replay.nbytes == (29_000_053, 0)


def test_absurd_capacity_is_refused_without_allocating() -> None:
    with pytest.raises(ValueError, match="GiB, the available memory"):
        plain(jax.ShapeDtypeStruct((84, 84, 4), np.uint8), num_envs=8, capacity=10**12).init()


@pytest.mark.parametrize("observation", [{"a": SPEC}, (4,), 1.0, jax.eval_shape(lambda: jax.random.key(0))])
def test_specs_are_arrays_of_numpy_dtypes(observation: Any) -> None:
    with pytest.raises(TypeError, match=r"^observation: got"):
        plain(observation, num_envs=1, capacity=10)
    with pytest.raises(TypeError, match=r"^extras\['x'\]"):
        make(SPEC, {"x": jax.eval_shape(lambda: jax.random.key(0))}, num_envs=1, capacity=10)


@pytest.mark.parametrize(
    ("key", "error", "message"),
    [
        (0, TypeError, r"^key: got 0; expected an array of uint32.*jax.random.key_data\(key\)"),
        (
            jax.eval_shape(lambda: jax.random.key(0)),
            TypeError,
            r"^key: got dtype key<fry>; expected an array of uint32",
        ),
        (np.arange(2), TypeError, r"^key: got dtype int64; expected an array of uint32"),
        (np.zeros(1, np.uint32), ValueError, r"^key: got shape \(1,\); expected \(2,\), \(3,\) or \(4,\)"),
        (np.zeros(5, np.uint32), ValueError, r"^key: got shape \(5,\)"),
        (np.zeros((2, 2), np.uint32), ValueError, r"^key: got shape \(2, 2\)"),
    ],
    ids=str,
)
def test_keys_are_two_to_four_words(key: Any, error: type, message: str) -> None:
    _, replay, state = filled(1, 20, 30)
    with pytest.raises(error, match=message):
        replay.sample(key, state, DrawNumbers())


def test_what_does_not_go_together() -> None:
    with pytest.raises(ValueError, match=r"^future: got 2 for a replay of sequences; expected 0"):
        make(num_envs=1, capacity=10, sequence_length=4, future=2)
    with pytest.raises(ValueError, match=r"^future: got 6; expected at most 5, the steps kept per environment"):
        make(num_envs=2, capacity=10, future=6)
    with pytest.raises(ValueError, match=r"^reopen: got True for a replay in memory"):
        make(num_envs=1, capacity=10).init(reopen=True)


@pytest.mark.parametrize(
    ("field", "index", "value", "message"),
    [
        ("boundary", 0, True, "num_valid is not"),
        ("boundary", 4, False, "head is not a boundary"),
        ("boundary", 9, False, "never written"),
        ("head", 0, 3, "head is not the row opened last"),
        ("num_valid", 0, 3, "num_valid is not"),
        ("written", 0, 0, "without an open row"),
    ],
)
def test_a_broken_replay_is_told(field: str, index: int, value: Any, message: str) -> None:
    _, _, state = filled(1, 10, 4, end=0.0)
    check_valid(state)
    getattr(state, field)[index] = value
    with pytest.raises(AssertionError, match=message):
        check_valid(state)
