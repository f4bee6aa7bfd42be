"""CartPole-v1 with the settings and seeds of CleanRL's dqn_jax.py (seeds 1 to 3): training return after 500 000 steps.

    python experiments/reproduce/cleanrl_cartpole.py [SEED ...]

Writes docs/results/cleanrl_cartpole.jsonl, one line per seed. Takes about seven minutes on two cores.
"""

import json
import pathlib
import shlex
import subprocess
import sys
import tempfile

from polyak.experiments.runs.records import read_jsonl

ROOT = pathlib.Path(__file__).parents[2]
SEEDS = (1, 2, 3)
OPTIONS = (
    "--steps 500000 --hidden-sizes 120 84 --no-double --error squared --optimizer adam --learning-rate 2.5e-4 "
    "--max-gradient-norm None --discount 0.99 --n-steps 1 --batch-size 128 --target periodic:500env --average none "
    "--replay-capacity 10000 --learning-starts 10000 --train-every 10 --learner-steps 1 "
    "--epsilon linear(1,0.05,50%) --log-every 5000 --checkpoint-every 100000"
)


def main(seeds=SEEDS):
    """Train the seeds, and write and print the results."""
    lines = []
    for seed in seeds:
        with tempfile.TemporaryDirectory() as scratch:
            folder = pathlib.Path(scratch) / "run"
            options = [*OPTIONS.split(), "--seed", str(seed), "--out", str(folder)]
            subprocess.run([sys.executable, "-m", "polyak", "train", "dqn", *options], check=True)
            records = list(read_jsonl(folder / "metrics.jsonl"))
            lines.append(
                {
                    "command": shlex.join(["polyak", "train", "dqn", *OPTIONS.split(), "--seed", str(seed)]),
                    "seed": seed,
                    "training_return": records[-1]["return_mean"],
                    "curve": [[record["step"], record["return_mean"]] for record in records],
                    "greedy_mean": json.loads((folder / "evaluation.json").read_text())["mean"],
                    "seconds": records[-1]["seconds"],
                    "versions": json.loads((folder / "config.json").read_text())["versions"],
                }
            )
    if tuple(seeds) == SEEDS:  # results of other seeds are only printed
        path = ROOT / "docs" / "results" / "cleanrl_cartpole.jsonl"
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text("".join(json.dumps(line) + "\n" for line in lines))
    print("| seed | training return (last 100 episodes) | greedy return |\n|---|---|---|")
    for line in lines:
        print(f"| {line['seed']} | {line['training_return']:.1f} | {line['greedy_mean']:.1f} |")


if __name__ == "__main__":
    main(tuple(int(seed) for seed in sys.argv[1:]) or SEEDS)
