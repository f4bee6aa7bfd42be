"""Sweeps whose lanes are processes, because the environment is not functional."""

import json

import pytest

import polyak
from polyak.experiments import cli
from polyak.experiments.runs.sweep import resume_sweep, sweep
from small_runs import arguments, assert_same_run, silent
from small_sweeps import grid_of, own_run


@pytest.mark.slow
def test_a_sweep_in_processes_equals_its_runs_one_by_one(tmp_path):
    grid = grid_of(axes={"target": ["none", "periodic:5"]}, env="FrozenLake-v1")
    shown, said = [], []
    ends = sweep(grid, tmp_path / "sweep", lambda newest, ends: shown.append(dict(ends)), said.append)
    assert said[0].startswith("sweep     2 lanes: 2 x target, 1 x seed, as processes")
    for lane in grid.lanes:
        folder = tmp_path / "sweep" / lane.name
        assert_same_run(folder, own_run(lane, tmp_path / lane.name))
        assert ends[lane.name] == json.loads((folder / "evaluation.json").read_text())
    assert [len(row.training) > 0 for row in polyak.compare(tmp_path / "sweep").rows] == [True, True]
    written = json.loads((tmp_path / "sweep" / "none" / "seed0" / "config.json").read_text())
    assert written["lane_of"] == "../.."
    (tmp_path / "sweep" / "none" / "seed0" / "evaluation.json").unlink()  # as if it had been killed at its end
    assert resume_sweep(tmp_path / "sweep", silent_show, silent) == ends


def silent_show(newest, ends):
    """A ``show`` that shows nothing."""


@pytest.mark.slow
def test_the_command_trains_processes_and_continues_them(tmp_path, capsys):
    folder = tmp_path / "sweep"
    words = arguments(["sweep", "dqn"], folder, env="FrozenLake-v1", steps=200)
    assert cli.run([*words, "--target", "none", "periodic:5"]) == 0
    said = capsys.readouterr().out
    assert "target=periodic:5" in said
    assert f"sweep     {folder}" in said
    assert cli.run(["resume", str(folder), "--quiet"]) == 0
