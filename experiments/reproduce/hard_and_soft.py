"""Hard and soft targets on CartPole-v1: ``polyak train`` with two rules and otherwise its defaults, ten seeds each.

    python experiments/reproduce/hard_and_soft.py

Writes docs/results/hard_and_soft.jsonl (one line per run) and, with ``polyak compare``, docs/images/hard_and_soft.png;
prints the table of ``polyak compare``. Takes about ten minutes on two cores.
"""

import json
import pathlib
import subprocess
import sys
import tempfile

from quickstart import ROOT, SEEDS, train_all

HARD, SOFT = "periodic:50", "incremental:0.04"  # with the same mean age, 24 learner steps
COMPARE = ("--window", "20", "--threshold", "475", "--format", "markdown")


def main():
    """Train, and write, draw and print the results."""
    with tempfile.TemporaryDirectory() as scratch:
        runs = train_all(
            (seed, pathlib.Path(scratch) / f"{number}-{seed}", "--target", rule)
            for number, rule in enumerate((HARD, SOFT))
            for seed in SEEDS
        )
        results = ROOT / "docs" / "results" / "hard_and_soft.jsonl"
        results.parent.mkdir(parents=True, exist_ok=True)
        results.write_text("".join(json.dumps(run) + "\n" for run in runs))
        picture = ROOT / "docs" / "images" / "hard_and_soft.png"
        picture.parent.mkdir(parents=True, exist_ok=True)
        command = [sys.executable, "-m", "polyak", "compare", scratch, *COMPARE, "--figure", str(picture)]
        subprocess.run(command, check=True)


if __name__ == "__main__":
    main()
