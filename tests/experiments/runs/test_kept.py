"""Results of a run are kept and never mixed with those of another run: identities, folders, late faults."""

import json
import multiprocessing
import os
import shutil
import subprocess
import sys

import gymnasium as gym
import jax
import numpy as np
import pytest

import polyak.__main__ as entry
from agent_samples import SPEC, make_config, random_sample, random_state
from polyak.agents import make_agent
from polyak.experiments import cli
from polyak.experiments.environments.make import make
from polyak.experiments.loops.learning import UNKNOWN, compile_agent, measured_names, zeros
from polyak.experiments.runs import files, folders
from polyak.experiments.runs import train as runs
from polyak.experiments.runs.saving import check_identity
from small_runs import arguments, assert_same_run, config_of, interrupt_at, silent


@pytest.fixture(scope="module")
def interrupted(tmp_path_factory):
    """Two runs of other seeds, interrupted at one step."""
    base = tmp_path_factory.mktemp("interrupted")
    for name, seed in (("one", 0), ("other", 7)):
        assert runs.train(config_of(seed=seed), base / name, interrupt_at(200), silent) is None
    return base


def copied(folder, where):
    shutil.copytree(folder, where)
    return where


def test_a_checkpoint_of_another_run_is_refused(interrupted, tmp_path):
    folder = copied(interrupted / "one", tmp_path / "run")
    shutil.rmtree(folder / "checkpoints")
    shutil.copytree(interrupted / "other" / "checkpoints", folder / "checkpoints")
    before = (folder / "metrics.jsonl").read_bytes()
    with pytest.raises(
        ValueError, match=r"checkpoints: the checkpoint is of another run \(id \w+, and config.json has"
    ):
        runs.resume(folder, silent, silent)
    assert (folder / "metrics.jsonl").read_bytes() == before


def test_a_config_that_was_changed_by_hand_is_refused_where_its_meaning_changed(interrupted, tmp_path):
    def edited(name, old, new):
        folder = copied(interrupted / "one", tmp_path / name)
        text = (folder / "config.json").read_text()
        assert old in text
        (folder / "config.json").write_text(text.replace(old, new, 1))
        return folder

    with pytest.raises(
        ValueError, match=r"config.loop.draw.discount: 0.99 became 0.5\. Change it back, or start a new"
    ):
        runs.resume(edited("meaning", '"discount": 0.99', '"discount": 0.5'), silent, silent)
    assert runs.resume(edited("written", '"log_every": 100', '"log_every": 50'), silent, silent) is not None


def test_a_run_in_64_bits_is_not_continued_in_32():
    with pytest.raises(ValueError, match="jax_enable_x64: True became False"):
        check_identity(
            {"id": "a", "jax_enable_x64": False}, {"id": "a", "jax_enable_x64": True}, folders.pathlib.Path("run")
        )


def test_a_picture_that_cannot_be_drawn_costs_nothing_else(tmp_path, monkeypatch):
    def failing(records, path, title):
        raise RuntimeError("latex could not be found")

    monkeypatch.setattr(runs, "learning_curve", failing)
    said = []
    result = runs.train(config_of(), tmp_path / "run", silent, said.append)
    assert said == ["warning: a picture could not be drawn: RuntimeError: latex could not be found"]
    assert json.loads((tmp_path / "run" / "evaluation.json").read_text()) == result


@pytest.mark.slow
def test_output_without_a_letter_has_a_question_mark_in_its_place(interrupted, tmp_path):
    folder = copied(interrupted / "one", tmp_path / "run")
    environment = {**os.environ, "PYTHONIOENCODING": "ascii"}
    command = [sys.executable, "-m", "polyak", "evaluate", str(folder), "--checkpoint", "newest", "--episodes", "2"]
    done = subprocess.run(command, env=environment, capture_output=True, text=True)
    assert (done.returncode, done.stderr) == (0, "")
    assert " ? " in done.stdout


def test_a_daemonic_process_has_no_workers(monkeypatch):
    monkeypatch.setitem(multiprocessing.current_process()._config, "daemon", True)
    with pytest.raises(ValueError, match=r"workers: this is a daemonic process, .*Give workers=0, or start it with"):
        make("CartPole-v1", workers=1)


def test_a_device_that_is_not_there_is_a_line(monkeypatch, capsys):
    def absent():
        raise AssertionError

    monkeypatch.setattr(jax, "devices", absent)
    monkeypatch.setattr(jax.config, "update", lambda name, value: None)
    monkeypatch.setenv("JAX_PLATFORMS", "cuda")
    monkeypatch.setattr(sys, "argv", ["polyak", "train"])
    with pytest.raises(SystemExit) as end:
        entry.main()
    told = capsys.readouterr().err
    assert end.value.code == 2
    assert told.startswith("polyak: JAX_PLATFORMS: got 'cuda', and JAX has no such device here. Unset JAX_PLATFORMS")
    assert told.count("\n") == 1


def test_folders_that_nobody_named_are_apart_and_name_the_target():
    config = config_of(target="incremental:0.01")
    one, other = folders.default_folder(config), folders.default_folder(config)
    assert one != other
    assert "incremental-0.01" in one.name


def test_a_second_start_leaves_a_mapped_replay_alone(tmp_path):
    config = config_of(replay_storage="mmap")
    assert runs.train(config, tmp_path / "run", interrupt_at(200), silent) is None
    before = (tmp_path / "run" / "replay.bin").read_bytes()
    with pytest.raises(ValueError, match=r"out: .* holds a run\. Give another folder"):
        runs.train(config, tmp_path / "run", silent, silent)
    (tmp_path / "new").mkdir()
    with files.locked(tmp_path / "new"), pytest.raises(ValueError, match=r"is using this folder|holds files"):
        runs.train(config, tmp_path / "new", silent, silent)
    assert (tmp_path / "run" / "replay.bin").read_bytes() == before
    assert not (tmp_path / "new" / "replay.bin").exists()
    assert runs.resume(tmp_path / "run", silent, silent) is not None


class NaNLate(gym.Env):
    """Its observations are NaN from a step of its life on."""

    observation_space, action_space = gym.spaces.Box(-1, 1, (1,), np.float32), gym.spaces.Discrete(2)
    good = 250

    def __init__(self):
        self.steps = 0

    def reset(self, *, seed=None, options=None):
        super().reset(seed=seed)
        return np.zeros(1, np.float32), {}

    def step(self, action):
        self.steps += 1
        value = 0.5 if self.steps < self.good else np.nan
        return np.full(1, value, np.float32), 1.0, self.steps % 20 == 0, False, {}


def test_a_fault_in_mid_run_says_what_is_kept_and_how_to_go_on(tmp_path, capsys, monkeypatch):
    gym.register("NaNLate-v0", entry_point=NaNLate)
    try:
        assert cli.run(arguments(["train"], tmp_path / "run", env="NaNLate-v0")) == 1
        told = capsys.readouterr().err
        assert "environment 0, episode 12, step 10: observation: got [nan], which is not finite" in told
        assert f"the checkpoint of step 200 is kept; continue with: polyak resume {tmp_path / 'run'}" in told
        monkeypatch.setattr(NaNLate, "good", 10**9)
        assert cli.run(["resume", str(tmp_path / "run"), "--quiet"]) == 0
        assert cli.run(arguments(["train"], tmp_path / "whole", env="NaNLate-v0")) == 0
        assert_same_run(tmp_path / "run", tmp_path / "whole")
    finally:
        del gym.registry["NaNLate-v0"]


def test_a_learner_step_that_is_undone_leaves_no_priority():
    config = make_config(skip_nonfinite=True)
    agent = make_agent(config, SPEC, total_learner_steps=100)
    programs = compile_agent(agent, 1, prioritized=True)
    good, bad = (random_sample(config, seed=seed) for seed in (0, 1))
    bad = jax.tree.map(lambda leaf: np.full_like(leaf, np.nan) if leaf.dtype == np.float32 else leaf, bad)
    key = jax.random.key_data(jax.random.key(1))
    for sample, undone in ((good, False), (bad, True)):
        state = random_state(agent)
        totals = zeros(measured_names(agent, state, sample, prioritized=True))
        _, _, priorities = programs.learn(key, 0, state, True, totals, sample)
        assert (np.asarray(priorities) == UNKNOWN).all() == undone
