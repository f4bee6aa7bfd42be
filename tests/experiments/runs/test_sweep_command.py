"""The command ``polyak sweep`` in a process of its own, with a device for each core."""

import os
import signal
import subprocess
import sys
import time

import pytest

from polyak.__main__ import lane_flags
from polyak.experiments import cli
from small_runs import arguments, records
from small_sweeps import assert_equal_lane, grid_of

RULES = ["none", "periodic:5", "incremental:0.1"]


def start(words, devices):
    flags = f"--xla_force_host_platform_device_count={devices}"
    return subprocess.Popen(
        [sys.executable, "-m", "polyak", *words],
        env=os.environ | {"XLA_FLAGS": flags},
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    )


def test_flags_that_are_set_are_kept():
    assert lane_flags("", 2).split() == [
        "--xla_force_host_platform_device_count=2",
        "--xla_cpu_multi_thread_eigen=false",
        "intra_op_parallelism_threads=1",
    ]
    assert lane_flags(lane_flags("", 2), 4) == lane_flags("", 2)


@pytest.mark.slow
def test_an_interrupted_command_continues_on_other_devices(tmp_path):
    words = [*arguments(["sweep", "dqn"], tmp_path / "sweep", steps=20_000, log_every=100), "--target", *RULES]
    process = start(words, devices=2)
    metrics = tmp_path / "sweep" / "none" / "seed0" / "metrics.jsonl"
    while not (metrics.is_file() and metrics.stat().st_size) and process.poll() is None:
        time.sleep(0.1)
    process.send_signal(signal.SIGINT)
    said = process.communicate(timeout=120)[0]
    assert process.returncode == 130, said
    assert "devices   2 CPU devices, the lanes of each one after the other" in said
    assert f"interrupted, saved; continue with: polyak resume {tmp_path / 'sweep'}" in said
    begun = len(records(tmp_path / "sweep" / "none" / "seed0"))
    assert 0 < begun < 200
    process = start(["resume", str(tmp_path / "sweep")], devices=1)
    said = process.communicate(timeout=300)[0]
    assert process.returncode == 0, said
    assert "target=incremental:0.1" in said
    assert (tmp_path / "sweep" / "comparison.png").stat().st_size > 1000
    other = [*arguments(["sweep", "dqn"], tmp_path / "other", steps=20_000, log_every=100), "--target", *RULES]
    process = start(other, devices=3)
    said = process.communicate(timeout=300)[0]
    assert process.returncode == 0, said
    grid = grid_of(axes={"target": RULES}, steps=20_000, log_every=100)
    for lane in grid.lanes:
        assert_equal_lane(tmp_path / "sweep" / lane.name, tmp_path / "other" / lane.name)


@pytest.mark.slow
def test_a_config_is_where_lanes_begin(tmp_path, capsys):
    assert cli.run([*arguments(["train", "dqn"], tmp_path / "run", steps=100), "--learning-rate", "0.01"]) == 0
    words = ["--config", str(tmp_path / "run" / "config.json"), "--target", "none", "frozen", "--quiet"]
    assert cli.run(["sweep", *words, "--out", str(tmp_path / "sweep")]) == 0
    found = capsys.readouterr().out
    assert "target=frozen" in found
    assert f"sweep     {tmp_path / 'sweep'}" in found
    assert cli.run(["resume", str(tmp_path / "sweep"), "--quiet", "--steps", "200"]) == 2
    assert "steps: got 200; a sweep is not extended" in capsys.readouterr().err
    assert cli.run(["compare", str(tmp_path / "sweep")]) == 0
