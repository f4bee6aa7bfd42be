"""What the host replay refuses: bad arguments, steps that do not fit, too much memory, a broken state."""

from typing import Any, NamedTuple

import jax
import numpy as np
import psutil
import pytest

from polyak.replay import Step, add, check_valid, end_episode, init, nbytes, sample
from replay_record import EXTRAS, MASK, SPEC, assert_as_recorded, filled


@pytest.mark.parametrize("count", [0, -1, 1.0, 2.5, True, None, "3"])
def test_counts_are_integers_from_one(count: Any) -> None:
    _, state = filled(1, 20, 30)
    generator = np.random.default_rng(0)
    with pytest.raises(ValueError, match=r"^capacity: got .*expected an integer >= 1"):
        init(SPEC, num_envs=1, capacity=count)
    with pytest.raises(ValueError, match=r"^num_envs: got"):
        init(SPEC, num_envs=count, capacity=10)
    with pytest.raises(ValueError, match=r"^batch_size: got"):
        sample(generator, state, count)
    with pytest.raises(ValueError, match=r"^n: got"):
        sample(generator, state, 4, count)
    if count is not None:
        with pytest.raises(ValueError, match=r"^num_batches: got"):
            sample(generator, state, 4, num_batches=count)


@pytest.mark.parametrize("discount", [-0.01, 1.01, float("nan"), float("inf"), True, "0.9", None])
def test_discount_is_in_the_unit_interval(discount: Any) -> None:
    _, state = filled(1, 20, 30)
    with pytest.raises(ValueError, match=r"^discount: got .*expected a number in \[0, 1\]"):
        sample(np.random.default_rng(0), state, 4, discount=discount)


def test_n_is_at_most_a_lanes_capacity() -> None:
    record, state = filled(2, 20, 30)
    assert_as_recorded(record, sample(np.random.default_rng(0), state, 50, n=10).transition, 10, 0.99)
    with pytest.raises(ValueError, match="n: got 11; expected at most 10"):
        sample(np.random.default_rng(0), state, 4, n=11)


def test_an_empty_replay_says_to_add_steps() -> None:
    with pytest.raises(ValueError, match="Add steps first"):
        sample(np.random.default_rng(0), init(SPEC, num_envs=2, capacity=10), 4)


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
    record, state = filled(2, 20, 5)
    before = jax.tree.map(np.copy, state)
    step = record.add(np.array([False, True]), np.array([False, False]))
    with pytest.raises(error, match=message):
        add(state, step._replace(**change))
    jax.tree.map(np.testing.assert_array_equal, before, state)


def test_a_mask_that_is_not_kept_is_refused() -> None:
    state = init(jax.ShapeDtypeStruct((), np.float32), num_envs=1, capacity=10)
    zeros, mask = np.zeros(1, np.float32), np.ones((1, 2), np.bool_)
    step = Step(zeros, np.zeros(1, np.int32), zeros, zeros, np.zeros(1, np.bool_), zeros)
    for name in ("action_mask_tm1", "action_mask_t"):
        with pytest.raises(ValueError, match=rf"^{name}: got a mask; the replay was made without"):
            add(state, step._replace(**{name: mask}))


def test_closing_lanes_needs_a_mask() -> None:
    _, state = filled(2, 20, 5)
    with pytest.raises(TypeError, match=r"^lanes: got dtype int64; expected bool"):
        end_episode(state, np.array([0, 1]))
    with pytest.raises(ValueError, match=r"^lanes: got shape \(1,\); expected \(2,\)"):
        end_episode(state, np.array([True]))


@pytest.mark.parametrize("options", [{}, {"prioritized": True, "sequence_period": 4}], ids=["plain", "all"])
@pytest.mark.parametrize("num_envs", [1, 4])
def test_memory_is_counted_before_it_is_taken(
    num_envs: int, options: dict[str, Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    class Memory(NamedTuple):
        available: int

    given = {"num_envs": num_envs, **options}
    state = init(SPEC, EXTRAS, MASK, capacity=1000, **given)
    assert nbytes(SPEC, EXTRAS, MASK, capacity=1000, **given) == sum(leaf.nbytes for leaf in jax.tree.leaves(state))

    # A byte less than one row per lane more: 1000 is then the most that fits, and the error says so.
    more = nbytes(SPEC, EXTRAS, MASK, capacity=1001, **given)
    monkeypatch.setattr(psutil, "virtual_memory", lambda: Memory(more - 1))
    init(SPEC, EXTRAS, MASK, capacity=1000, **given)
    for capacity in (1001, 10**9):
        with pytest.raises(ValueError, match=rf"^capacity: got {capacity}, which needs .* that fits is 1000;"):
            init(SPEC, EXTRAS, MASK, capacity=capacity, **given)
    monkeypatch.setattr(psutil, "virtual_memory", lambda: Memory(0))
    with pytest.raises(ValueError, match="that fits is 0;"):
        init(SPEC, capacity=1, **given)


def test_absurd_capacity_is_refused_without_allocating() -> None:
    with pytest.raises(ValueError, match="GiB that are free"):
        init(jax.ShapeDtypeStruct((84, 84, 4), np.uint8), num_envs=8, capacity=10**12)


@pytest.mark.parametrize("observation", [{"a": SPEC}, (4,), 1.0, jax.eval_shape(lambda: jax.random.key(0))])
def test_specs_are_arrays_of_numpy_dtypes(observation: Any) -> None:
    with pytest.raises(TypeError, match=r"^observation: got"):
        init(observation, num_envs=1, capacity=10)
    with pytest.raises(TypeError, match=r"^extras\['x'\]"):
        init(SPEC, {"x": jax.eval_shape(lambda: jax.random.key(0))}, num_envs=1, capacity=10)


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
    _, state = filled(1, 10, 4, end=0.0)
    check_valid(state)
    getattr(state, field)[index] = value
    with pytest.raises(AssertionError, match=message):
        check_valid(state)
