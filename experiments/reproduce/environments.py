"""The table of environments in the README: greedy returns over five seeds.

    python experiments/reproduce/environments.py

Writes docs/results/environments.jsonl (a line per run) and prints the table. About half an hour on two cores.
"""

import json
import pathlib
import tempfile

import numpy as np
from quickstart import ROOT, train_all

SEEDS = range(5)
# Numbers of MountainCar: those of the RL Baselines3 Zoo, which counts periods in environment steps.
ZOO = (
    "--steps 120000 --learning-rate 0.004 --discount 0.98 --hidden-sizes 256 256 --train-every 16 --learner-steps 8 "
    "--epsilon linear(1,0.07,20%) --target periodic:600env --replay-capacity 10000 --batch-size 128"
)
COMMANDS = {
    "CartPole-v1": [""],
    "Acrobot-v1": ["--steps 100000", "c51 --steps 100000", "rainbow --steps 100000"],
    "MountainCar-v0": [f"dqn {ZOO}"],
    "FrozenLake-v1": ["double_dqn --steps 100000 --discount 0.99"],
}


def main():
    """Trains, writes, prints."""
    commands = [(env, words.split()) for env, several in COMMANDS.items() for words in several]
    with tempfile.TemporaryDirectory() as scratch:
        runs = train_all(
            (seed, pathlib.Path(scratch) / f"{number}-{seed}", *words, "--env", env)
            for number, (env, words) in enumerate(commands)
            for seed in SEEDS
        )
    results = ROOT / "docs" / "results" / "environments.jsonl"
    results.write_text("".join(json.dumps(run) + "\n" for run in runs))
    print("| environment | agent | steps | greedy return | training return |\n|---|---|---|---|---|")
    for number, (env, _) in enumerate(commands):
        of_one = runs[number * len(SEEDS) : (number + 1) * len(SEEDS)]
        config = of_one[0]["config"]
        cells = [_spread([run[name] for run in of_one]) for name in ("greedy_mean", "training_return")]
        print(f"| {env} | `{config['agent_name']}` | {config['steps']:,} | {cells[0]} | {cells[1]} |")


def _spread(values):
    digits = 1 if max(map(abs, values)) > 1 else 2
    mean, low, high = (f"{value:.{digits}f}" for value in (np.mean(values), min(values), max(values)))
    return f"{mean} ({low} to {high})"


if __name__ == "__main__":
    main()
