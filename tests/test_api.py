"""Runs from Python: the same as from the command line, and what comes back."""

import gc
import json
import pathlib
import re

import numpy as np
import pytest

import polyak
from polyak.agents.presets import make_configs
from polyak.experiments import cli
from small_runs import arguments, config_of, records

FIELDS = {
    "steps": 600,
    "log_every": 100,
    "checkpoint_every": 200,
    "evaluation_episodes": 2,
    "hidden_sizes": (8,),
    "batch_size": 8,
    "learning_starts": 50,
    "replay_capacity": 300,
}


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    return polyak.train(out=tmp_path_factory.mktemp("api") / "run", **FIELDS)


def test_a_run_from_python_is_the_run_of_the_command_line(run, tmp_path):
    assert cli.run(arguments(["train"], tmp_path / "run")) == 0
    assert records(tmp_path / "run") == records(run.folder)
    assert run.config == config_of()


def test_what_comes_back(run):
    assert run.metrics["step"].tolist() == [100, 200, 300, 400, 500, 600]
    assert run.metrics["returns"].sum() == run.metrics["lengths"].sum()  # a reward of 1 a step
    assert run.metrics["loss"].shape == (6,)
    assert run.evaluation == json.loads((run.folder / "evaluation.json").read_text())
    assert run.variables.params["torso/mlp/~/linear_0"]["w"].shape == (4, 8)
    w, b = (run.variables.params["torso/mlp/~/linear_0"][name] for name in "wb")
    head = run.variables.params["head/q_values"]
    for observation in np.random.default_rng(0).normal(size=(20, 4)).astype(np.float32):
        q_values = np.maximum(observation @ w + b, 0) @ head["w"] + head["b"]
        assert run.act(observation) == int(np.argmax(q_values))
    with pytest.raises(ValueError, match=r"observation: got shape \(3,\); expected \(4,\)"):
        run.act(np.zeros(3))


def test_load_and_evaluate(run):
    again = polyak.load(str(run.folder))
    assert again.config == run.config
    assert again.evaluation == run.evaluation == polyak.evaluate(again, episodes=2)
    assert polyak.resume(run.folder).evaluation == run.evaluation
    assert polyak.evaluate(run.folder, episodes=3, epsilon=0.5)["episodes"] == 3
    with pytest.raises(ValueError, match=r"epsilon: got 5.0; expected 0 <= epsilon <= 1. Try 0, for greedy"):
        polyak.evaluate(run, epsilon=5.0)
    with pytest.raises(ValueError, match=r"episodes: got 0; expected an integer >= 1. Try 20"):
        polyak.evaluate(run, episodes=0)


def test_mistakes(run, tmp_path):
    with pytest.raises(ValueError, match=r"field: got 'lerning_rate'.*Did you mean 'learning_rate'"):
        polyak.train(lerning_rate=1.0)
    with pytest.raises(ValueError, match=r"^field: got 'lr'; it does not exist. Use learning_rate=0.1.$"):
        polyak.train(lr=0.1)
    with pytest.raises(ValueError, match=r"^field: got 'tau'; it does not exist. Use target='incremental:0.1'.$"):
        polyak.train(tau=0.1)
    with pytest.raises(ValueError, match=r"^field: got 'lr'; it does not exist. Use learning_rate=0.1.$"):
        polyak.pretrain(lr=0.1)
    with pytest.raises(ValueError, match="agent: got 'dqm'"):
        polyak.train("dqm")
    with pytest.raises(TypeError, match=r"steps: got '5' \(str\)"):
        polyak.train(steps="5")
    with pytest.raises(ValueError, match="give one or the other"):
        polyak.train(config=config_of(), steps=5)
    with pytest.raises(TypeError, match="config: got Configs; expected a RunConfig"):
        polyak.train(config=make_configs("dqn"))
    with pytest.raises(TypeError, match=r"target: got None \(NoneType\); expected a string, such as 'periodic:200'"):
        polyak.train(target=None)
    with pytest.raises(ValueError, match="no run found"):
        polyak.load(tmp_path)
    (tmp_path / "config.json").write_text((run.folder / "config.json").read_text())
    with pytest.raises(ValueError, match=r"the run has not ended. Continue it with polyak.resume"):
        polyak.load(tmp_path)
    with pytest.raises(AttributeError, match="module 'polyak' has no attribute 'trian'"):
        polyak.trian  # noqa: B018 (the access is the test)


def test_the_command_lines_page_names_every_file_and_field_of_a_run(run):
    page = (pathlib.Path(__file__).parent.parent / "docs" / "command_line.md").read_text()
    files, fields = page.split("## The folder of a run")[1].split("A record, ")
    assert named_first(files) == {path.name for path in run.folder.iterdir() if path.name != ".lock"}
    assert named_first(fields) == set(run.metrics)


def named_first(text):
    """Names in the first column of a table."""
    cells = re.findall(r"^\| (`.*?) \|", text, re.MULTILINE)
    return {name.rstrip("/") for cell in cells for name in cell.split("`")[1::2]}


@pytest.mark.slow
def test_without_a_folder_of_ones_own_nothing_is_left(tmp_path, monkeypatch):
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path))
    run = polyak.train(out=False, **FIELDS)
    assert run.folder.parent == tmp_path
    assert polyak.evaluate(run, episodes=2) == run.evaluation
    assert run.act([0.0, 0.0, 0.0, 0.0]) in (0, 1)
    del run
    gc.collect()
    assert not list(tmp_path.iterdir())
    with pytest.raises(ValueError, match="capacity"):
        polyak.train(out=False, **FIELDS | {"replay_capacity": 1})
    with pytest.raises(ValueError, match="env: got 'NoSuch-v0'"):
        polyak.train(out=False, env="NoSuch-v0")
    assert not list(tmp_path.iterdir())

    def failing(carry, record):
        raise RuntimeError("mine")

    with pytest.raises(RuntimeError, match="mine"):
        polyak.train(out=False, callbacks=[failing], **FIELDS)
    [left] = tmp_path.iterdir()  # what was learnt
    assert polyak.resume(left).folder == left
