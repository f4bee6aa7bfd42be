"""Table and figure of the quickstart: ten seeds of ``polyak train``, evaluated greedily.

    python experiments/reproduce/quickstart.py

Writes docs/results/quickstart.jsonl (a line per seed) and docs/images/quickstart.png. About five minutes on two cores.
"""

import concurrent.futures
import json
import pathlib
import shlex
import subprocess
import sys
import tempfile

import numpy as np
from matplotlib.figure import Figure

from polyak.experiments.runs.records import read_jsonl

ROOT = pathlib.Path(__file__).parents[2]
SEEDS = range(10)
AT_A_TIME = 2


def train(seed, folder, *options):
    """Make one run from the command line; return its line of the results."""
    words = ["train", *options, "--seed", str(seed)]
    subprocess.run([sys.executable, "-m", "polyak", *words, "--quiet", "--out", folder], check=True)
    evaluation = json.loads((folder / "evaluation.json").read_text())
    records = list(read_jsonl(folder / "metrics.jsonl"))
    config = json.loads((folder / "config.json").read_text())
    return {
        "command": shlex.join(["polyak", *words]),
        "seed": seed,
        "greedy_mean": evaluation["mean"],
        "greedy_returns": evaluation["returns"],
        "training_return": records[-1]["return_mean"],
        "ended_at": [end for record in records for end in record["ended_at"]],
        "returns": [value for record in records for value in record["returns"]],
        "versions": config["versions"],
        "config": config["config"],
    }


def train_all(jobs):
    """Call :func:`train` with each of the arguments, ``AT_A_TIME`` at a time; return the results in order."""
    with concurrent.futures.ThreadPoolExecutor(AT_A_TIME) as pool:
        return list(pool.map(lambda job: train(*job), jobs))


def draw(runs, path):
    """Draw the running mean over 20 episodes of every seed, and its final greedy evaluation."""
    figure = Figure(figsize=(7.5, 4), layout="constrained")
    axes = figure.add_subplot()
    for number, run in enumerate(runs):
        returns = np.convolve(run["returns"], np.ones(20) / 20, mode="valid")
        color = f"C{number}"
        axes.plot(run["ended_at"][19:], returns, color=color, linewidth=1.2, label=f"seed {run['seed']}")
        axes.plot(51_000, run["greedy_mean"], marker=">", color=color, markersize=8, clip_on=False)
    axes.axhline(475, color="grey", linewidth=0.8, linestyle=":")
    axes.text(500, 479, "solved: 475", color="grey", fontsize=8)
    axes.set(xlim=(0, 51_000), ylim=(0, 510), xlabel="environment steps", ylabel="return")
    axes.grid(alpha=0.3)
    axes.legend(frameon=False, loc="lower right")
    path.parent.mkdir(parents=True, exist_ok=True)
    figure.savefig(path, dpi=150)


def main():
    """Train, and write, draw and print the results."""
    with tempfile.TemporaryDirectory() as scratch:
        runs = train_all([(seed, pathlib.Path(scratch) / str(seed)) for seed in SEEDS])
    results = ROOT / "docs" / "results" / "quickstart.jsonl"
    results.parent.mkdir(parents=True, exist_ok=True)
    results.write_text("".join(json.dumps(run) + "\n" for run in runs))
    draw(runs, ROOT / "docs" / "images" / "quickstart.png")
    print("| seed | greedy return (20 episodes) | training return (last 100) |\n|---|---|---|")
    for run in runs:
        print(f"| {run['seed']} | {run['greedy_mean']:.1f} | {run['training_return']:.1f} |")


if __name__ == "__main__":
    main()
