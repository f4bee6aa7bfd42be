"""Runs of version 0.1.0: loaded, evaluated, compared, exported and begun from; not resumed."""

import json

import numpy as np
import pytest

import golden
import polyak
from polyak.agents.config import LSTM, Categorical, Ensemble, Greedy, HLGauss, Munchausen, Scalar
from polyak.agents.loop_config import Prioritized, Sequences, Transitions, Uniform
from polyak.agents.optimizer_parts import Adam, RMSProp
from polyak.agents.schedules import Schedule
from polyak.experiments import cli
from polyak.experiments.runs import train as runs
from polyak.experiments.runs.version_0_1_0 import config_from_0_1_0, configs_from_0_1_0
from small_runs import config_of, silent

FLAT = {
    "hidden_sizes": [8],
    "torso": "auto",
    "activation": "relu",
    "head": "q",
    "dueling": False,
    "noisy": False,
    "noisy_sigma": 0.5,
    "num_atoms": 51,
    "v_min": -10.0,
    "v_max": 10.0,
    "num_quantiles": 64,
    "num_heads": 10,
    "mask_probability": 0.5,
    "prior_scale": 1.0,
    "memory": "none",
    "lstm_size": 64,
    "double": True,
    "loss": "squared",
    "value_rescaling": False,
    "munchausen": False,
    "munchausen_weight": 0.9,
    "munchausen_temperature": 0.03,
    "munchausen_clip": -1.0,
    "augmentation": "none",
    "discount": 0.99,
    "n_steps": 10,
    "batch_size": 8,
    "frame_stack": 1,
    "sequence_length": 0,
    "burn_in": 0,
    "sequence_period": 1,
    "priority_exponent": 0.0,
    "importance_exponent_initial": 0.4,
    "importance_exponent_final": 1.0,
    "optimizer": "adam",
    "optimizer_epsilon": 1e-8,
    "learning_rate": 0.001,
    "learning_rate_schedule": "linear",
    "max_gradient_norm": None,
    "skip_nonfinite": False,
    "target": "periodic:100",
    "average": "none",
    "replay_capacity": 300,
    "learning_starts": 50,
    "train_every": 4,
    "learner_steps": 2,
    "epsilon_initial": 1.0,
    "epsilon_final": 0.05,
    "epsilon_fraction": 0.25,
    "normalize_observations": False,
    "normalize_rewards": False,
}
RUN = {
    "env": "CartPole-v1",
    "steps": 600,
    "num_envs": 1,
    "workers": 0,
    "worker_timeout": 60.0,
    "on_env_failure": "stop",
    "seed": 0,
    "log_every": 100,
    "checkpoint_every": 200,
    "evaluation_episodes": 2,
    "replay_storage": "memory",
    "action_mask": False,
    "initial": None,
    "loggers": ["csv", "tensorboard"],
}
OLD = {"agent": {"name": "dqn", **FLAT}, **RUN}


@pytest.fixture
def folder(tmp_path):
    """A finished run as 0.1.0 left it, checkpoints aside."""
    rng, path = np.random.default_rng(0), tmp_path / "old"
    path.mkdir()
    versions = {"polyak": "0.1.0", "jax": "0.4.30"}
    (path / "config.json").write_text(json.dumps({"config": OLD, "resolved": {}, "versions": versions}))
    layers = {"torso/mlp/~/linear_0": (4, 8), "head/q_values": (8, 2)}
    arrays = {f"params/{name}/w": rng.normal(size=shape).astype(np.float32) for name, shape in layers.items()}
    arrays |= {f"params/{name}/b": rng.normal(size=shape[1]).astype(np.float32) for name, shape in layers.items()}
    np.savez(path / "parameters.npz", **arrays)
    metrics = {"step": 600, "loss": 0.5, "returns": [10.0, 30.0], "lengths": [10, 30], "ended_at": [10, 40]}
    (path / "metrics.jsonl").write_text(json.dumps(metrics) + "\n")
    evaluation = {
        "mean": 20.0,
        "standard_error": 0.0,
        "episodes": 2,
        "seed": 5,
        "epsilon": 0.0,
        "returns": [20.0, 20.0],
    }
    (path / "evaluation.json").write_text(json.dumps(evaluation))
    return path


def test_it_is_loaded_and_acts_by_its_parameters(folder):
    run = polyak.load(folder)
    numbers = {"target": "periodic:100", "epsilon": "linear(1,0.05,25%)"}  # the defaults of 0.1.0
    assert run.config == config_of(**numbers)  # the agent that 0.1.0 called dqn
    assert (run.metrics["returns"].tolist(), run.evaluation["mean"]) == ([10.0, 30.0], 20.0)
    with np.load(folder / "parameters.npz") as arrays:
        w, b = (arrays[f"params/torso/mlp/~/linear_0/{name}"] for name in "wb")
        head_w, head_b = (arrays[f"params/head/q_values/{name}"] for name in "wb")
    for observation in np.random.default_rng(1).normal(size=(20, 4)).astype(np.float32):
        q_values = np.maximum(observation @ w + b, 0) @ head_w + head_b
        assert run.act(observation) == int(np.argmax(q_values))


def test_it_is_evaluated_compared_and_exported(folder, tmp_path, capsys):
    assert polyak.evaluate(folder, episodes=3)["episodes"] == 3
    assert cli.run(["evaluate", str(folder), "--episodes", "2"]) == 0
    comparison = polyak.compare(folder, window=1)
    assert [(row.group, float(row.greedy.iqm.value)) for row in comparison.rows] == [("n_step_double_dqn", 20.0)]
    exported = polyak.load_exported(polyak.export(folder, tmp_path / "export"))
    assert exported.manifest["config"]["format"] == 2
    assert exported.manifest["versions"]["polyak"] == "0.1.0"
    with np.load(folder / "parameters.npz") as arrays:
        assert {name: array.tobytes() for name, array in exported.arrays.items()} == {
            name: arrays[name].tobytes() for name in arrays.files
        }


def test_a_run_begins_from_its_parameters(folder, tmp_path, monkeypatch):
    monkeypatch.setattr(runs, "host_loop", lambda *_, **__: [])  # what it begins with is what is evaluated
    runs.train(config_of(initial=str(folder)), tmp_path / "new", silent, silent)
    with np.load(folder / "parameters.npz") as old, np.load(tmp_path / "new" / "parameters.npz") as new:
        assert {name: old[name].tolist() for name in old.files} == {name: new[name].tolist() for name in new.files}


def test_it_is_not_resumed(folder, capsys):
    def said():
        assert cli.run(["resume", str(folder)]) == 2
        return capsys.readouterr().err

    begun = f"polyak: {folder}: the run was begun by polyak 0.1.0, and cannot be continued by this one. "
    assert said() == f"{begun}It has ended; evaluate it with: polyak evaluate {folder}\n"
    (folder / "evaluation.json").unlink()
    finish = f"{begun}Finish it with polyak 0.1 (pip install 'polyak<0.2'), or start a new run"
    assert said() == f"{finish} from its parameters: --initial {folder}\n"
    (folder / "parameters.npz").unlink()
    assert said() == f"{finish}.\n"


@pytest.mark.parametrize(
    ("changed", "leaf", "value"),
    [
        ({}, "agent.head", Scalar(error="squared")),
        ({"noisy": True, "dueling": True}, "agent.head", Scalar("squared", dueling=True, noisy_sigma=0.5)),
        ({"head": "categorical"}, "agent.head", Categorical(51, -10.0, 10.0)),
        ({"head": "hl_gauss", "v_max": 5.0}, "agent.head", HLGauss(51, -10.0, 5.0)),
        ({"head": "ensemble", "loss": "huber"}, "agent.head", Ensemble(10, 0.5, 1.0, "huber")),
        ({}, "agent.bootstrap", Greedy(double=True)),
        ({"munchausen": True}, "agent.bootstrap", Munchausen()),
        ({"memory": "lstm", "burn_in": 3}, "agent.network.core", LSTM(64, 3)),
        ({}, "agent.network.core", None),
        ({}, "agent.learning_rate", Schedule.of("linear(0.001,0,100%)")),
        ({"learning_rate_schedule": "constant"}, "agent.learning_rate", Schedule.of(0.001)),
        ({"learning_rate_schedule": "cosine"}, "agent.learning_rate", Schedule.of("cosine(0.001,0,100%)")),
        ({}, "agent.optimizer", Adam()),
        ({"optimizer": "rmsprop", "optimizer_epsilon": 0.01}, "agent.optimizer", RMSProp(0.01)),
        ({}, "loop.draw.windows", Transitions()),
        ({"sequence_length": 20, "sequence_period": 10}, "loop.draw.windows", Sequences(20, 10)),
        ({}, "loop.draw.sampling", Uniform()),
        ({"priority_exponent": 0.6}, "loop.draw.sampling", Prioritized(0.6, Schedule.of("linear(0.4,1,100%)"))),
        ({}, "loop.exploration.epsilon", Schedule.of("linear(1,0.05,25%)")),
        ({"epsilon_fraction": 0.0}, "loop.exploration.epsilon", Schedule.of(0.05)),
        ({"epsilon_initial": 0.05}, "loop.exploration.epsilon", Schedule.of(0.05)),
        ({"normalize_rewards": True}, "loop.normalization.normalize_rewards", True),
        ({"frame_stack": 4}, "loop.replay.frame_stack", 4),
    ],
)
def test_flat_fields_become_parts(changed, leaf, value):
    found = configs_from_0_1_0({**FLAT, **changed})
    for name in leaf.split("."):
        found = getattr(found, name)
    assert found == value


def test_the_configs_of_all_its_agents_are_read():
    for configuration in golden.configurations().values():
        configs_from_0_1_0(configuration["fields"])


def test_a_limit_of_time_that_was_not_read_is_dropped():
    assert config_from_0_1_0({**OLD, "worker_timeout": 5.0}).worker_timeout == 60.0
    assert config_from_0_1_0({**OLD, "worker_timeout": 5.0, "workers": 1}).worker_timeout == 5.0


def test_what_is_missing_or_unknown_is_an_error():
    with pytest.raises(ValueError, match=r"field of agent: got 'wings'"):
        configs_from_0_1_0({**FLAT, "wings": 2})
    with pytest.raises(ValueError, match=r"agent.v_min: missing; a config of polyak 0.1.0 has it"):
        configs_from_0_1_0({name: value for name, value in FLAT.items() if name != "v_min"})
    with pytest.raises(TypeError, match="agent: got 5; expected an object"):
        config_from_0_1_0({**OLD, "agent": 5})
    with pytest.raises(ValueError, match=r"agent.name: got 'dqm'"):
        config_from_0_1_0({**OLD, "agent": {**FLAT, "name": "dqm"}})
