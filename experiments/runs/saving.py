"""A carry and its checkpoint: what is written of it, and how a run comes back to it."""

import pathlib
from typing import Any

import jax
import numpy as np

from ...replay import HostReplay, Replay, stacking
from ..environments.types import Environment
from ..loops import normalization
from ..loops.carry import Carry
from . import checkpoint

_ROWS, _OBSERVATIONS = "replay rows", "replay observations"


def _arrays(carry: Carry) -> Any:
    """The part of a carry that keeps its shapes: what a checkpoint compares with its template."""
    statistics = carry.statistics
    running = (statistics.running_return, statistics.running_length)
    parts = (carry.key, carry.agent, carry.recurrent_state, carry.replay, carry.timestep, carry.totals, running)
    return (*parts, carry.normalization, carry.frames)


def _without_observations(carry: Carry) -> Carry:
    nothing: Any = ()
    return carry._replace(replay=carry.replay._replace(observation=nothing))


def _next_rows(replay: HostReplay, count: int) -> np.ndarray:
    """The rows that the next ``count`` to be opened of each lane lie in, of those that were written before."""
    per_lane = len(replay.boundary) // len(replay.head)
    ahead = (replay.head[:, None] + np.arange(min(count, per_lane))) % per_lane  # the open row among them
    rows = ahead + np.arange(len(replay.head))[:, None] * per_lane
    return rows[ahead < replay.written[:, None]]


def save_carry(
    carry: Carry,
    environment: Environment,
    folder: pathlib.Path,
    metrics_bytes: int,
    *,
    mapped_for: int | None = None,
) -> None:
    """Writes the checkpoint of a carry, with a snapshot of the environments.

    Args:
        carry: what the loop yielded; not changed.
        environment: the environments of the loop, standing where it yielded.
        folder: of all checkpoints of the run.
        metrics_bytes: length of the metrics file; what is written after it is made again after a resume.
        mapped_for: for a replay whose observations lie in a file of their own, which stays where it is: how many steps
            of each environment may follow as long as this checkpoint is kept. Only what they would overwrite is saved.

    Raises:
        OSError: the disk is full or read-only; older checkpoints stay as they are.
    """
    statistics = carry.statistics
    metadata = {
        "steps": carry.steps,
        "learner_steps": carry.learner_steps,
        "learner_steps_recorded": carry.learner_steps_recorded,
        "recent": statistics.recent,
        "finished": statistics.finished,
        "episodes": statistics.episodes,
        "env_restarts": statistics.env_restarts,
        "metrics_bytes": metrics_bytes,
    }
    loose = environment.snapshot()
    if mapped_for is not None:
        mapped = carry.replay.observation
        if isinstance(mapped.base, np.memmap):
            mapped.base.flush()
        rows = _next_rows(carry.replay, 2 * mapped_for + 2)  # a step that ends an episode takes two
        loose |= {_ROWS: rows, _OBSERVATIONS: mapped[rows]}
        carry = _without_observations(carry)
    checkpoint.save(folder, carry.steps, _arrays(carry), loose, metadata)


def restore_carry(
    carry: Carry, environment: Environment, replay: Replay, folder: pathlib.Path, *, mapped: bool = False
) -> tuple[Carry, int]:
    """Reads the newest checkpoint and leads the environments back to where they stood.

    Args:
        carry: the carry at step 0 of the same run, which says the shapes; consumed.
        environment: Environments of the run.
        replay: Replay of the run.
        folder: Folder of all checkpoints of the run.
        mapped: Whether the replay's observations lie in a file, which the carry has reopened.

    Returns:
        The carry, and the length of the metrics file when it was saved.

    Raises:
        FileNotFoundError: there is no checkpoint that can be read.
        ValueError: it is of another run.
    """
    observation = carry.replay.observation
    carry = _without_observations(carry) if mapped else carry
    tree, snapshot, metadata = checkpoint.restore_latest(folder, _arrays(carry))
    key, agent, recurrent_state, replay_state, timestep, totals, running, moments, frames = tree
    if mapped:
        observation[snapshot.pop(_ROWS)] = snapshot.pop(_OBSERVATIONS)
        replay_state = replay_state._replace(observation=observation)
    statistics = carry.statistics
    statistics.running_return, statistics.running_length = running
    statistics.recent, statistics.episodes = metadata["recent"], metadata["episodes"]
    statistics.env_restarts = metadata.get("env_restarts", 0)
    statistics.finished = [tuple(episode) for episode in metadata["finished"]]
    resumed, restarted = environment.restore(snapshot)
    if restarted.any():
        # Those environments cannot be led back to where they stood: their episodes end here, as truncated.
        timestep = resumed._replace(a_tm1=timestep.a_tm1)
        replay_state = replay.end_episode(replay_state, restarted)
        statistics.restart(restarted)
        if jax.tree.leaves(frames):
            anew = stacking.push(frames, resumed.observation, restarted)
            frames = np.where(np.expand_dims(restarted, tuple(range(1, anew.ndim))), anew, frames)
        moments = normalization.restart(moments, resumed, restarted)
    restored = Carry(
        key,
        agent,
        recurrent_state,
        replay_state,
        timestep,
        totals,
        statistics,
        moments,
        frames,
        metadata["steps"],
        metadata["learner_steps"],
        metadata["learner_steps_recorded"],
    )
    return restored, metadata["metrics_bytes"]
