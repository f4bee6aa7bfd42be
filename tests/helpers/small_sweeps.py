"""Sweeps of seconds, and the runs that their lanes equal."""

import numpy as np

from polyak.experiments.runs import train as runs
from polyak.experiments.runs.sweep import sweep
from polyak.experiments.runs.sweep_grid import make_grid
from small_runs import records, silent

FIELDS = {
    "steps": 400,
    "log_every": 100,
    "checkpoint_every": 150,
    "evaluation_episodes": 2,
    "hidden_sizes": (8,),
    "batch_size": 8,
    "learning_starts": 50,
    "replay_capacity": 300,
}


def grid_of(agent="dqn", seeds=1, axes=None, **changed):
    """Grid of a small sweep."""
    return make_grid(agent, "classic", FIELDS | changed, axes or {}, seeds)


def run_sweep(grid, folder, **options):
    """Train a small sweep; return the ends of its lanes and its messages."""
    said = []
    ends = sweep(grid, folder, lambda newest, ends: None, said.append, **options)
    return ends, said


def own_run(lane, folder):
    """Train the run of a lane alone."""
    runs.train(lane.config, folder, silent, silent)
    return folder


def parameters(folder):
    with np.load(folder / "parameters.npz") as found:
        return {name: found[name] for name in found.files}


def assert_equal_lane(folder, other):
    """Parameters, evaluation and episodes are equal to the bit, and means of metrics to rounding."""
    ours, theirs = parameters(folder), parameters(other)
    assert ours.keys() == theirs.keys()
    for name in theirs:
        assert ours[name].tobytes() == theirs[name].tobytes(), name
    assert (folder / "evaluation.json").read_text() == (other / "evaluation.json").read_text()
    for found, wanted in zip(records(folder), records(other), strict=True):
        assert found.keys() == wanted.keys()
        for name, value in wanted.items():
            if isinstance(value, float) and not name.startswith("return"):
                np.testing.assert_allclose(found[name], value, rtol=1e-5, atol=1e-7, err_msg=name)
            else:
                assert found[name] == value, name


def assert_same_sweep(folder, other, grid):
    """The lanes of two sweeps are equal to the bit, with all metrics."""
    for lane in grid.lanes:
        assert records(folder / lane.name) == records(other / lane.name)
        assert_equal_lane(folder / lane.name, other / lane.name)
