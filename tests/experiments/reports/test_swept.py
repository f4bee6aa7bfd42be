"""Sweeps from Python."""

import numpy as np
import pytest

import polyak
from functional_environments import tale
from small_sweeps import FIELDS


@pytest.fixture(scope="module")
def sweep(tmp_path_factory):
    folder = tmp_path_factory.mktemp("sweep") / "sweep"
    return polyak.sweep("dqn", target=["none", "periodic:5"], seeds=2, out=folder, **FIELDS)


def test_what_comes_back(sweep):
    assert list(sweep.ends) == ["none/seed0", "none/seed1", "periodic-5/seed0", "periodic-5/seed1"]
    assert sweep.axes == {"target": ("none", "periodic:5")}
    assert [lane.config.agent.target for lane in sweep.lanes] == ["none", "none", "periodic:5", "periodic:5"]
    lane = sweep.lane("periodic-5/seed1")
    assert lane.evaluation == sweep.ends["periodic-5/seed1"]
    assert lane.act(np.zeros(4, np.float32)) in (0, 1)
    assert repr(sweep) == (
        f"Sweep(lanes=4, ended=4, axes={{'target': ['none', 'periodic:5']}}, folder={str(sweep.folder)!r})"
    )
    with pytest.raises(ValueError, match=r"lane: got 'frozen/seed0'; expected one of none/seed0, none/seed1"):
        sweep.lane("frozen/seed0")


def test_a_sweep_is_shown_as_its_comparison(sweep):
    assert sweep.table() == polyak.compare(sweep.folder).table()
    assert "target=periodic:5" in sweep._repr_html_()
    assert len(sweep.figure().axes) >= 1


def test_a_sweep_that_has_ended_is_read_again(sweep):
    again = polyak.resume(sweep.folder)
    assert again.ends == sweep.ends
    assert again.axes == sweep.axes
    with pytest.raises(ValueError, match="callbacks: got 1 for a sweep, which calls none"):
        polyak.resume(sweep.folder, callbacks=[print])


@pytest.mark.slow
def test_objects_of_the_program_are_axes(tmp_path):
    kinds = [tale("short", masks=False), tale("masked")]
    fields = FIELDS | {"steps": 100, "learning_starts": 20, "log_every": 50, "evaluation_episodes": 1}
    found = polyak.sweep("dqn", env=kinds, out=tmp_path / "sweep", **fields)
    assert list(found.ends) == ["env-short/seed0", "env-masked/seed0"]
    assert [lane.spec.action_mask for lane in found.lanes] == [False, True]
    with pytest.raises(ValueError, match="env: the run was begun with short, an object that no module has"):
        _ = polyak.resume(tmp_path / "sweep").lanes
    again = polyak.resume(tmp_path / "sweep", env=kinds)
    assert again.ends == found.ends
    assert [lane.evaluation for lane in again.lanes] == [lane.evaluation for lane in found.lanes]
