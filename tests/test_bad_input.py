"""Bad input: exit code 2, one message, no traceback, before the first environment step."""

import re
import subprocess
import sys

import gymnasium
import numpy as np
import pytest

from polyak.experiments import cli
from small_runs import arguments


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
    "unknown agent": (["train", "dqm"], r"agent: got 'dqm'; expected one of dqn, .*bbf. Did you mean 'dqn'"),
    "unknown command": (["trian"], r"command: got 'trian'.*Did you mean 'train'"),
    "target that is a step size": (["train", "--target", "periodic:0.005"], r"Did you mean 'incremental:0.005'"),
    "target that is a period": (["train", "--target", "incremental:500"], r"Did you mean 'periodic:500'"),
    "target that does not parse": (["train", "--target", "sometimes"], r"got 'sometimes'; expected one of"),
    "a flag of another head": (["train", "--num-atoms", "21"], r"num_atoms: got '21', but head.*--head categorical"),
    "a schedule that does not parse": (["train", "--epsilon", "often"], r"epsilon: got 'often'; expected a number"),
    "zero steps": (["train", "--steps", "0"], r"steps: got 0; expected an integer >= 1"),
    "negative environments": (["train", "--num-envs", "-2"], r"num_envs: got -2"),
    "negative seed": (["train", "--seed", "-1"], r"seed: got -1"),
    "batch larger than the replay": (["train", "--batch-size", "60000"], r"batch_size: got 60000; expected at most"),
    "learning starts after the end": (["train", "--learning-starts", "50000"], r"learning_starts.*would not learn"),
    "more steps than one environment's replay": (
        ["train", "--num-envs", "4000"],
        r"expected at least 10 for each, the largest of 2, n_steps",
    ),
    "no round of learning": (["train", "--steps", "2000", "--train-every", "5000"], r"the run would not learn"),
    "a period beyond counting": (["train", "--target", "periodic:3000000000"], r"below 2\*\*31"),
    "replay larger than memory": (["train", "--replay-capacity", "10000000000000"], r"GiB"),
    "no episodes": (["train", "--evaluation-episodes", "0"], r"evaluation_episodes: got 0"),
    "no run to resume": (["resume", "nowhere"], r"nowhere: no run found"),
    "no run to evaluate": (["evaluate", "nowhere"], r"nowhere: no run found"),
    "unknown option": (["train", "--stepz", "5"], r"--stepz: no such option. Did you mean '--steps'"),
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


def test_a_folder_of_runs_is_named(tmp_path, capsys):
    (tmp_path / "acrobot").mkdir()
    (tmp_path / "acrobot" / "config.json").touch()
    assert cli.run(["evaluate", str(tmp_path)]) == 2
    assert "Runs below it: acrobot." in capsys.readouterr().err


def test_output_folders_that_cannot_be(tmp_path, capsys):
    run = tmp_path / "run"
    run.mkdir()
    (run / "config.json").touch()
    file = tmp_path / "file"
    file.write_text("")
    (tmp_path / "full").mkdir()
    (tmp_path / "full" / "something").touch()
    cases = {
        run: "holds a run. Give another folder, or continue it: polyak resume",
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
