"""A replay whose observations lie in a file behaves to the bit as one in memory."""

import pathlib
from typing import Any, NamedTuple

import jax
import numpy as np
import psutil
import pytest

from polyak.replay import (
    HostReplay,
    add,
    check_valid,
    end_episode,
    init,
    nbytes,
    sample,
    sample_sequences,
    update_priorities,
)
from replay_record import EXTRAS, MASK, SPEC, Record, framed, random_ends

FRAME = jax.ShapeDtypeStruct((1, 3), np.int32)
ALL: dict[str, Any] = {"prioritized": True, "stack": 3, "sequence_period": 2}


class Free(NamedTuple):
    available: int = 0
    free: int = 0


@pytest.mark.parametrize("options", [{}, {"prioritized": True}, {"stack": 3}, ALL], ids=str)
@pytest.mark.parametrize("num_envs", [1, 3])
def test_adds_and_draws_are_those_in_memory(num_envs: int, options: dict[str, Any], tmp_path: pathlib.Path) -> None:
    file = tmp_path / "observations"
    given = {"num_envs": num_envs, "capacity": 12 * num_envs, **options}
    spec = FRAME if "stack" in options else SPEC
    replays = [init(spec, EXTRAS, MASK, **given), init(spec, EXTRAS, MASK, **given, storage=file)]
    generator, record = np.random.default_rng(0), Record(num_envs)
    for number in range(60):
        lanes = generator.random(num_envs) < 0.7
        if number % 7 == 6:
            record.end(lanes)
            replays = [end_episode(state, lanes) for state in replays]
        else:
            step = record.add(*random_ends(generator, num_envs, 0.2), lanes)
            step = framed(step) if "stack" in options else step
            replays = [add(state, step, lanes) for state in replays]
        if not replays[0].num_valid.any():
            continue
        drawn = [sample(np.random.default_rng(number), state, 5, 3) for state in replays]
        if "sequence_period" in options and replays[0].sequence_start.any():
            drawn += [sample_sequences(np.random.default_rng(number), state, 5, 3, 0.9) for state in replays]
        for one, other in zip(drawn[::2], drawn[1::2], strict=True):
            jax.tree.map(np.testing.assert_array_equal, one, other)
            assert not np.shares_memory(jax.tree.leaves(other)[0], replays[1].observation)
        if "prioritized" in options:
            priorities = generator.exponential(size=5)
            replays = [update_priorities(state, drawn[0].rows, priorities) for state in replays]
        jax.tree.map(np.testing.assert_array_equal, *replays)
        check_valid(replays[1])
    in_file = np.fromfile(file, np.int32).reshape(replays[1].observation.shape)
    np.testing.assert_array_equal(in_file, replays[0].observation)
    assert type(replays[1].observation) is np.ndarray


def in_memory(state: HostReplay) -> int:
    return sum(leaf.nbytes for leaf in jax.tree.leaves(state._replace(observation=())))


def test_only_what_lies_in_memory_is_counted(tmp_path: pathlib.Path, monkeypatch: pytest.MonkeyPatch) -> None:
    file = tmp_path / "observations"
    given = {"num_envs": 2, "capacity": 1000, "storage": file, **ALL}
    state = init(FRAME, EXTRAS, MASK, **given)
    assert nbytes(FRAME, EXTRAS, MASK, **given) == in_memory(state)
    assert file.stat().st_size == state.observation.nbytes
    monkeypatch.setattr(psutil, "virtual_memory", lambda: Free(available=in_memory(state)))
    init(FRAME, EXTRAS, MASK, **given)
    with pytest.raises(ValueError, match=r"^capacity: got 1000, which needs"):
        init(FRAME, EXTRAS, MASK, **given | {"storage": None})
    monkeypatch.setattr(psutil, "virtual_memory", lambda: Free(available=in_memory(state) - 1))
    with pytest.raises(ValueError, match=r"^capacity: got 1000, which needs .* that fits is 998;"):
        init(FRAME, EXTRAS, MASK, **given)


def test_the_disk_must_have_the_space(tmp_path: pathlib.Path, monkeypatch: pytest.MonkeyPatch) -> None:
    file, asked = tmp_path / "observations", []

    def disk_usage(folder: str) -> Free:
        asked.append(folder)
        return Free(free=101 * 84 * 84 - 1)

    monkeypatch.setattr(psutil, "disk_usage", disk_usage)
    frame = jax.ShapeDtypeStruct((84, 84), np.uint8)
    message = r"^storage: got '.*observations' for a capacity of 100, whose observations need 0.00 GiB; .* 100% of it"
    with pytest.raises(ValueError, match=message):
        init(frame, num_envs=1, capacity=100, storage=file)
    assert not file.exists()
    init(frame, num_envs=1, capacity=99, storage=file)
    init(frame, num_envs=1, capacity=100)
    assert asked == [str(tmp_path)] * 2


def test_a_file_is_begun_anew_and_an_older_replay_keeps_its_own(tmp_path: pathlib.Path) -> None:
    file = tmp_path / "observations"
    file.write_bytes(b"\x01" * 10_000)
    record, old = Record(1), init(SPEC, EXTRAS, MASK, num_envs=1, capacity=10, storage=str(file))
    assert not old.observation.any()
    for _ in range(4):
        old = add(old, record.add(np.array([False]), np.array([False])))
    before = old.observation.copy()
    new = init(SPEC, EXTRAS, MASK, num_envs=1, capacity=3, storage=file)
    assert not new.observation.any()
    np.testing.assert_array_equal(old.observation, before)


@pytest.mark.parametrize("storage", [3, True, b"observations", object()])
def test_storage_is_a_path(storage: Any) -> None:
    with pytest.raises(TypeError, match=r"^storage: got .*; expected the path of a file"):
        init(SPEC, num_envs=1, capacity=10, storage=storage)


def test_storage_lies_in_a_folder(tmp_path: pathlib.Path) -> None:
    for storage in (tmp_path, tmp_path / "missing" / "observations"):
        with pytest.raises(ValueError, match=r"^storage: got .*; expected a file in a folder that exists"):
            init(SPEC, num_envs=1, capacity=10, storage=storage)
