"""Runs of the device loop: interrupted and resumed, evaluated, recorded, and used from Python."""

import shutil

import numpy as np
import pytest
from gymnasium.envs.classic_control.cartpole import CartPoleEnv

import polyak
from polyak.experiments import cli
from polyak.experiments.runs import train as runs
from polyak.experiments.runs.files import read_json
from polyak.experiments.runs.record import record
from small_runs import arguments, assert_same_run, config_of, interrupt_at, records, silent

FIELDS = {"env": "CartPole-v1", "loop": "device", "num_envs": 2, "steps": 400, "train_every": 4, "learner_steps": 1}


@pytest.fixture(scope="module")
def whole(tmp_path_factory):
    folder = tmp_path_factory.mktemp("device") / "whole"
    assert runs.train(config_of(**FIELDS), folder, silent, silent) is not None
    return folder


def test_a_run_is_resumed_to_the_bit(whole, tmp_path):
    assert runs.train(config_of(**FIELDS), tmp_path / "parts", interrupt_at(200), silent) is None
    assert runs.resume(tmp_path / "parts", silent, silent) is not None
    assert_same_run(tmp_path / "parts", whole)
    assert {path.name for path in (tmp_path / "parts").iterdir()} == {path.name for path in whole.iterdir()}


@pytest.mark.slow
@pytest.mark.parametrize(
    "fields",
    [
        {"agent": "r2d2", "lstm_size": 4, "sequence_length": 5, "burn_in": 2, "sequence_period": 3},
        {"agent": "prioritized_dqn", "resets": "periodic", "reset_period": "30", "n_steps": "linear(3,1,50%)"},
        {"agent": "c51", "env": "polyak/Catch-v0", "torso": "mlp", "num_atoms": 5, "frame_stack": 2},
        {"agent": "zp", "transition_sizes": (6,), "horizon": 2},
    ],
    ids=lambda fields: fields["agent"],
)
def test_each_kind_of_agent_is_resumed_to_the_bit(fields, tmp_path):
    config = config_of(**FIELDS | fields)
    assert runs.train(config, tmp_path / "whole", silent, silent) is not None
    assert runs.train(config, tmp_path / "parts", interrupt_at(100), silent) is None
    assert runs.resume(tmp_path / "parts", interrupt_at(300), silent) is None
    assert runs.resume(tmp_path / "parts", silent, silent) is not None
    assert_same_run(tmp_path / "parts", tmp_path / "whole")


@pytest.mark.slow
def test_a_run_that_has_ended_is_extended(whole, tmp_path):
    folder = tmp_path / "longer"
    shutil.copytree(whole, folder)
    runs.resume(folder, silent, silent, steps=500)
    assert records(folder)[: len(records(whole))] == records(whole)
    assert records(folder)[-1]["step"] == 500
    assert read_json(folder / "config.json")["resolved"]["loop"] == "device"


def test_the_greedy_policy_plays_in_every_tool(whole, tmp_path, capsys, monkeypatch):
    picture = np.zeros((4, 6, 3), np.uint8)
    monkeypatch.setattr(CartPoleEnv, "render", lambda self: picture)  # which needs pygame
    run = polyak.load(whole)
    assert run.act(np.zeros(4)) in (0, 1)
    assert run.act(np.zeros(4)) == run.q_values(np.zeros(4)).argmax()
    assert run.metrics["step"].tolist() == [100.0, 200.0, 300.0, 400.0]
    again = polyak.evaluate(whole, episodes=2)
    assert again["returns"] == run.evaluation["returns"]
    assert record(whole, tmp_path / "episode.gif").stat().st_size > 0
    assert cli.run(["evaluate", str(whole), "--episodes", "1"]) == 0
    assert "return" in capsys.readouterr().out


def test_a_callback_ends_the_run_between_chunks(tmp_path):
    seen = []

    def callback(carry, record):
        seen.append((carry.steps, record["step"]))
        return record["step"] >= 200

    run = polyak.train(config=config_of(**FIELDS), out=tmp_path / "run", callbacks=[callback])
    assert seen == [(100, 100), (200, 200)]
    assert run.evaluation


@pytest.mark.parametrize(("flags", "wanted"), [({}, "device"), ({"normalize_rewards": True}, "host")])
def test_auto_prints_the_loop(flags, wanted, tmp_path, capsys):
    fields = FIELDS | {"loop": "auto", "steps": 100, "learning_starts": 20}
    line = arguments(["train", "double_dqn"], tmp_path / "run", **fields)
    line.remove("--quiet")
    line += [f"--{name.replace('_', '-')}" for name in flags]
    assert cli.run(line) == 0
    assert f"loop: {wanted}" in capsys.readouterr().err
    assert read_json(tmp_path / "run" / "config.json")["resolved"]["loop"] == wanted
