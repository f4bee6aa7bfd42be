"""A replay whose observations lie in a file behaves to the bit as one in memory."""

import pathlib
from typing import Any, NamedTuple

import jax
import numpy as np
import psutil
import pytest

from polyak.replay import ReplayState, check_valid
from replay_record import SPEC, Record, draw, framed, make, plain, random_ends

FRAME = jax.ShapeDtypeStruct((1, 3), np.int32)
ALL: dict[str, Any] = {"priority_exponent": 1.0, "stack": 3, "sequence_length": 3, "sequence_period": 2}


class Free(NamedTuple):
    available: int = 0
    free: int = 0


@pytest.mark.parametrize("options", [{}, {"priority_exponent": 1.0}, {"stack": 3, "future": 2}, ALL], ids=str)
@pytest.mark.parametrize("num_envs", [1, 3])
def test_adds_and_draws_are_those_in_memory(num_envs: int, options: dict[str, Any], tmp_path: pathlib.Path) -> None:
    file = tmp_path / "observations"
    given = {"num_envs": num_envs, "capacity": 12 * num_envs, **options}
    spec = FRAME if "stack" in options else SPEC
    replay, other = make(spec, **given), make(spec, **given, storage=file)
    states = [replay.init(), other.init()]
    draws = {key: value for key, value in options.items() if key in ("future", "sequence_length")}
    generator, record = np.random.default_rng(0), Record(num_envs)
    for number in range(60):
        lanes = generator.random(num_envs) < 0.7
        if number % 7 == 6:
            record.end(lanes)
            states = [replay.end_episode(state, lanes) for state in states]
        else:
            step = record.add(*random_ends(generator, num_envs, 0.2), lanes)
            step = framed(step) if "stack" in options else step
            states = [replay.add(state, step, lanes) for state in states]
        if not states[0].num_valid.any() or ("sequence_length" in options and not states[0].sequence_start.any()):
            continue
        drawn = [draw(number, state, 5, 3, **draws) for state in states]
        jax.tree.map(np.testing.assert_array_equal, *drawn)
        assert not np.shares_memory(jax.tree.leaves(drawn[1])[0], states[1].observation)
        if "priority_exponent" in options:
            priorities = generator.exponential(size=5)
            states = [replay.update_priorities(state, drawn[0].rows, priorities) for state in states]
        jax.tree.map(np.testing.assert_array_equal, *states)
        check_valid(states[1])
    in_file = np.fromfile(file, np.int32).reshape(states[1].observation.shape)
    np.testing.assert_array_equal(in_file, states[0].observation)
    assert type(states[1].observation) is np.ndarray


def in_memory(state: ReplayState) -> int:
    return sum(leaf.nbytes for leaf in jax.tree.leaves(state._replace(observation=())))


def test_only_what_lies_in_memory_is_counted(tmp_path: pathlib.Path, monkeypatch: pytest.MonkeyPatch) -> None:
    file = tmp_path / "observations"
    given = {"num_envs": 2, "capacity": 1000, "storage": file, **ALL}
    replay = make(FRAME, **given)
    state = replay.init()
    assert replay.nbytes == (in_memory(state), state.observation.nbytes)
    assert file.stat().st_size == state.observation.nbytes
    monkeypatch.setattr(psutil, "virtual_memory", lambda: Free(available=in_memory(state)))
    replay.init()
    with pytest.raises(ValueError, match=r"^capacity: got 1000, which needs"):
        make(FRAME, **given | {"storage": None}).init()
    monkeypatch.setattr(psutil, "virtual_memory", lambda: Free(available=in_memory(state) - 1))
    with pytest.raises(ValueError, match=r"^capacity: got 1000, which needs .* that fits is 998\."):
        replay.init()


def test_the_disk_must_have_the_space(tmp_path: pathlib.Path, monkeypatch: pytest.MonkeyPatch) -> None:
    file, asked = tmp_path / "observations", []

    def disk_usage(folder: str) -> Free:
        asked.append(folder)
        return Free(free=101 * 84 * 84 - 1)

    monkeypatch.setattr(psutil, "disk_usage", disk_usage)
    frame = jax.ShapeDtypeStruct((84, 84), np.uint8)
    message = r"^storage: got '.*observations' for a capacity of 100, .* need 0.00 GiB; .* 100% of the capacity"
    with pytest.raises(ValueError, match=message):
        plain(frame, num_envs=1, capacity=100, storage=file).init()
    assert not file.exists()
    plain(frame, num_envs=1, capacity=99, storage=file).init()
    plain(frame, num_envs=1, capacity=100).init()
    assert asked == [str(tmp_path)] * 2


def test_a_file_is_begun_anew_and_an_older_replay_keeps_its_own(tmp_path: pathlib.Path) -> None:
    file = tmp_path / "observations"
    file.write_bytes(b"\x01" * 10_000)
    record, replay = Record(1), make(num_envs=1, capacity=10, storage=str(file))
    old = replay.init()
    assert not old.observation.any()
    for _ in range(4):
        old = replay.add(old, record.add(np.array([False]), np.array([False])))
    before = old.observation.copy()
    new = make(num_envs=1, capacity=3, storage=file).init()
    assert not new.observation.any()
    np.testing.assert_array_equal(old.observation, before)


@pytest.mark.parametrize("storage", [3, True, b"observations", object()])
def test_storage_is_a_path(storage: Any) -> None:
    with pytest.raises(TypeError, match=r"^storage: got .*; expected the path of a file"):
        plain(SPEC, num_envs=1, capacity=10, storage=storage)


def test_storage_lies_in_a_folder(tmp_path: pathlib.Path) -> None:
    for storage in (tmp_path, tmp_path / "missing" / "observations"):
        with pytest.raises(ValueError, match=r"^storage: got .*; expected a file in a folder that exists"):
            plain(SPEC, num_envs=1, capacity=10, storage=storage).init()


def test_a_file_is_reopened_as_it_was_left(tmp_path: pathlib.Path) -> None:
    record, replay = Record(1), make(num_envs=1, capacity=10, storage=tmp_path / "observations")
    with pytest.raises(ValueError, match=r"^storage: got .*observations', no file; expected a file of 132 bytes"):
        replay.init(reopen=True)
    state = replay.init()
    for _ in range(4):
        state = replay.add(state, record.add(np.array([False]), np.array([False])))
    reopened = replay.init(reopen=True)
    np.testing.assert_array_equal(reopened.observation, state.observation)
    assert reopened.observation.any()
    assert not reopened.num_valid.any()
    with pytest.raises(ValueError, match=r"^storage: got .*a file of 132 bytes; expected a file of 144 bytes"):
        make(num_envs=1, capacity=11, storage=tmp_path / "observations").init(reopen=True)
