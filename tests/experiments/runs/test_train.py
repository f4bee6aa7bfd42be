"""Runs from the command line: what they leave, how they stop and go on, what bad input gets."""

import csv
import dataclasses
import io
import json
import shutil
import signal
import subprocess
import sys
import time

import jax
import numpy as np
import pytest

import polyak
from polyak.experiments import cli
from polyak.experiments.environments.lanes import Environments
from polyak.experiments.runs import build, checkpoint
from polyak.experiments.runs import train as runs
from polyak.experiments.runs.config import RunConfig, from_json
from polyak.experiments.runs.evaluation import evaluate_run
from small_runs import arguments, assert_same_run, config_of, interrupt_at, records

SAVED = ["400", "400.npz", "600", "600.npz"]  # the last two checkpoints, and their parameters


@pytest.fixture(scope="module")
def finished(tmp_path_factory):
    folder = tmp_path_factory.mktemp("runs") / "finished"
    assert cli.run(arguments(["train"], folder)) == 0
    return folder


def test_what_a_run_leaves(finished):
    assert [record["step"] for record in records(finished)] == [100, 200, 300, 400, 500, 600]
    config = json.loads((finished / "config.json").read_text())
    assert config["config"]["agent_name"] == "n_step_double_dqn"
    assert from_json(config["config"]) == config_of()
    assert config["resolved"]["targets"]["q"]["rule"] == config["config"]["agent"]["target"]
    assert config["resolved"]["replay_bytes"] > 300 * (4 * 4 + 13)
    assert config["versions"]["jax"] == jax.__version__
    evaluation = json.loads((finished / "evaluation.json").read_text())
    assert evaluation["episodes"] == len(evaluation["returns"]) == 2
    assert evaluation["mean"] == np.mean(evaluation["returns"])
    with np.load(finished / "parameters.npz", allow_pickle=False) as parameters:
        assert parameters["params/torso/mlp/~/linear_0/w"].shape == (4, 8)
    assert (finished / "learning_curve.png").read_bytes()[:8] == b"\x89PNG\r\n\x1a\n"
    assert sorted(path.name for path in (finished / "checkpoints").iterdir()) == SAVED


def test_evaluate_repeats_the_runs_own_evaluation(finished, capsys):
    own = json.loads((finished / "evaluation.json").read_text())
    again = evaluate_run(finished, episodes=2, seed=None, epsilon=0.0)
    assert again == own
    assert evaluate_run(finished, episodes=2, seed=5, epsilon=1.0)["returns"] != own["returns"]
    assert cli.run(["evaluate", str(finished), "--episodes", "2"]) == 0
    assert f"{own['mean']:.1f}" in capsys.readouterr().out


def test_runs_are_compared(finished, tmp_path, capsys):
    shutil.copytree(finished, tmp_path / "0")
    shutil.copytree(finished, tmp_path / "1")  # another seed, of which only the evaluation differs
    for name, changed in {"config.json": {"seed": 1}, "evaluation.json": {"mean": 3.0}}.items():
        written = json.loads((tmp_path / "1" / name).read_text())
        written.get("config", written).update(changed)
        (tmp_path / "1" / name).write_text(json.dumps(written))
    assert cli.run(["compare", str(tmp_path), "--window", "100", "--format", "csv"]) == 0
    [row] = csv.DictReader(io.StringIO(capsys.readouterr().out))
    assert (row["group"], row["environment"], row["seeds"]) == ("n_step_double_dqn", "CartPole-v1", "2")
    assert row["unfinished"] == "0"
    assert float(row["training_iqm"]) == pytest.approx(records(finished)[-1]["return_mean"])
    greedy = json.loads((finished / "evaluation.json").read_text())["mean"]
    assert [float(row[f"greedy_iqm{part}"]) for part in ("_low", "", "_high")] == sorted([greedy, (greedy + 3) / 2, 3])
    [curve] = polyak.compare(tmp_path).curves
    assert (curve.seeds, curve.steps[-1]) == (2, 600)


def test_a_finished_run_has_nothing_to_resume(finished, capsys):
    before = records(finished)
    assert cli.run(["resume", str(finished)]) == 0
    assert "nothing is left to do" in capsys.readouterr().err
    assert records(finished) == before


@pytest.mark.parametrize(
    ("target", "rule", "learner_steps", "environment_steps"),
    [
        pytest.param("incremental:0.005", "incremental:0.005", 1, 2, marks=pytest.mark.slow),
        ("periodic:50env", "periodic:25", 25, 50),
        pytest.param("none", "none", None, None, marks=pytest.mark.slow),
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


@pytest.mark.parametrize(
    "changed",
    [
        {},
        pytest.param(
            {"num_envs": 3, "n_steps": 3, "average": "incremental:0.1", "target": "incremental:cosine(0.1)"},
            marks=pytest.mark.slow,
        ),
        pytest.param(
            {"num_envs": 2, "normalize_observations": True, "normalize_rewards": True, "skip_nonfinite": True},
            marks=pytest.mark.slow,
        ),
    ],
    ids=["plain", "several environments, n-step, average, cosine", "normalised, skipping"],
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


@pytest.mark.slow
@pytest.mark.parametrize(
    "stops",
    [(200,), (300, 500)],
    ids=["at a checkpoint", "after the replay has wrapped, twice"],
)
def test_a_replay_in_a_file_is_resumed_to_the_bit(tmp_path, stops):
    config, silent = config_of(replay_storage="mmap", replay_capacity=150, n_steps=3), lambda _: None
    runs.train(dataclasses.replace(config, replay_storage="memory"), tmp_path / "memory", silent, silent)
    runs.train(config, tmp_path / "whole", silent, silent)
    assert_same_run(tmp_path / "whole", tmp_path / "memory")
    folder = tmp_path / "parts"
    assert runs.train(config, folder, interrupt_at(stops[0]), silent) is None
    for stop in (*stops[1:], -1):
        # Killed after its checkpoint, the run had gone on in the file.
        going_on = runs.resume(tmp_path / "parts", interrupt_at(stop), silent)
    assert going_on is not None
    assert_same_run(folder, tmp_path / "whole")
    resolved = json.loads((folder / "config.json").read_text())["resolved"]
    assert (folder / "replay.bin").stat().st_size == resolved["replay_file_bytes"] == 151 * 4 * 4
    (folder / "replay.bin").write_bytes(b"")
    (folder / "evaluation.json").unlink()
    shutil.rmtree(folder / "checkpoints" / "600")
    with pytest.raises(
        ValueError, match=r"storage: got .*replay.bin', a file of 0 bytes; expected a file of 2416 bytes"
    ):
        runs.resume(folder, silent, silent)


@pytest.mark.slow
def test_what_a_killed_run_overwrote_in_its_file_is_put_back(tmp_path):
    config, silent = config_of(replay_storage="mmap", replay_capacity=150, n_steps=3), lambda _: None
    runs.train(config, tmp_path / "whole", silent, silent)
    shutil.copytree(tmp_path / "whole", tmp_path / "killed")
    shutil.rmtree(tmp_path / "killed" / "checkpoints" / "600")
    (tmp_path / "killed" / "evaluation.json").unlink()
    runs.resume(tmp_path / "killed", silent, silent)  # from 400, with a file that is of 600
    assert_same_run(tmp_path / "killed", tmp_path / "whole")


@pytest.mark.slow
def test_a_replay_in_a_file_that_was_damaged_is_refused(tmp_path):
    silent = lambda _: None  # noqa: E731
    config = config_of(replay_storage="mmap", replay_capacity=500, checkpoint_every=20, log_every=20)
    assert runs.train(config, tmp_path / "run", interrupt_at(440), silent) is None
    shutil.copytree(tmp_path / "run", tmp_path / "damaged")
    storage = tmp_path / "damaged" / "replay.bin"
    data = bytearray(storage.read_bytes())
    data[200 * 16] ^= 1  # row 200, of four float32
    storage.write_bytes(data)
    with pytest.raises(ValueError, match=r"replay.bin: 1 of \d+ rows are not those of the checkpoint; the file was"):
        runs.resume(tmp_path / "damaged", silent, silent)
    assert runs.resume(tmp_path / "run", silent, silent) is not None


@pytest.mark.slow
def test_interrupted_between_records_and_resumed_equals_never_stopped(tmp_path, finished, monkeypatch):
    step, calls = Environments.step, []

    def interrupting(self, actions):
        calls.append(1)
        if len(calls) in (141, 270):  # in mid-window, in mid-episode: sums and finished episodes are under way
            signal.raise_signal(signal.SIGINT)
        return step(self, actions)

    monkeypatch.setattr(Environments, "step", interrupting)
    silent, folder = (lambda _: None), tmp_path / "run"
    assert runs.train(config_of(), folder, silent, silent) is None
    assert checkpoint.steps_saved(folder / "checkpoints") == [0, 141]
    assert runs.resume(folder, silent, silent) is None
    assert runs.resume(folder, silent, silent) is not None
    assert_same_run(folder, finished)


def test_a_second_interrupt_while_a_checkpoint_is_written_loses_nothing(tmp_path, finished, monkeypatch):
    save, silent, folder = checkpoint.save, (lambda _: None), tmp_path / "run"

    def disturbed(path, step, *rest):
        if step == 300:
            signal.raise_signal(signal.SIGINT)
        save(path, step, *rest)

    monkeypatch.setattr(checkpoint, "save", disturbed)
    assert runs.train(config_of(), folder, interrupt_at(300), silent) is None
    assert checkpoint.steps_saved(folder / "checkpoints") == [200, 300]
    assert runs.resume(folder, silent, silent) is not None
    assert_same_run(folder, finished)


def test_a_first_interrupt_while_a_checkpoint_is_written_is_not_lost(tmp_path, finished, monkeypatch):
    save, silent, folder = checkpoint.save, (lambda _: None), tmp_path / "run"

    def disturbed(path, step, *rest):
        if step == 200:
            signal.raise_signal(signal.SIGTERM)
        save(path, step, *rest)

    monkeypatch.setattr(checkpoint, "save", disturbed)
    assert runs.train(config_of(), folder, silent, silent) is None
    assert checkpoint.steps_saved(folder / "checkpoints") == [0, 200]
    assert runs.resume(folder, silent, silent) is not None
    assert_same_run(folder, finished)


def test_interrupted_at_once_after_a_resume_keeps_the_checkpoint_untouched(tmp_path, monkeypatch):
    silent, folder = (lambda _: None), tmp_path / "run"
    assert runs.train(config_of(), folder, interrupt_at(300), silent) is None
    newest = folder / "checkpoints" / "300"
    before = newest.stat().st_ino
    monkeypatch.setattr(runs, "host_loop", lambda *a, **k: iter([(signal.raise_signal(signal.SIGINT), a[4], {})[1:]]))
    assert runs.resume(folder, silent, silent) is None
    assert newest.stat().st_ino == before


def test_checkpoints_come_between_records_too(tmp_path):
    seen, saved = [], checkpoint.save

    def save(folder, step, *rest):
        seen.append(step)
        saved(folder, step, *rest)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(checkpoint, "save", save)
        runs.train(config_of(log_every=400, checkpoint_every=150), tmp_path / "run", lambda _: None, lambda _: None)
    assert seen == [0, 150, 300, 450, 600]
    assert [record["step"] for record in records(tmp_path / "run")] == [400, 600]


def test_a_run_killed_before_its_first_checkpoint_begins_again(tmp_path, finished):
    folder = tmp_path / "run"
    folder.mkdir()
    (folder / "config.json").write_text((finished / "config.json").read_text())
    assert cli.run(["resume", str(folder), "--quiet"]) == 0
    assert_same_run(folder, finished)


def test_a_disk_that_is_full_for_a_while_costs_a_checkpoint_and_not_the_run(tmp_path, finished):
    saved, said = checkpoint._checkpointer, []

    class Full:
        def __init__(self):
            self.real = saved()

        def save(self, path, *rest, **options):
            if path.name == "200":
                (path.parent / "200.orbax-checkpoint-tmp-0").mkdir()
                raise ValueError("RESOURCE_EXHAUSTED: No space left on device")
            self.real.save(path, *rest, **options)

        def close(self):
            self.real.close()

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(checkpoint, "_checkpointer", Full)
        runs.train(config_of(), tmp_path / "run", lambda _: None, said.append)
    assert_same_run(tmp_path / "run", finished)
    assert sorted(path.name for path in (tmp_path / "run" / "checkpoints").iterdir()) == SAVED
    assert "could not be written" in said[0]
    assert "the checkpoint of step 0 is kept" in said[0]


@pytest.mark.slow
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


def test_a_run_makes_its_replay_once(tmp_path, monkeypatch):
    make_replay, made = build.make_replay, []
    monkeypatch.setattr(
        build, "make_replay", lambda *given, **options: made.append(1) or make_replay(*given, **options)
    )
    config = config_of(steps=100, log_every=60, replay_storage="mmap")
    assert runs.train(config, tmp_path / "run", interrupt_at(60), lambda _: None) is None
    runs.resume(tmp_path / "run", lambda _: None, lambda _: None)
    assert len(made) == 2


def test_training_that_diverges_stops_and_says_so(tmp_path, capsys):
    options = {"optimizer": "sgd", "learning_rate": 1e30}
    assert cli.run(arguments(["train"], tmp_path / "run", **options)) == 2
    assert "training has diverged. Lower learning_rate" in capsys.readouterr().err
    for line in (tmp_path / "run" / "metrics.jsonl").read_text().splitlines():
        json.loads(line, parse_constant=lambda name: pytest.fail(name))


def test_what_was_not_learnt_is_not_reported(tmp_path):
    runs.train(config_of(learning_starts=250), tmp_path / "run", lambda _: None, lambda _: None)
    losses = [record["loss"] for record in records(tmp_path / "run")]
    assert losses[:2] == [None, None]
    assert all(loss > 0 for loss in losses[2:])
