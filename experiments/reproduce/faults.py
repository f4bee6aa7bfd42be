"""Fault injection: kill -9, SIGTERM and a full disk at random points of runs, which are then continued to their end.

    python experiments/reproduce/faults.py [POINTS]

A continued run must equal an uninterrupted run bit for bit: parameters, evaluation and metrics. The points (30 by
default) are drawn over three agents. A signal comes up to 50 ms after an environment step, so it can also hit learning,
checkpoints and evaluation. A full disk is simulated by a limit on the file size. Writes docs/results/faults.jsonl, one
line for each point. Takes about seven minutes on two cores.
"""

import concurrent.futures
import json
import os
import pathlib
import random
import resource
import signal
import subprocess
import sys
import tempfile
import threading

import gymnasium
import numpy as np

ROOT = pathlib.Path(__file__).parents[2]
POINTS, AT_A_TIME = 30, 2
AGENTS = ("n_step_double_dqn", "rainbow", "zp")
STRIKE = "POLYAK_STRIKE"  # environment variable: signal, step of an environment, delay in seconds, largest file
FAULTS = ("SIGKILL", "SIGTERM", "full disk")
OPTIONS = [
    "--steps",
    "900",
    "--learning-starts",
    "60",
    "--batch-size",
    "8",
    "--hidden-sizes",
    "8",
    "--replay-capacity",
    "300",
    "--log-every",
    "50",
    "--checkpoint-every",
    "100",
    "--evaluate-every",
    "300",
    "--evaluation-episodes",
    "2",
    "--wrapper",
    "faults:Struck",
    "--quiet",
]
TIMES = ("seconds", "steps_per_second", "compile_seconds", "compilations")


class Struck(gymnasium.Wrapper):
    """Wrapper that injects the fault given by ``POLYAK_STRIKE`` into its own process."""

    def __init__(self, env):
        super().__init__(env)
        name, at, delay, largest = os.environ.get(STRIKE, "none -1 0 -1").split()
        self.steps, self.at, self.delay, self.name = 0, int(at), float(delay), name
        if int(largest) > 0:
            resource.setrlimit(resource.RLIMIT_FSIZE, (int(largest), int(largest)))

    def step(self, action):
        """Take a step; a signal may follow it."""
        self.steps += 1
        if self.steps == self.at:
            threading.Timer(self.delay, os.kill, (os.getpid(), getattr(signal, self.name))).start()
        return self.env.step(action)


def polyak(*words, strike=None):
    """Run a command and return its exit status."""
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join([str(ROOT / "experiments" / "reproduce"), *sys.path])}
    if strike is not None:
        environment[STRIKE] = strike
    command = [sys.executable, "-m", "polyak", *map(str, words)]
    return subprocess.run(command, env=environment, capture_output=True).returncode


def outcome(folder):
    """Parameters, evaluation, and metrics without timings of a run that has ended."""
    with np.load(folder / "parameters.npz") as archive:
        parameters = {name: archive[name].tobytes() for name in archive.files}
    lines = [json.loads(line) for line in (folder / "metrics.jsonl").read_text().splitlines()]
    metrics = [{name: value for name, value in line.items() if name not in TIMES} for line in lines]
    return parameters, json.loads((folder / "evaluation.json").read_text()), metrics


def strike(number, scratch):
    """Inject one fault, continue the run until it ends, and compare it with the uninterrupted run."""
    rng = random.Random(number)
    agent, fault = AGENTS[(number + number // 3) % 3], FAULTS[number % 3]
    folder, train = scratch / str(number), ("train", agent, *OPTIONS, "--out")
    point = {"point": number, "agent": agent, "fault": fault}
    if fault == "full disk":
        point["largest_file"] = int(10 ** rng.uniform(3, 5))
        asked = f"none -1 0 {point['largest_file']}"
    else:
        point |= {"step": rng.randint(1, 900), "delay": round(rng.uniform(0, 0.05), 4)}
        asked = f"{fault} {point['step']} {point['delay']} -1"
    statuses = [polyak(*train, folder, strike=asked)]
    while not (folder / "evaluation.json").exists() and len(statuses) < 4:
        began = (folder / "config.json").exists()
        folder = folder if began else scratch / f"{number}-again"  # the run had written nothing yet
        statuses.append(polyak("resume", folder, "--quiet") if began else polyak(*train, folder))
    equal = statuses[-1] == 0 and outcome(folder) == outcome(scratch / agent)
    return {**point, "exit_statuses": statuses, "equal": equal}


def main(points=POINTS):
    """Return the results of all points."""
    with tempfile.TemporaryDirectory() as name, concurrent.futures.ThreadPoolExecutor(AT_A_TIME) as pool:
        scratch = pathlib.Path(name)
        whole = [pool.submit(polyak, "train", agent, *OPTIONS, "--out", scratch / agent) for agent in AGENTS]
        assert [one.result() for one in whole] == [0] * len(AGENTS)
        return list(pool.map(strike, range(points), [scratch] * points))


if __name__ == "__main__":
    found = main(*map(int, sys.argv[1:]))
    for line in found:
        print(json.dumps(line))
    (ROOT / "docs" / "results" / "faults.jsonl").write_text("".join(json.dumps(line) + "\n" for line in found))
    sys.exit(0 if all(line["equal"] for line in found) else 1)
