"""Runs of the atlas of target rules.

    python experiments/reproduce/target_atlas.py                     # all parts, several hours on two cores
    python experiments/reproduce/target_atlas.py --parts CartPole-v1/dqn MinAtar

A part is an environment and an agent: fifteen target rules on the classic control tasks, five on MinAtar Breakout and
four on LunarLander. Each part is a command of ``polyak sweep``, and writes docs/results/target_atlas/PART.jsonl, a line
per run. With ``--scratch FOLDER``, the sweeps stay there, and a part that was stopped continues.
"""

import argparse
import json
import pathlib
import shlex
import subprocess
import sys
import tempfile
import time

import numpy as np
from quickstart import ROOT

from polyak.experiments.runs.records import read_jsonl

HARD = tuple(f"periodic:{period}" for period in (10, 50, 200, 1000, 5000))
SOFT = tuple(f"incremental:{size}" for size in (0.1, 0.03, 0.01, 0.003, 0.001))
RULES = ("none", *HARD, *SOFT, "incremental:0.02@4", "incremental:cosine(0.01)", "none q/head=periodic:200")
FEW = ("none", "periodic:200", "periodic:1000", "incremental:0.005", "none q/head=periodic:200")
# The numbers of experiments/reproduce/environments.py, with which agents learn MountainCar.
MOUNTAIN_CAR = (
    "--steps 120000 --learning-rate 0.004 --discount 0.98 --hidden-sizes 256 256 --train-every 16 --learner-steps 8 "
    "--epsilon linear(1,0.07,20%) --replay-capacity 10000"
)
TASKS = {"CartPole-v1": "--steps 50000", "Acrobot-v1": "--steps 50000", "MountainCar-v0": MOUNTAIN_CAR}
AGENTS = ("dqn", "n_step_double_dqn", "c51")
RESULTS = ROOT / "docs" / "results" / "target_atlas"


def parts():
    """Name of each part to the commands of its sweeps: agent, options, rules and number of seeds."""
    found = {}
    for env, options in TASKS.items():
        for agent in AGENTS:
            sweeps = [(agent, f"--env {env} {options}", RULES, 16)]
            if agent == "dqn":
                sweeps.append(("isdqn", f"--env {env} {options}", (), 16))
            found[f"{env}/{agent}"] = sweeps
        found[f"{env}/self_prediction"] = [
            (agent, f"--env {env} {options}", (), 10) for agent in ("dqn", "zp", "byol_pi", "byol_ac")
        ]
    minatar = "--env gymnax/Breakout-MinAtar --preset minatar --steps 1000000 --train-every 4"
    found["MinAtar/dqn"] = [("dqn", minatar, FEW, 5)]
    found["LunarLander-v3/dqn"] = [("dqn", "--env LunarLander-v3 --steps 200000", FEW[:4], 5)]
    return found


def run_part(name, sweeps, scratch):
    """Train the sweeps of a part, and write a line for each run."""
    lines, started = [], time.perf_counter()
    for number, (agent, options, rules, seeds) in enumerate(sweeps):
        folder = scratch / name.replace("/", "-") / str(number)
        words = ["sweep", agent, *shlex.split(options), *(["--target", *rules] if rules else []), "--seeds", str(seeds)]
        if (folder / "sweep.json").is_file():
            subprocess.run([sys.executable, "-m", "polyak", "resume", folder, "--quiet"], check=True)
        else:
            folder.parent.mkdir(parents=True, exist_ok=True)
            subprocess.run([sys.executable, "-m", "polyak", *words, "--quiet", "--out", folder], check=True)
        lines += [line_of(path.parent, words) for path in sorted(folder.rglob("config.json"))]
    seconds = time.perf_counter() - started
    path = RESULTS / f"{name.replace('/', '-')}.jsonl"
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text("".join(json.dumps({**line, "seconds_of_part": round(seconds)}) + "\n" for line in lines))
    print(f"{name}: {len(lines)} runs in {seconds:.0f} s")


def line_of(folder, words):
    """Result of a run: a diverged run has no evaluation."""
    written = json.loads((folder / "config.json").read_text())
    records = list(read_jsonl(folder / "metrics.jsonl"))
    ended = folder / "evaluation.json"
    returns = [value for record in records for value in record["returns"]]
    return {
        "command": shlex.join(["polyak", *words]),
        "agent": written["config"]["agent_name"],
        "target": written["config"]["agent"]["target"],
        "env": written["config"]["env"],
        "seed": written["config"]["seed"],
        "steps": written["config"]["steps"],
        "greedy_mean": json.loads(ended.read_text())["mean"] if ended.is_file() else None,
        "training_return": records[-1]["return_mean"],
        "mean_return": float(np.mean(returns)) if returns else None,
        "versions": written["versions"],
    }


def main():
    """Train the chosen parts."""
    known = parts()
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--parts", nargs="+", default=list(known), help="parts, or beginnings of their names")
    parser.add_argument("--scratch", type=pathlib.Path, help="folder in which the sweeps stay")
    options = parser.parse_args()
    chosen = [name for name in known if any(name.startswith(part) for part in options.parts)]
    with tempfile.TemporaryDirectory() as temporary:
        for name in chosen:
            run_part(name, known[name], options.scratch or pathlib.Path(temporary))


if __name__ == "__main__":
    main()
