"""Faults during a run: environments that fail, disks that are full, signals; messages, and files that are kept."""

import errno
import os
import pathlib
import re
import signal
import subprocess
import sys
import time

import numpy as np
import pytest

import faulty_environments
from faulty_environments import DIE, RAISE, TRIGGER
from polyak.experiments import cli
from polyak.experiments.environments import workers
from polyak.experiments.environments.lanes import Environments
from polyak.experiments.environments.make import make
from polyak.experiments.loops.host import host_loop
from polyak.experiments.reports import progress
from polyak.experiments.runs import build, checkpoint
from polyak.experiments.runs import train as runs
from polyak.experiments.runs.records import JsonlWriter
from polyak.replay import DrawNumbers, check_valid, host
from small_runs import arguments, assert_same_run, begin, config_of, records, silent

ONCE = "faulty_environments:Once-v0"


@pytest.fixture(autouse=True)
def trigger(tmp_path, monkeypatch):
    """The file that makes an environment fail once; the worker processes inherit the variable."""
    path = tmp_path / "trigger"
    monkeypatch.setenv(TRIGGER, str(path))
    monkeypatch.setattr(workers, "BACK_OFF", 0.01)
    return path


@pytest.fixture(scope="module")
def undisturbed(tmp_path_factory):
    """A run of three environments that never failed, in one process."""
    folder = tmp_path_factory.mktemp("faults") / "undisturbed"
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv(TRIGGER, str(folder / "no such file"))
        runs.train(config_of(env=ONCE, num_envs=3), folder, silent, silent)
    return folder


def pull(trigger, kind, step):
    """An ``on_record`` that makes an environment fail soon after ``step``."""
    return lambda record: trigger.write_text(str(kind)) if record["step"] == step else None


# Environments


@pytest.mark.slow
@pytest.mark.parametrize(("workers", "what"), [(0, "step"), (2, r"worker \d")])
def test_a_run_whose_environment_raises_is_saved_and_continues_as_if_nothing_had_been(
    workers, what, tmp_path, trigger, undisturbed, capsys, monkeypatch
):
    folder = tmp_path / "run"
    monkeypatch.setattr(progress.Progress, "show", lambda self, record: pull(trigger, RAISE, 300)(record))
    assert cli.run(arguments(["train"], folder, env=ONCE, num_envs=3, workers=workers)) == 1
    saved = checkpoint.steps_saved(folder / "checkpoints")[-1]
    assert 300 <= saved < 400  # and not 201: what was done since is kept
    said = capsys.readouterr().err
    place = r"polyak: environment \d, episode \d+, step 4, action \d: "
    assert re.match(place + what + r" raised ValueError: out of fuel\n", said)
    assert said.count("Traceback") == 1
    assert "wrappers" not in said  # the environment's own frames alone
    assert f"polyak: the checkpoint of step {saved} is kept; continue with: polyak resume {folder}" in said
    assert cli.run(["resume", str(folder), "--quiet"]) == 0
    assert_same_run(folder, undisturbed)


@pytest.mark.slow
def test_with_restart_the_run_goes_on_and_counts(tmp_path, trigger):
    config = config_of(env=ONCE, num_envs=3, workers=2, on_env_failure="restart")
    folder = tmp_path / "run"

    def on_record(record):
        pull(trigger, DIE, 300)(record)
        if record["step"] == 402:
            signal.raise_signal(signal.SIGINT)

    with pytest.warns(UserWarning, match="was killed by SIGKILL"):
        assert runs.train(config, folder, on_record, silent) is None
    assert runs.resume(folder, silent, silent) is not None
    restarts = [record["env_restarts"] for record in records(folder)]
    assert restarts[:3] == [0, 0, 0]
    assert restarts[-1] in (1, 2)  # worker 0 has two environments, worker 1 one
    assert restarts[3:] == [restarts[-1]] * 3
    assert not trigger.exists()


@pytest.mark.slow
def test_no_transition_joins_what_was_before_a_restart_and_after(trigger):
    config = config_of("double_dqn")
    environment = make(ONCE, 2, seed=1, workers=1, on_failure="restart")
    agent, replay, carry = begin(config, environment)
    taken, restarted, step = set(), [], environment.step
    running, lengths = np.zeros(2, np.int64), []

    def noted(actions):
        before = environment._timestep.observation
        if len(taken) == 60:
            trigger.write_text(str(DIE))
        outcome = step(actions)
        for lane in np.flatnonzero(outcome.valid).tolist():
            taken.add((*before[lane].tolist(), *outcome.obs_t[lane].tolist(), float(outcome.discount_t[lane])))
        restarted.append(outcome.restarted)
        running[:] = np.where(outcome.valid, running + 1, 0)
        lengths.extend(running[outcome.last].tolist())
        running[outcome.last] = 0
        return outcome

    environment.step = noted
    loop = host_loop(agent, environment, replay, config.loop, carry, steps=160)
    with pytest.warns(UserWarning, match="was killed by SIGKILL"):
        (carry, record) = list(loop)[-1]
    environment.close()
    assert sum(lanes is not None for lanes in restarted) == 1
    check_valid(carry.replay)
    many = host.make(environment.spec, num_envs=2, capacity=config.loop.replay.replay_capacity, batch_size=4000)
    drawn = many.sample(np.uint32([0, 1, 2]), carry.replay, DrawNumbers(discount=1.0)).transition
    found = {
        (*a, *b, d) for a, b, d in zip(drawn.obs_tm1.tolist(), drawn.obs_t.tolist(), drawn.discount_t, strict=True)
    }
    assert found == taken
    assert len(taken) == 160 - 2
    assert carry.statistics.env_restarts == 2
    assert record["lengths"] == lengths  # cut-off episodes are not counted


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"workers": 3}, "workers: got 3 for 2 environments; expected at most one for each. Try --num-envs 3"),
        ({"workers": -1}, "workers: got -1; expected an integer >= 0"),
        ({"worker_timeout": 0.0, "workers": 1}, "worker_timeout: got 0.0; expected a finite number > 0"),
        ({"on_env_failure": "restart"}, "on_env_failure: got 'restart' and no workers"),
    ],
)
def test_bad_fields(fields, message):
    with pytest.raises(ValueError, match=message):
        config_of(num_envs=2, **fields)


def test_the_fields_reach_the_environments(monkeypatch):
    given = {}
    monkeypatch.setattr(build, "make", lambda *a, **k: given.update(k) or make(*a))
    config = config_of(num_envs=3, workers=2, worker_timeout=7.0, on_env_failure="restart", action_mask=True)
    build.build(config).environment.close()
    assert given == {"workers": 2, "timeout": 7.0, "on_failure": "restart", "action_mask": True}


# Signals


@pytest.mark.slow
def test_a_termination_of_all_processes_is_a_ctrl_c(tmp_path, undisturbed, trigger):
    folder = tmp_path / "run"
    command = [sys.executable, "-m", "polyak", *arguments(["train"], folder, env=ONCE, num_envs=3, workers=2)]
    path = os.pathsep.join([os.path.dirname(faulty_environments.__file__), os.environ.get("PYTHONPATH", "")])
    with subprocess.Popen(
        command,
        stderr=subprocess.PIPE,
        text=True,
        env=os.environ | {"PYTHONPATH": path},
        start_new_session=True,
    ) as process:
        deadline = time.monotonic() + 120
        while not (folder / "checkpoints" / "0").exists():
            assert process.poll() is None, process.stderr.read()
            assert time.monotonic() < deadline
            time.sleep(0.01)
        os.killpg(process.pid, signal.SIGTERM)
        said = process.stderr.read()
        assert process.wait() == 130, said
    assert "saved; continue with: polyak resume" in said
    assert "Traceback" not in said
    assert not (folder / "evaluation.json").exists()
    assert cli.run(["resume", str(folder), "--quiet"]) == 0
    assert_same_run(folder, undisturbed)


@pytest.mark.slow
def test_a_termination_that_reaches_the_workers_first(tmp_path, monkeypatch):
    step, calls, said = Environments.step, [], []

    def terminated(self, actions):
        calls.append(1)
        if len(calls) == 150:
            os.kill(self._backend._workers[0].process.pid, signal.SIGKILL)
            signal.raise_signal(signal.SIGTERM)
        return step(self, actions)

    monkeypatch.setattr(Environments, "step", terminated)
    assert runs.train(config_of(env=ONCE, workers=1), tmp_path / "run", silent, said.append) is None
    assert checkpoint.steps_saved(tmp_path / "run" / "checkpoints")[-1] == 149
    assert said[-1].startswith("interrupted at step 149, saved")


# Disks


@pytest.mark.slow
def test_a_disk_that_is_full_when_metrics_are_written_stops_the_run_and_keeps_the_checkpoint(
    tmp_path, undisturbed, capsys, monkeypatch
):
    folder, write = tmp_path / "run", JsonlWriter.write

    class Full:
        """A file that takes a part of a line, and no more."""

        def __init__(self, file):
            self.file, self.name = file, file.name

        def write(self, data):
            self.file.write(data[:20])

        def flush(self):
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

        def close(self):
            self.file.close()
            self.flush()

    def full(self, record):
        if record["step"] > 250 and not isinstance(self._file, Full):
            self._file = Full(self._file)
        write(self, record)

    monkeypatch.setattr(JsonlWriter, "write", full)
    assert cli.run(arguments(["train"], folder, env=ONCE, num_envs=3)) == 1
    said = capsys.readouterr().err
    assert said.splitlines() == [
        f"polyak: {folder / 'metrics.jsonl'}: could not be written: No space left on device",
        f"polyak: the checkpoint of step 201 is kept; continue with: polyak resume {folder}",
    ]
    monkeypatch.undo()
    monkeypatch.setenv(TRIGGER, str(tmp_path / "no such file"))
    assert cli.run(["resume", str(folder), "--quiet"]) == 0
    assert_same_run(folder, undisturbed)


def test_folders_that_cannot_be_written(tmp_path, undisturbed, capsys, monkeypatch):
    def read_only(self, *arguments, **options):
        raise OSError(errno.EROFS, os.strerror(errno.EROFS))

    monkeypatch.setattr(pathlib.Path, "touch", read_only)
    assert cli.run(arguments(["train"], tmp_path / "run")) == 2
    assert "run cannot be written (Read-only file system). Give another folder." in capsys.readouterr().err
    plain = pathlib.Path.open

    def read_only_lock(self, mode="r", *arguments, **options):
        return (read_only if mode == "a+" else plain)(self, mode, *arguments, **options)

    monkeypatch.setattr(pathlib.Path, "open", read_only_lock)
    assert cli.run(["resume", str(undisturbed)]) == 2
    assert "cannot be written (Read-only file system). Copy the run" in capsys.readouterr().err
