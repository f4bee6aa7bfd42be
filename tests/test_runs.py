"""Runs from the command line: what they leave, how they stop and go on, what bad input gets."""

import json
import re
import signal
import subprocess
import sys
import time

import gymnasium
import jax
import numpy as np
import pytest

from polyak.experiments import cli, runs
from polyak.experiments.config import RunConfig, from_json, to_json
from polyak.experiments.records import TIMES, read_jsonl

SMALL = {
    "--steps": 600,
    "--log-every": 100,
    "--checkpoint-every": 200,
    "--evaluation-episodes": 2,
    "--hidden-sizes": 8,
    "--batch-size": 8,
    "--learning-starts": 50,
    "--replay-capacity": 300,
}


def arguments(command, folder, **changed):
    options = SMALL | {f"--{name.replace('_', '-')}": value for name, value in changed.items()}
    texts = [text for name, value in options.items() for text in (name, *str(value).split(" "))]
    return [*command, *texts, "--out", str(folder), "--quiet"]


def records(folder):
    return [{k: v for k, v in record.items() if k not in TIMES} for record in read_jsonl(folder / "metrics.jsonl")]


@pytest.fixture(scope="module")
def finished(tmp_path_factory):
    folder = tmp_path_factory.mktemp("runs") / "finished"
    assert cli.run(arguments(["train", "dqn"], folder)) == 0
    return folder


def test_what_a_run_leaves(finished):
    assert [record["step"] for record in records(finished)] == [100, 200, 300, 400, 500, 600]
    config = json.loads((finished / "config.json").read_text())
    assert config["config"]["agent"]["name"] == "dqn"
    assert from_json(config["config"]) == RunConfig(**(vars(from_json(config["config"]))))
    assert config["resolved"]["targets"]["q"]["rule"] == config["config"]["agent"]["target"]
    assert config["resolved"]["replay_bytes"] > 300 * (4 * 4 + 13)
    assert config["versions"]["jax"] == jax.__version__
    evaluation = json.loads((finished / "evaluation.json").read_text())
    assert evaluation["episodes"] == len(evaluation["returns"]) == 2
    assert evaluation["mean"] == np.mean(evaluation["returns"])
    with np.load(finished / "parameters.npz", allow_pickle=False) as parameters:
        assert parameters["torso/mlp/~/linear_0/w"].shape == (4, 8)
    assert (finished / "learning_curve.png").read_bytes()[:8] == b"\x89PNG\r\n\x1a\n"
    assert sorted(path.name for path in (finished / "checkpoints").iterdir()) == ["400", "600"]


def test_evaluate_repeats_the_runs_own_evaluation(finished, capsys):
    own = json.loads((finished / "evaluation.json").read_text())
    again = runs.evaluate_run(finished, episodes=2, seed=None, epsilon=0.0)
    assert again == own
    assert runs.evaluate_run(finished, episodes=2, seed=5, epsilon=1.0)["returns"] != own["returns"]
    assert cli.run(["evaluate", str(finished), "--episodes", "2"]) == 0
    assert f"{own['mean']:.1f}" in capsys.readouterr().out


def test_a_finished_run_has_nothing_to_resume(finished, capsys):
    before = records(finished)
    assert cli.run(["resume", str(finished)]) == 0
    assert "nothing is left to do" in capsys.readouterr().err
    assert records(finished) == before


@pytest.mark.parametrize(
    ("target", "rule", "learner_steps", "environment_steps"),
    [
        ("incremental:0.005", "incremental:0.005", 1, 2),
        ("periodic:50env", "periodic:25", 25, 50),
        ("none", "none", None, None),
    ],
)
def test_the_rule_is_recorded_in_both_units(tmp_path, target, rule, learner_steps, environment_steps):
    config = RunConfig()
    options = {"target": target, "train_every": 4, "learner_steps": 2, "steps": 200}
    assert cli.run(arguments(["train"], tmp_path / "run", **options)) == 0
    described = json.loads((tmp_path / "run" / "config.json").read_text())["resolved"]["targets"]["q"]
    assert described["rule"] == rule
    assert described["period_learner_steps"] == learner_steps
    assert described["period_environment_steps"] == environment_steps
    distances = [record["target_distance/q"] for record in records(tmp_path / "run")]
    assert (max(distances) > 0) == (target != "none")
    assert config == RunConfig()


def interrupt_at(step):
    """An ``on_record`` that does what Ctrl-C does, at the first record from ``step`` on."""

    def on_record(record):
        if record["step"] == step:
            signal.raise_signal(signal.SIGINT)

    return on_record


def config_of(**changed):
    agent = {"hidden_sizes": [8], "batch_size": 8, "learning_starts": 50, "replay_capacity": 300}
    fields = {"steps": 600, "log_every": 100, "checkpoint_every": 200, "evaluation_episodes": 2, **changed}
    return from_json({**fields, "agent": {**agent, **changed.get("agent", {})}})


def assert_same_run(folder, other):
    assert records(folder) == records(other)
    assert (folder / "evaluation.json").read_text() == (other / "evaluation.json").read_text()
    with np.load(folder / "parameters.npz") as ours, np.load(other / "parameters.npz") as theirs:
        for name in theirs.files:
            assert ours[name].tobytes() == theirs[name].tobytes()


@pytest.mark.parametrize(
    "changed",
    [{}, {"num_envs": 3, "agent": {"n_steps": 3, "average": "incremental:0.1", "target": "incremental:cosine(0.1)"}}],
    ids=["plain", "several environments, n-step, average, cosine"],
)
def test_interrupted_and_resumed_equals_never_stopped(tmp_path, changed, capsys):
    config, silent = config_of(**changed), lambda _: None
    runs.train(config, tmp_path / "whole", silent, silent)
    last = records(tmp_path / "whole")[2]["step"]
    assert runs.train(config, tmp_path / "parts", interrupt_at(last), silent) is None
    said = []
    for stop in (records(tmp_path / "whole")[4]["step"], -1):
        result = runs.resume(tmp_path / "parts", interrupt_at(stop), said.append)
    assert result is not None
    assert said[0] == f"resuming {tmp_path / 'parts'} at step {last}"
    assert_same_run(tmp_path / "parts", tmp_path / "whole")


def test_killed_in_mid_run_and_resumed_equals_never_stopped(tmp_path, finished):
    folder = tmp_path / "killed"
    command = [sys.executable, "-m", "polyak", *arguments(["train"], folder)]
    with subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL) as process:
        deadline = time.monotonic() + 120
        while not (folder / "checkpoints" / "200").exists():
            assert process.poll() is None, "the run ended before it was killed"
            assert time.monotonic() < deadline
            time.sleep(0.001)
        process.kill()
    assert not (folder / "evaluation.json").exists()
    # As if it had been killed while writing: a checkpoint and a line half-made.
    (folder / "checkpoints" / "500.orbax-checkpoint-tmp-1").mkdir()
    with (folder / "metrics.jsonl").open("a") as metrics:
        metrics.write('{"step": 300, "learn')
    assert cli.run(["resume", str(folder), "--quiet"]) == 0
    assert_same_run(folder, finished)
    assert not list((folder / "checkpoints").glob("*tmp*"))


def test_a_damaged_checkpoint_falls_back_to_the_one_before(tmp_path, finished):
    silent = lambda _: None  # noqa: E731
    assert runs.train(config_of(), tmp_path / "run", interrupt_at(400), silent) is None
    newest = tmp_path / "run" / "checkpoints" / "400"
    for path in newest.rglob("*"):
        if path.is_file():
            path.write_bytes(b"")
    said = []
    with pytest.warns(UserWarning, match="checkpoint 400 cannot be read.*trying the one before"):
        runs.resume(tmp_path / "run", silent, said.append)
    assert said == [f"resuming {tmp_path / 'run'} at step 200"]
    assert_same_run(tmp_path / "run", finished)


class NaN(gymnasium.Env):
    """An observation that is not finite at step 7 of the first episode."""

    observation_space = gymnasium.spaces.Box(-1, 1, (2,), np.float32)
    action_space = gymnasium.spaces.Discrete(2)
    bad = "observation"

    def reset(self, *, seed=None, options=None):
        super().reset(seed=seed)
        self.t = 0
        return np.zeros(2, np.float32), {}

    def step(self, action):
        self.t += 1
        bad = self.t == 7
        value = np.nan if bad and self.bad == "observation" else 0.0
        return np.float32([0, value]), np.inf if bad and self.bad == "reward" else 1.0, False, False, {}


class NaNReward(NaN):
    """The same of the reward."""

    bad = "reward"


class DictSpace(NaN):
    """An observation space that no torso takes."""

    observation_space = gymnasium.spaces.Dict({"a": gymnasium.spaces.Discrete(2)})


@pytest.fixture(scope="module", autouse=True)
def _registered():
    for name, kind in {"NaN": NaN, "NaNReward": NaNReward, "DictSpace": DictSpace}.items():
        gymnasium.register(f"PolyakTest{name}-v0", entry_point=kind)
    yield
    for name in ("NaN", "NaNReward", "DictSpace"):
        gymnasium.registry.pop(f"PolyakTest{name}-v0")


BAD = {
    "unknown environment": (["train", "--env", "CartPol-v1"], r"CartPol-v1.*CartPole-v1"),
    "continuous actions": (["train", "--env", "Pendulum-v1"], r"action_space: got Box.*expected Discrete"),
    "Dict observations": (["train", "--env", "PolyakTestDictSpace-v0"], r"Dict.*FlattenObservation"),
    "unknown agent": (["train", "dqm"], r"agent: got 'dqm'; expected one of dqn. Did you mean 'dqn'"),
    "unknown command": (["trian"], r"command: got 'trian'.*Did you mean 'train'"),
    "target that is a step size": (["train", "--target", "periodic:0.005"], r"Did you mean 'incremental:0.005'"),
    "target that is a period": (["train", "--target", "incremental:500"], r"Did you mean 'periodic:500'"),
    "target that does not parse": (["train", "--target", "sometimes"], r"got 'sometimes'; expected one of"),
    "zero steps": (["train", "--steps", "0"], r"steps: got 0; expected an integer >= 1"),
    "negative environments": (["train", "--num-envs", "-2"], r"num_envs: got -2"),
    "negative seed": (["train", "--seed", "-1"], r"seed: got -1"),
    "batch larger than the replay": (["train", "--batch-size", "60000"], r"batch_size: got 60000; expected at most"),
    "learning starts after the end": (["train", "--learning-starts", "50000"], r"learning_starts.*nothing would be"),
    "replay larger than memory": (["train", "--replay-capacity", "10000000000000"], r"GiB"),
    "no episodes": (["train", "--evaluation-episodes", "0"], r"evaluation_episodes: got 0"),
    "no run to resume": (["resume", "nowhere"], r"nowhere: no run stands there"),
    "no run to evaluate": (["evaluate", "nowhere"], r"nowhere: no run stands there"),
    "unknown option": (["train", "--stepz", "5"], r"Unrecognized options: --stepz"),
    "not a number": (["train", "--steps", "many"], r"invalid.*INT|Parsing error|many"),
}


@pytest.mark.parametrize("case", BAD)
def test_bad_input_is_one_message_and_exit_code_2(case, capsys, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("COLUMNS", "300")
    command, message = BAD[case]
    try:
        status = cli.run(command)
    except SystemExit as stop:  # how tyro ends
        status = stop.code
    said = capsys.readouterr()
    assert status == 2
    text = " ".join((said.out + said.err).replace("│", " ").split())
    assert re.search(message, text), text
    assert "Traceback" not in text
    assert list(tmp_path.iterdir()) == []  # before the first step, and before a folder is made


@pytest.mark.parametrize("kind", ["NaN", "NaNReward"])
def test_a_value_that_is_not_finite_stops_the_run_with_environment_and_step(kind, tmp_path, capsys):
    options = {"env": f"PolyakTest{kind}-v0", "num_envs": 2}
    assert cli.run(arguments(["train"], tmp_path / "run", **options)) == 2
    said = capsys.readouterr().err
    assert "environment 0, episode 0, step 7" in said
    assert ("observation" if kind == "NaN" else "reward") in said
    assert "not finite" in said


def test_output_folders_that_cannot_be(finished, tmp_path, capsys):
    file = tmp_path / "file"
    file.write_text("")
    (tmp_path / "full").mkdir()
    (tmp_path / "full" / "something").touch()
    cases = {
        finished: "holds a run. Give another folder, or continue with: polyak resume",
        file: "is a file; expected a folder",
        tmp_path / "full": "holds files",
        file / "below": "cannot be written",
    }
    for folder, message in cases.items():
        assert cli.run(arguments(["train"], folder)) == 2
        assert message in capsys.readouterr().err


def test_from_a_shell_there_is_no_traceback_and_help_is_quick(tmp_path):
    bad = subprocess.run(
        [sys.executable, "-m", "polyak", "train", "--env", "Nope-v0"], capture_output=True, text=True, cwd=tmp_path
    )
    assert bad.returncode == 2
    assert bad.stderr.startswith("polyak: env: got 'Nope-v0'")
    assert len(bad.stderr.splitlines()) == 1
    code = "import sys, runpy; sys.argv = ['polyak', '--help']\ntry: runpy.run_module('polyak', run_name='__main__')\n"
    code += "except SystemExit as stop: print(stop.code, [m for m in ('jax', 'tyro', 'numpy') if m in sys.modules])"
    help_ = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, cwd=tmp_path)
    assert help_.stdout.splitlines()[-1] == "0 []"
    assert "periodic:500" in help_.stdout


def test_configs_round_trip_and_unknown_keys_are_errors():
    config = config_of(agent={"max_gradient_norm": None, "hidden_sizes": [3, 4]})
    assert from_json(json.loads(json.dumps(to_json(config)))) == config
    assert config.agent.hidden_sizes == (3, 4)
    with pytest.raises(ValueError, match=r"field of the config: got 'stepz'.*Did you mean 'steps'"):
        from_json({"stepz": 5})
    with pytest.raises(ValueError, match=r"field of agent: got 'lerning_rate'.*Did you mean 'learning_rate'"):
        from_json({"agent": {"name": "dqn", "lerning_rate": 5}})
    with pytest.raises(TypeError, match=r"agent.batch_size: got '5' \(str\)"):
        from_json({"agent": {"name": "dqn", "batch_size": "5"}})
    assert from_json({"agent": {"learning_rate": 1}}).agent.learning_rate == 1.0


def test_parameters_that_do_not_fit_are_refused(tmp_path, finished):
    template = {"m": {"w": np.zeros((2, 2), np.float32)}}
    runs.save_params(tmp_path / "good.npz", template)
    with pytest.raises(ValueError, match=r"m/w: got float32\(2, 2\); the config's network has float32\(3, 2\)"):
        runs.load_params(tmp_path / "good.npz", {"m": {"w": np.zeros((3, 2), np.float32)}})
    with pytest.raises(ValueError, match=r"m/b: got nothing"):
        runs.load_params(tmp_path / "good.npz", {"m": {"b": np.zeros(2, np.float32)}})
    np.savez(tmp_path / "bad.npz", **{"m/w": np.array([object()])}, allow_pickle=True)
    with pytest.raises(ValueError, match="pickle"):
        runs.load_params(tmp_path / "bad.npz", template)
