"""MiniGrid, whose observations are dictionaries and whose spaces are its own."""

import importlib.util

import numpy as np
import pytest

import polyak

needs_minigrid = pytest.mark.skipif(
    importlib.util.find_spec("minigrid") is None, reason="needs the extra minigrid: pip install '.[minigrid]'"
)
EMPTY = "minigrid:MiniGrid-Empty-5x5-v0"


@needs_minigrid
@pytest.mark.slow
def test_an_id_of_minigrid_without_a_wrapper_names_the_entry_to_use(tmp_path):
    with pytest.raises(ValueError, match=r"observation_space: got Dict.*no fixed shape.*into the entry 'image'"):
        polyak.train(env=EMPTY, steps=2_000, out=tmp_path / "run")
    assert not (tmp_path / "run").exists()


@needs_minigrid
@pytest.mark.slow
def test_the_run_of_docs_environments(tmp_path):
    fields = {"wrappers": ["minigrid.wrappers:ImgObsWrapper"], "torso": "mlp", "steps": 30_000}
    run = polyak.train(env=EMPTY, out=tmp_path / "run", **fields)
    assert run.evaluation["mean"] > 0.9
    assert run.act(np.ones((7, 7, 3), np.uint8)) in range(run.spec.num_actions)
