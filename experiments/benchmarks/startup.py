"""How long a person waits: for ``polyak --help``, and from ``polyak train`` to its first learner step.

    python experiments/benchmarks/startup.py

A new process each time, with Python's compiled files on the disk from a run before. The first learner step is seen in
the run's own records: by default learning starts at step 1000, where the first record that has learnt is written,
after one dispatch of the learner. So the time holds the imports, the first checkpoint, 1000 steps of acting and all
compilation; the file is looked at every 5 milliseconds. Two further sides are a lower bound for any
such program: Python alone, and the imports of its libraries.
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
    """Seconds until a process has ended."""
    started = time.perf_counter()
    subprocess.run([sys.executable, *arguments], check=True, stdout=subprocess.DEVNULL, timeout=LIMIT)
    return time.perf_counter() - started


def first_learner_step():
    """Seconds from the start of ``polyak train`` to the first record that has learnt; the run is then killed."""
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
    """Both times, and what they are made of."""
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
