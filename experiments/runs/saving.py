"""Checkpoint of a run: saved from a carry, and restored to a carry."""

import pathlib
from collections.abc import Iterator, Mapping
from typing import Any

from ...replay import Replay
from ..environments.types import Environment
from ..loops.carry import Carry, restore_environments
from ..loops.episodes import EpisodeStatistics
from . import checkpoint
from .config import CHANGES_NO_LEARNING
from .mapped import CHECKSUMS, OBSERVATIONS, ROWS, MappedRows, bring_back

_COUNTERS = ("steps", "learner_steps", "learner_steps_recorded")  # of the carry, stored as JSON
_EPISODES = ("recent", "finished", "episodes", "env_restarts")  # of its statistics, stored as JSON
_RUNNING = ("running_return", "running_length")  # of its statistics, stored as arrays
FREE = (*CHANGES_NO_LEARNING, "steps")  # fields in which a resumed run may differ from its checkpoint


def _arrays(carry: Carry) -> dict[str, Any]:
    """Arrays with fixed shapes, by name, which a checkpoint compares with its template."""
    fields = [name for name in carry._fields if name not in (*_COUNTERS, "statistics")]
    return {name: getattr(carry, name) for name in fields} | {
        name: getattr(carry.statistics, name) for name in _RUNNING
    }


def _without_observations(carry: Carry) -> Carry:
    nothing: Any = ()
    return carry._replace(replay=carry.replay._replace(observation=nothing))


def save_carry(
    carry: Carry,
    environment: Environment,
    folder: pathlib.Path,
    metrics_bytes: int,
    identity: Mapping[str, Any],
    *,
    mapped: MappedRows | None = None,
) -> None:
    """Save a carry, with a snapshot of its environments.

    Args:
        carry: Carry that the loop has yielded; not changed.
        environment: Environments of the loop, in their state at that yield.
        folder: Folder of all checkpoints of the run.
        metrics_bytes: Length of the metrics file, to which a resumed run truncates the file.
        identity: Identity of the run, see :func:`polyak.experiments.runs.build.identity`.
        mapped: Rows of a memory-mapped replay; None for a replay in memory.

    Raises:
        OSError: if the disk is full or read-only; older checkpoints are kept.
    """
    counters = {name: getattr(carry, name) for name in _COUNTERS}
    episodes = {name: getattr(carry.statistics, name) for name in _EPISODES}
    snapshot = environment.snapshot()
    if mapped is not None:
        snapshot |= mapped.snapshot(carry.replay)
        carry = _without_observations(carry)
    metadata = {**counters, **episodes, "metrics_bytes": metrics_bytes, "identity": dict(identity)}
    checkpoint.save(folder, carry.steps, _arrays(carry), snapshot, metadata)


def restore_carry(
    carry: Carry,
    environment: Environment,
    replay: Replay,
    folder: pathlib.Path,
    identity: Mapping[str, Any],
    *,
    mapped: pathlib.Path | None = None,
) -> tuple[Carry, int]:
    """Restore the newest checkpoint, and its environments.

    Args:
        carry: Carry at step 0 of the same run, as the template of the shapes; consumed.
        environment: Environments of the run.
        replay: Replay of the run.
        folder: Folder of all checkpoints of the run.
        identity: Identity of the run.
        mapped: File of a memory-mapped replay, which the carry has reopened; None for a replay in memory.

    Returns:
        Carry, and the length of the metrics file when it was saved.

    Raises:
        FileNotFoundError: if no checkpoint can be read.
        ValueError: if the checkpoint belongs to another run, or the replay file does not match the checkpoint.
    """
    observation = carry.replay.observation
    template = _arrays(_without_observations(carry) if mapped is not None else carry)
    arrays, snapshot, metadata = checkpoint.restore_latest(folder, template)
    check_identity(identity, metadata.get("identity", identity), folder.parent)
    if mapped is not None:
        bring_back(observation, {name: snapshot.pop(name) for name in (ROWS, OBSERVATIONS, CHECKSUMS)}, mapped)
        arrays["replay"] = arrays["replay"]._replace(observation=observation)
    episodes = {name: metadata[name] for name in _EPISODES}
    episodes["finished"] = [tuple(episode) for episode in episodes["finished"]]
    statistics = EpisodeStatistics(**{name: arrays.pop(name) for name in _RUNNING}, **episodes)
    counters = {name: metadata[name] for name in _COUNTERS}
    carry = carry._replace(**arrays, **counters, statistics=statistics)
    return restore_environments(carry, environment, replay, snapshot), metadata["metrics_bytes"]


def check_identity(identity: Mapping[str, Any], saved: Mapping[str, Any], folder: pathlib.Path) -> None:
    """Check that a checkpoint belongs to the run in ``folder`` and to its current config.

    ``steps`` and fields that do not affect learning may differ.

    Raises:
        ValueError: if it belongs to another run, or a field of the config was changed; the message has both values.
    """
    changed = dict(_differences(saved, identity))
    if "id" in changed:
        raise ValueError(
            f"{folder / 'checkpoints'}: the checkpoint is of another run (id {changed['id'][0]}, and config.json has "
            f"{changed['id'][1]}). Put the run's own checkpoints there, or start a new run."
        )
    wrong = [
        f"{path}: {was!r} became {now!r}" for path, (was, now) in changed.items() if path.split(".")[-1] not in FREE
    ]
    if wrong:
        raise ValueError(
            f"{folder / 'config.json'}: was changed since the checkpoint was made: {'; '.join(wrong)}. Change it "
            "back, or start a new run from its parameters (--initial)."
        )


def _differences(saved: Any, found: Any, path: str = "") -> Iterator[tuple[str, tuple[Any, Any]]]:
    if isinstance(saved, Mapping) and isinstance(found, Mapping):
        for name in sorted({*saved, *found}):
            yield from _differences(saved.get(name), found.get(name), f"{path}.{name}".removeprefix("."))
    elif saved != found:
        yield path, (saved, found)
