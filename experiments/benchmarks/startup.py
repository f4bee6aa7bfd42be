"""Waiting time of a user: for ``polyak --help``, and from ``polyak train`` to its first learner step.

    python experiments/benchmarks/startup.py

Each measurement uses a new process; Python's compiled files are on the disk from an earlier run. The first learner step
is detected in the records of the run: by default learning starts at step 1000, and the first record with a learner step
is written there, after one dispatch of the learner. The time therefore includes the imports, the first checkpoint, 1000
steps of acting, and all compilation. The file is polled every 5 milliseconds. Two further sides give a lower bound for
any such program: Python alone, and the imports of the libraries.
"""

import os
import pathlib
import subprocess
import sys
import tempfile
import time

import timing

HELP, TRAIN, PYTHON, LIBRARIES = "polyak --help", "polyak train, first learner step", "python alone", "imports alone"
LIMIT = 300  # seconds


def finished(*arguments):
    """Measure the seconds until a process has ended."""
    started = time.perf_counter()
    subprocess.run([sys.executable, *arguments], check=True, stdout=subprocess.DEVNULL, timeout=LIMIT)
    return time.perf_counter() - started


def first_learner_step():
    """Measure the seconds from ``polyak train`` to the first record with a learner step; then kill the run."""
    with tempfile.TemporaryDirectory() as scratch:
        metrics = pathlib.Path(scratch) / "run" / "metrics.jsonl"
        command = [sys.executable, "-m", "polyak", "train", "--quiet", "--out", str(metrics.parent)]
        started = time.perf_counter()
        with subprocess.Popen(command, stdout=subprocess.DEVNULL, env=os.environ | {"MPLBACKEND": "Agg"}) as process:
            try:
                while not _has_learnt(metrics):
                    if process.poll() is not None or time.perf_counter() - started > LIMIT:
                        raise RuntimeError(f"{' '.join(command)}: ended or made no learner step in {LIMIT} seconds.")
                    time.sleep(0.005)
                return time.perf_counter() - started
            finally:
                process.kill()


def _has_learnt(metrics):
    lines = metrics.read_text().splitlines() if metrics.exists() else []
    return any('"learner_steps": 0,' not in line for line in lines)


def main():
    """Measure both times and their lower bounds."""
    options = timing.arguments(__doc__, rounds=10)
    sides = {
        HELP: lambda: finished("-m", "polyak", "--help"),
        PYTHON: lambda: finished("-c", "pass"),
        TRAIN: first_learner_step,
        LIBRARIES: lambda: finished("-c", "import gymnasium, haiku, jax, optax, rlax; jax.numpy.zeros(1)"),
    }
    figures = timing.alternate(sides, options.rounds, warm_up=not options.quick)
    bars = {HELP: "at most 1, aim 0.5", TRAIN: "at most 10, aim 6"}
    timing.report(options, "start", "s", figures, [(HELP, PYTHON), (TRAIN, LIBRARIES)], bars)


if __name__ == "__main__":
    main()
