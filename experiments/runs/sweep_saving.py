"""Files of a sweep: ``sweep.json``, the folder of each lane, and the checkpoints of its programs.

``sweep.json`` has the axes, the lanes in order, the id of the sweep and the versions of the libraries. A lane's folder
has the files of a run, and its ``config.json`` the path of the sweep.
"""

import dataclasses
import os
import pathlib
import secrets
from collections.abc import Callable, Mapping, Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from ..loops.episodes import EpisodeStatistics
from ..loops.sweep import Lanes as Mode
from ..loops.sweep import SweepCarry
from . import checkpoint
from .build import Parts, resolved
from .config import from_json, to_json
from .drive import METRICS
from .files import read_json, write_json
from .folders import DIVERGED, LANE_OF, SWEEP
from .records import JsonlWriter
from .saving import check_identity
from .sweep_grid import Grid, Lane
from .sweep_lanes import Lanes, filled

_COUNTERS = ("steps", "learner_steps", "learner_steps_recorded")
_EPISODES = ("recent", "finished", "episodes", "env_restarts")
_RUNNING = ("running_return", "running_length")


class SavedSweep(NamedTuple):
    """Content of the folder of a sweep.

    Attributes:
        folder: Folder of the sweep.
        id: Identity of the sweep, stored in its checkpoints.
        grid: Grid.
        mode: Whether the lanes of a device run one after the other (``map``) or as one batch (``vmap``); empty if the
            lanes are processes.
        diverged: Name of each lane that has diverged to the reason.
    """

    folder: pathlib.Path
    id: str
    grid: Grid
    mode: Mode | None
    diverged: Mapping[str, str]


def write_sweep(folder: pathlib.Path, grid: Grid, mode: Mode | None, versions: Mapping[str, str]) -> SavedSweep:
    """Write ``sweep.json`` of a new sweep."""
    saved = SavedSweep(folder, secrets.token_hex(8), grid, mode, {})
    seeds = list(dict.fromkeys(lane.config.seed for lane in grid.lanes))
    written = {
        "id": saved.id,
        "axes": {name: list(values) for name, values in grid.axes.items()},
        "seeds": seeds,
        "lanes": [lane.name for lane in grid.lanes],
        "settings": [to_json(lane.config) for lane in grid.lanes[:: len(seeds)]],
        "mode": mode,
        DIVERGED: {},
        "versions": dict(versions),
    }
    write_json(folder / SWEEP, written)
    return saved


def read_sweep(folder: pathlib.Path) -> SavedSweep:
    """Read the sweep in ``folder``.

    Raises:
        ValueError: if there is no sweep, or a file of it was changed.
    """
    if not (folder / SWEEP).is_file():
        raise ValueError(f"{folder}: no sweep found (no {SWEEP}). Sweeps are made with: polyak sweep --out FOLDER")
    written = read_json(folder / SWEEP)
    try:
        axes = {name: tuple(values) for name, values in written["axes"].items()}
        settings, seeds = [from_json(each) for each in written["settings"]], written["seeds"]
        configs = [dataclasses.replace(setting, seed=seed) for setting in settings for seed in seeds]
        lanes = tuple(Lane(name, config) for name, config in zip(written["lanes"], configs, strict=True))
        return SavedSweep(folder, written["id"], Grid(axes, lanes), written["mode"], dict(written[DIVERGED]))
    except (KeyError, TypeError, AttributeError) as error:
        raise ValueError(f"{folder / SWEEP}: got no {error}; was the file changed by hand?") from None


def note_diverged(saved: SavedSweep, diverged: Mapping[str, str]) -> None:
    """Add lanes that have diverged, with the reasons, to ``sweep.json``."""
    written = read_json(saved.folder / SWEEP)
    if written[DIVERGED] != (found := {**written[DIVERGED], **diverged}):
        write_json(saved.folder / SWEEP, {**written, DIVERGED: found})


def write_lane(sweep: pathlib.Path, name: str, parts: Parts) -> None:
    """Make the folder of a lane with its ``config.json``."""
    (sweep / name).mkdir(parents=True, exist_ok=True)
    write_json(sweep / name / "config.json", resolved(parts, secrets.token_hex(8)))
    mark_lane(sweep, name)


def mark_lane(sweep: pathlib.Path, name: str) -> None:
    """Add the path of the sweep to the ``config.json`` of a lane, if the lane has begun."""
    path = sweep / name / "config.json"
    if path.is_file():
        write_json(path, {**read_json(path), LANE_OF: os.path.relpath(sweep, path.parent)})


class LaneMetrics:
    """Metrics files of lanes. A file is open for one record only, because a sweep may have thousands of lanes.

    Args:
        folders: Folders of the lanes.
        positions: Lengths to which the files are truncated.
    """

    def __init__(self, folders: Sequence[pathlib.Path], positions: Sequence[int]) -> None:
        self._paths, self._positions = [folder / METRICS for folder in folders], list(positions)
        for path, at in zip(self._paths, self._positions, strict=True):
            with JsonlWriter(path, at=at):
                pass

    def write(self, lane: int, record: Mapping[str, Any]) -> None:
        """Append a record of :func:`polyak.experiments.runs.records.plain` to the file of a lane.

        Raises:
            OSError: if the disk is full or gone.
        """
        with JsonlWriter(self._paths[lane], at=self._positions[lane]) as writer:
            writer.write(record)
        self._positions[lane] = self._paths[lane].stat().st_size

    def positions(self) -> list[int]:
        """Lengths of the files; their content is on the disk when this returns."""
        found = []
        for path, at in zip(self._paths, self._positions, strict=True):
            with JsonlWriter(path, at=at) as writer:
                found.append(writer.position())
        return found


def sweep_identity(saved: SavedSweep, lanes: Lanes) -> dict[str, Any]:
    """Identity of a program of a sweep, stored in its checkpoints: id, configs, and whether JAX computes in 64 bits."""
    configs = {lane.name: to_json(lane.config) for lane in lanes.lanes}
    return {"id": saved.id, "config": configs, "jax_enable_x64": bool(jax.config.read("jax_enable_x64"))}


def save_sweep(
    lanes: Lanes, carry: SweepCarry, folder: pathlib.Path, positions: Sequence[int], identity: Mapping[str, Any]
) -> None:
    """Save a carry without the copies that fill the devices, so that it can be restored on other devices.

    Raises:
        OSError: if the disk is full or read-only; older checkpoints are kept.
    """
    count = len(lanes.lanes)
    statistics = carry.statistics[:count]
    tree = {"key": carry.key, "arrays": carry.arrays}
    running = {name: np.stack([getattr(one, name) for one in statistics]) for name in _RUNNING}
    metadata = {
        **{name: getattr(carry, name) for name in _COUNTERS},
        "diverged": {str(lane): reason for lane, reason in carry.diverged.items() if lane < count},
        "episodes": [{name: getattr(one, name) for name in _EPISODES} for one in statistics],
        "metrics_bytes": list(positions),
        "identity": dict(identity),
    }
    checkpoint.save(folder, carry.steps, jax.tree.map(lambda leaf: _first(leaf, count), tree), running, metadata)


def restore_sweep(
    lanes: Lanes, template: Callable[[], SweepCarry], folder: pathlib.Path, identity: Mapping[str, Any]
) -> tuple[SweepCarry, list[int]]:
    """Restore the newest checkpoint.

    Args:
        lanes: Lanes.
        template: Function that makes a carry of these lanes, for its shapes.
        folder: Folder of the checkpoints of the program.
        identity: Identity of the program.

    Returns:
        Carry, and the lengths of the metrics files when it was saved.

    Raises:
        ValueError: if no checkpoint can be read, or the checkpoint belongs to another sweep.
    """
    count = len(lanes.lanes)
    shapes = template()
    tree = jax.tree.map(lambda leaf: _empty(leaf, count), {"key": shapes.key, "arrays": shapes.arrays})
    del shapes
    try:
        found, running, metadata = checkpoint.restore_latest(folder, tree)
    except FileNotFoundError as error:
        raise ValueError(str(error)) from None
    check_identity(identity, metadata["identity"], folder.parent.parent)
    statistics = []
    for lane, episodes in enumerate(metadata["episodes"]):
        episodes["finished"] = [tuple(episode) for episode in episodes["finished"]]
        statistics.append(EpisodeStatistics(**{name: running[name][lane] for name in _RUNNING}, **episodes))
    counters = {name: metadata[name] for name in _COUNTERS}
    carry = filled(lanes, found["key"], found["arrays"], statistics, **counters)
    diverged = {int(lane): reason for lane, reason in metadata["diverged"].items()}
    return carry._replace(diverged=diverged), metadata["metrics_bytes"]


def _is_key(leaf: Any) -> bool:
    return isinstance(leaf, jax.Array) and bool(jnp.issubdtype(leaf.dtype, jax.dtypes.prng_key))


def _first(leaf: Any, count: int) -> Any:
    return leaf[:count] if _is_key(leaf) else np.asarray(leaf)[:count]


def _empty(leaf: Any, count: int) -> Any:
    """Array of the shape of a leaf without copies of the last lane, in no memory of its own."""
    if _is_key(leaf):
        return leaf[:count]
    return np.broadcast_to(np.zeros((), leaf.dtype), (count, *leaf.shape[1:]))
