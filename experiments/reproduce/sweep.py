"""Sweep of the README: four target rules, sixteen seeds each, on CartPole-v1.

    python experiments/reproduce/sweep.py

Runs the README's command, writes docs/results/sweep.jsonl (a line per lane) and docs/images/sweep.png, and prints the
table. A few minutes on two cores.
"""

import json
import pathlib
import shutil
import subprocess
import sys
import tempfile
import time

from quickstart import ROOT
from target_atlas import line_of

RULES = ("none", "periodic:50", "incremental:0.005", "periodic:500 q/torso=none")
WORDS = ("sweep", "dqn", "--target", *RULES, "--seeds", "16")


def main():
    """Train, write, copy the figure, print."""
    with tempfile.TemporaryDirectory() as scratch:
        folder, started = pathlib.Path(scratch) / "sweep", time.perf_counter()
        subprocess.run([sys.executable, "-m", "polyak", *WORDS, "--quiet", "--out", folder], check=True)
        print(f"{time.perf_counter() - started:.0f} seconds")
        lanes = [line_of(path.parent, WORDS) for path in sorted(folder.rglob("config.json"))]
        results = ROOT / "docs" / "results" / "sweep.jsonl"
        results.write_text("".join(json.dumps(lane) + "\n" for lane in lanes))
        shutil.copy(folder / "comparison.png", ROOT / "docs" / "images" / "sweep.png")
        subprocess.run([sys.executable, "-m", "polyak", "compare", folder, "--format", "markdown"], check=True)


if __name__ == "__main__":
    main()
