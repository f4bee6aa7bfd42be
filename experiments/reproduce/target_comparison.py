"""DQN on CartPole-v1 with four target rules, five seeds each: the figure of the README and of docs/targets.md.

    python experiments/reproduce/target_comparison.py

The learning rate is 0.001 as in ``dqn``, but constant, so that the rule decides whether learning stays stable. Writes
docs/results/target_comparison.jsonl (a line per run) and docs/images/target_comparison.png, which ``polyak compare``
draws, and prints its table. About fifteen minutes on two cores.
"""

import json
import pathlib
import subprocess
import sys
import tempfile

from quickstart import ROOT, train_all

RULES = ("none", "periodic:50", "periodic:500", "incremental:0.005")
SEEDS = range(5)
AGENT = ("dqn", "--steps", "100000", "--learning-rate", "0.001")
COMPARE = ("--size", "7", "4", "--format", "markdown")


def main():
    """Trains, writes, draws, prints."""
    with tempfile.TemporaryDirectory() as scratch:
        folders = {rule: pathlib.Path(scratch) / rule.replace(":", "-") for rule in RULES}
        for folder in folders.values():
            folder.mkdir()
        runs = train_all(
            (seed, folders[rule] / f"seed{seed}", *AGENT, "--target", rule) for seed in SEEDS for rule in RULES
        )
        results = ROOT / "docs" / "results" / "target_comparison.jsonl"
        results.write_text("".join(json.dumps(run) + "\n" for run in runs))
        picture = ROOT / "docs" / "images" / "target_comparison.png"
        command = [sys.executable, "-m", "polyak", "compare", *folders.values(), *COMPARE, "--figure", picture]
        subprocess.run(command, check=True)


if __name__ == "__main__":
    main()
